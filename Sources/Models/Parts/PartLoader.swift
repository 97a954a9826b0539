import CheckpointIO
import Tensors

/// Turns tensors into the parts of a model.
struct PartLoader: Sendable {
  let source: any TensorSource
  let description: ModelDescription
  let reader: WeightReader?

  func part(_ place: PartPlace) throws(CheckpointError) -> any ModelPart {
    switch place {
    case .embedding: try embedding()
    case .decoder(let index): try block(index)
    case .head: try head()
    }
  }

  private func embedding() throws(CheckpointError) -> Embedding {
    let (prefix, name) = split(description.embedding)
    let size = description.hiddenSize
    return Embedding(
      prefix: prefix, tableName: name,
      table: try linear(description.embedding, rows: description.vocabularySize, columns: size, bias: false),
      norms: try norms(end: description.embeddingNorm, like: description.embeddingNorm ?? description.embedding), norm: description.norm,
      description: EmbeddingDescription(
        scale: description.embeddingScale, positions: description.positions, tokenTypes: description.tokenTypes),
      positions: try description.positions.map { positions throws(CheckpointError) in
        try matrix(positions.module + ".weight", rows: positions.count + positions.offset, columns: size)
      },
      tokenTypes: try description.tokenTypes.map { types throws(CheckpointError) in
        try matrix(types.module + ".weight", rows: types.count, columns: size)
      })
  }

  private func head() throws(CheckpointError) -> Head {
    var linears: [LinearName: Linear] = [:]
    var prefix = ""
    if let head = description.head {
      let (headPrefix, name) = split(head)
      prefix = headPrefix
      linears[name] = try linear(head, rows: description.vocabularySize, columns: description.hiddenSize, bias: description.hasHeadBias)
    }
    return Head(
      prefix: prefix, linears: linears, norms: try norms(end: description.finalNorm, like: description.landmark),
      norm: description.norm, logits: LogitDescription(scale: description.logitScale, cap: description.logitCap))
  }

  private func block(_ index: Int) throws(CheckpointError) -> Block {
    let block = description.blocks[index]
    var linears = try stackedLinears(of: block)
    let biases = try stackedBiases(of: block)
    for (name, shape) in block.linearShapes where linears[name] == nil {
      linears[name] = try linear(
        block.prefix + name.rawValue, rows: shape.rows, columns: shape.columns, bias: shape.bias, isTransposed: block.storesTransposed,
        stacked: biases[name])
    }
    return Block(
      index: index, description: block, linears: linears,
      norms: try norms(
        block.normSizes.map { ($0.name, block.weightName(ofNorm: $0.name), $0.size) }, as: block.norm, prefix: block.prefix,
        like: block.prefix + (block.norms.names.first ?? "")),
      parameters: try parameters(of: block), cache: try cache(of: block))
  }

  /// The stacks that the file holds a block's experts in, as they lie there.
  ///
  /// Savers have written the matrices of some families either way round. The shape tells, unless both sides are equally long.
  private func stacks(of block: BlockDescription) -> [ExpertStack] {
    block.expertStacks.compactMap { stack in
      guard let info = source.info(block.prefix + stack.name) else { return nil }
      return info.shape == stack.turned.shape && info.shape != stack.shape ? stack.turned : stack
    }
  }

  /// The stacks whose biases the file holds together, whatever its weights are.
  private func biasStacks(of block: BlockDescription) -> [ExpertStack] {
    block.expertStacks.filter { stack in stack.biasName.map { source.info(block.prefix + $0) != nil } ?? false }
  }

  /// The linears of experts that lie in stacks.
  private func stackedLinears(of block: BlockDescription) throws(CheckpointError) -> [LinearName: Linear] {
    var linears: [LinearName: Linear] = [:]
    let biases = try stackedBiases(of: block)
    for stack in stacks(of: block) {
      let tensor = try stored(block.prefix + stack.name, stack.shape, use: "matrices of floats")
      for (expert, parts) in stack.linears.enumerated() {
        let matrix = tensor.entry(expert)
        for (part, name) in parts.enumerated() {
          linears[name] = Linear(weight: stack.weight(part, in: matrix), bias: biases[name], storageType: tensor.dtype)
        }
      }
    }
    return linears
  }

  private func stackedBiases(of block: BlockDescription) throws(CheckpointError) -> [LinearName: [Float]] {
    var biases: [LinearName: [Float]] = [:]
    for stack in biasStacks(of: block) {
      let name = block.prefix + (stack.biasName ?? "")
      let tensor = try stored(name, stack.biasShape, use: "vectors of floats")
      guard !tensor.holdsNonfinite else { throw .nonfiniteWeight(tensor: name) }
      for (expert, parts) in stack.linears.enumerated() {
        let values = tensor.entry(expert).floats()
        for (part, linear) in parts.enumerated() { biases[linear] = stack.outputs(of: part).map { values[$0] } }
      }
    }
    return biases
  }

  /// Names and shapes of a block's tensors, as the file lays experts out.
  private func shapes(of block: BlockDescription) -> [(name: String, shape: [Int])] {
    block.tensorShapes(stacks: stacks(of: block), biases: biasStacks(of: block))
  }

  private func stored(_ name: String, _ shape: [Int], use: String) throws(CheckpointError) -> Tensor {
    let tensor = try source.tensor(name)
    guard tensor.shape == shape else { throw .wrongShape(tensor: name, expected: shape, found: tensor.shape) }
    guard tensor.dtype.isReadableAsFloat else { throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: use) }
    return tensor
  }

  /// The scales under which the block's keys and values are stored, if there are any.
  private func cache(of block: BlockDescription) throws(CheckpointError) -> CacheQuantization? {
    guard let heads = block.heads else { return nil }
    let module = block.prefix + heads.module
    let cache = try reader?.cache(module, source)
    for (name, scales) in [("k_scale", cache?.key.headScales), ("v_scale", cache?.value.headScales)] {
      guard let scales, scales.count != heads.keyValues else { continue }
      throw .wrongShape(tensor: "\(module).\(name)", expected: [heads.keyValues, 1, 1], found: [scales.count, 1, 1])
    }
    return cache
  }

  private func parameters(of block: BlockDescription) throws(CheckpointError) -> [String: Tensor] {
    var tensors: [String: Tensor] = [:]
    for parameter in block.parameters {
      let name = block.prefix + parameter.name
      let tensor = try stored(name, parameter.shape, use: "floats")
      guard !tensor.holdsNonfinite else { throw .nonfiniteWeight(tensor: name) }
      tensors[parameter.name] = tensor
    }
    return tensors
  }

  /// - Parameter module: the one whose storage type is theirs.
  private func norms(
    _ sizes: [(name: String, weight: String, size: Int)], as norm: NormDescription, prefix: String, like module: String
  ) throws(CheckpointError) -> PartNorms {
    var (weights, biases): ([String: [Float]], [String: [Float]]) = ([:], [:])
    for (name, weight, size) in sizes {
      weights[name] = try vector(prefix + weight, count: size)
      if norm.hasBias { biases[name] = try vector(prefix + name + ".bias", count: size) }
    }
    return PartNorms(weights, biases: biases, offset: norm.offset, storageType: storageType(of: module))
  }

  /// The norm at either end of the model, if there is one.
  private func norms(end: String?, like module: String) throws(CheckpointError) -> PartNorms {
    try norms(end.map { [($0, $0 + ".weight", description.hiddenSize)] } ?? [], as: description.norm, prefix: "", like: module)
  }

  /// Checks headers alone: nothing is decoded.
  func verify() throws(CheckpointError) {
    try verify(description.endShapes)
    // One block after the other: where the configuration has more of them than the file, the first that is missing ends it.
    for block in description.blocks { try verify(shapes(of: block)) }
  }

  private func verify(_ shapes: [(name: String, shape: [Int])]) throws(CheckpointError) {
    for (name, shape) in shapes {
      // A compressed weight has other names or shapes; its reader checks them when it decodes it.
      if let reader, shape.count == 2, name.hasSuffix(".weight"), reader.holds(String(name.dropLast(".weight".count)), source) { continue }
      guard let info = source.info(name) else {
        // The container knows why it left it out.
        _ = try source.tensor(name)
        throw .missingTensor(name: name)
      }
      guard info.shape == shape else { throw .wrongShape(tensor: name, expected: shape, found: info.shape) }
    }
  }

  private func split(_ module: String) -> (prefix: String, name: LinearName) {
    let last = module.split(separator: ".").last.map(String.init) ?? module
    return (String(module.dropLast(last.count)), LinearName(rawValue: last))
  }

  private func storageType(of module: String) -> DType { source.info(module + ".weight")?.dtype ?? .bfloat16 }

  private func vector(_ name: String, count: Int) throws(CheckpointError) -> [Float] {
    let values = try stored(name, [count], use: "a vector of floats").floats()
    guard !values.withUnsafeBufferPointer(Kernel.hasNonfinite) else { throw .nonfiniteWeight(tensor: name) }
    return values
  }

  private func linear(
    _ module: String, rows: Int, columns: Int, bias: Bool, isTransposed: Bool = false, stacked: [Float]? = nil
  ) throws(CheckpointError) -> Linear {
    let bias = if let stacked { stacked } else { bias ? try vector(module + ".bias", count: rows) : nil }
    if let reader, reader.holds(module, source) {
      let weight = try reader.weight(module, source)
      guard weight.rows == rows, weight.columns == columns else {
        throw .wrongShape(tensor: module, expected: [rows, columns], found: [weight.rows, weight.columns])
      }
      // Scales may have a type of their own; biases and norms have the one that dense weights would have.
      let storageType = source.info(module + ".bias")?.dtype ?? storageType(of: description.landmark)
      return Linear(
        weight: weight, bias: bias, storageType: storageType, inputQuantization: try reader.input(module, source),
        storesTransposed: isTransposed)
    }
    let weight = try matrix(module + ".weight", rows: rows, columns: columns, isTransposed: isTransposed)
    return Linear(weight: weight, bias: bias, storageType: weight.tensor.dtype, storesTransposed: isTransposed)
  }

  private func matrix(
    _ name: String, rows: Int, columns: Int, isTransposed: Bool = false
  ) throws(CheckpointError) -> StoredWeight {
    let shape = isTransposed ? [columns, rows] : [rows, columns]
    return StoredWeight(try stored(name, shape, use: "a matrix of floats"), isTransposed: isTransposed)
  }

  /// A NaN in a weight would spread silently through every layer after it.
  func checkFinite(_ part: any ModelPart) throws(CheckpointError) {
    for (name, tensor) in part.otherTensors where tensor.holdsNonfinite { throw .nonfiniteWeight(tensor: name) }
    if let name = part.nonfiniteLinear() { throw .nonfiniteWeight(tensor: part.fullName(of: name) + ".weight") }
  }

  /// Names of tensors that nothing in the description reads; buffers that are recomputed are nobody's.
  func uncovered() -> [String] {
    let named = description.blocks.flatMap(shapes) + description.endShapes
    let head = description.hasLogits ? [description.head ?? description.ownHead] : []
    func isMatrix(_ named: (name: String, shape: [Int])) -> Bool { named.shape.count == 2 && named.name.hasSuffix(".weight") }
    let weights = Set(named.filter(isMatrix).map { String($0.name.dropLast(".weight".count)) } + head)
    var exact = Set(named.filter { !isMatrix($0) }.map(\.name))
    var buffers = Set<String>()
    for block in description.blocks {
      exact.formUnion(block.parameters.map { block.prefix + $0.name })
      guard let module = block.heads?.module else { continue }
      let attention = block.prefix + module
      if reader != nil { exact.formUnion(["k_scale", "v_scale"].map { "\(attention).\($0)" }) }
      buffers.formUnion(["bias", "masked_bias", "rotary_emb.inv_freq"].map { "\(attention).\($0)" })
    }
    let components = (reader?.components ?? []).union(["weight"])
    func isWeight(_ name: String) -> Bool {
      // A component has no more than three parts, and a module whose factors are stored one before it.
      var end = name.endIndex
      for _ in 0..<3 {
        guard let dot = name[..<end].lastIndex(of: ".") else { return false }
        if components.contains(String(name[name.index(after: dot)...])) {
          var module = name[..<dot]
          if let before = module.lastIndex(of: "."), reader?.parts.contains(String(module[module.index(after: before)...])) == true {
            module = module[..<before]
          }
          if weights.contains(String(module)) { return true }
        }
        end = dot
      }
      return false
    }
    return source.names.filter { name in
      !isWeight(name) && !exact.contains(name) && !buffers.contains(name) && !name.hasSuffix(".rotary_emb.inv_freq")
        && reader?.covers(name) != true
    }
  }

  /// - Throws: `CheckpointError.unknownComponent` for a tensor below a compressed module that its format's reader does not know: a weight is
  ///   never read without something that may be a scale of it.
  func refuseUnknownComponents() throws(CheckpointError) {
    guard let reader, reader.knowsAllComponents else { return }
    let matrices = (description.blocks.flatMap(shapes) + description.endShapes).filter {
      $0.shape.count == 2 && $0.name.hasSuffix(".weight")
    }
    let modules = Set(matrices.map { String($0.name.dropLast(".weight".count)) })
    for name in uncovered() {
      var end = name.endIndex
      while let dot = name[..<end].lastIndex(of: ".") {
        let module = String(name[..<dot])
        if modules.contains(module), name != module + ".bias", reader.holds(module, source) {
          throw .unknownComponent(tensor: name, module: module)
        }
        end = dot
      }
    }
  }
}

extension ModelDescription {
  /// The description in the checkpoint's own spelling: some savers leave the common prefix of a model's tensors out, and models with more
  /// than a language part put another before it.
  func spelled(as source: any TensorSource, reader: WeightReader?) -> ModelDescription {
    func fits(_ description: ModelDescription) -> Bool {
      source.info(description.landmark + ".weight") != nil
    }
    if fits(self) { return self }
    if let wrapping = wrappingPrefix {
      let wrapped = renamed(from: "", to: wrapping)
      return fits(wrapped) ? wrapped : self
    }
    guard let dot = landmark.firstIndex(of: ".") else { return self }
    let prefix = String(landmark[...dot])
    let others = ["", "language_model." + prefix, "model.language_model."]
    var spelled = others.map { renamed(from: prefix, to: $0) }.first(where: fits) ?? self
    // The head may stand inside the language model, too.
    func holds(_ module: String) -> Bool { source.info(module + ".weight") != nil || reader?.holds(module, source) == true }
    if let head, !holds(head), holds("language_model." + head) { spelled.head = "language_model." + head }
    return spelled
  }
}
