public import CheckpointIO
public import Tensors

/// A checkpoint that an architecture has made sense of. Blocks are made when asked for; their weights stay mapped.
public struct Model: Sendable {
  public private(set) var description: ModelDescription
  /// Tensors of the checkpoint that the description does not cover; they are carried along unchanged.
  public let carried: [String]
  /// Bytes of those tensors.
  public let carriedBytes: Int
  /// What was odd about the checkpoint and how it was read; for the report.
  public let remarks: [String]
  /// What scales are to be rounded to where they are not powers of two or E4M3; `nil` for the type each weight is stored in.
  public var scaleType: DType?
  private var load: @Sendable (Block.Kind) throws -> Block
  private var check: @Sendable (Block) throws -> Void
  private var change: (@Sendable (inout Block) throws -> Void)?

  /// A model from any source of blocks: what tests and other containers use.
  public init(description: ModelDescription, carried: [String] = [], load: @escaping @Sendable (Block.Kind) throws -> Block) {
    self.description = description
    self.carried = carried
    carriedBytes = 0
    remarks = []
    self.load = load
    check = { _ in }
  }

  /// The units of the sweep, in order.
  public var kinds: [Block.Kind] { [.embedding] + description.blocks.indices.map { .decoder(index: $0) } + [.head] }

  /// - Throws: `CheckpointError` where the checkpoint turns out to be damaged, a NaN in a weight included.
  public func block(_ kind: Block.Kind) throws -> Block {
    var block = try outline(kind)
    try check(block)
    try change?(&block)
    return block
  }

  /// The same model with a head of its own: a tied one is given the embedding's weight, which passes may then change apart.
  public func untied() -> Model {
    guard description.head == nil else { return self }
    let (name, load) = (LinearName(rawValue: "lm_head"), load)
    var untied = self
    untied.description.head = name.rawValue
    untied.load = { kind in
      var block = try load(kind)
      if kind == .head {
        let table = try load(.embedding)
        for linear in table.linears.values { block.linears[name] = linear }
      }
      return block
    }
    return untied
  }

  /// The same model with every block changed when it is asked for; its outlines stay what they are.
  package func changing(_ change: @escaping @Sendable (inout Block) throws -> Void) -> Model {
    var changed = self
    let before = self.change
    changed.change = { block in
      try before?(&block)
      try change(&block)
    }
    return changed
  }

  /// The same model without some of its decoder blocks, by index; those that remain are numbered and named as in a smaller model.
  package func removing(_ dropped: Set<Int>) -> Model {
    let kept = description.blocks.indices.filter { !dropped.contains($0) }
    guard kept.count < description.blocks.count else { return self }
    let (prefixes, load, check) = (description.blocks.map(\.prefix), load, check)
    var smaller = self
    smaller.description.blocks = kept.enumerated().map { place, index in
      var block = description.blocks[index]
      block.prefix = prefixes[place]
      return block
    }
    smaller.load = { kind in
      guard case .decoder(let place) = kind else { return try load(kind) }
      return try load(.decoder(index: kept[place])).moved(to: kind, prefix: prefixes[place])
    }
    smaller.check = { block in
      guard case .decoder(let place) = block.kind else { return try check(block) }
      // What is wrong is reported under the name it has in the file.
      try check(block.moved(to: .decoder(index: kept[place]), prefix: prefixes[kept[place]]))
    }
    return smaller
  }

  /// The block unchecked, for its names and shapes: no stored weight is read.
  package func outline(_ kind: Block.Kind) throws -> Block {
    var block = try load(kind)
    if let scaleType { for name in block.linears.keys { block.linears[name]!.scaleType = scaleType } }
    return block
  }
}

extension Model {
  /// Checks that every tensor the description names exists with the right shape; reads headers only.
  ///
  /// - Parameter reader: of the format the checkpoint is compressed in; `nil` where all weights are plain.
  /// - Throws: `CheckpointError` for the first tensor that is missing or does not fit.
  public init(_ checkpoint: Checkpoint, description: ModelDescription, reader: WeightReader? = nil) throws(CheckpointError) {
    let source = checkpoint.tensors
    var description = description
    var remarks: [String] = []
    if description.head == nil, source.info("lm_head.weight") != nil {
      // Both ends are stored although the configuration ties them: they are tied only if they are equal.
      let (embedding, head) = (try source.tensor(description.embedding + ".weight"), try source.tensor("lm_head.weight"))
      if embedding.bytes != head.bytes || embedding.dtype != head.dtype {
        description.head = "lm_head"
        remarks.append("tie_word_embeddings is true, but lm_head.weight differs from the embedding: read as untied")
      }
    }
    let loader = BlockLoader(source: source, description: description, reader: reader)
    try loader.verify()
    self.description = description
    self.remarks = remarks
    carried = loader.uncovered()
    carriedBytes = carried.reduce(0) { $0 + (source.info($1)?.byteCount ?? 0) }
    load = { try loader.block($0) }
    check = { try loader.checkFinite($0) }
  }
}

/// Turns tensors into blocks.
private struct BlockLoader: Sendable {
  let source: any TensorSource
  let description: ModelDescription
  let reader: WeightReader?

  func block(_ kind: Block.Kind) throws(CheckpointError) -> Block {
    switch kind {
    case .embedding:
      let (prefix, name) = split(description.embedding)
      let linear = try linear(description.embedding, rows: description.vocabularySize, columns: description.hiddenSize, bias: false)
      return Block(kind: kind, prefix: prefix, linears: [name: linear], storageType: storageType(of: description.embedding))
    case .head:
      let norm = try vector(description.finalNorm + ".weight", count: description.hiddenSize)
      var linears: [LinearName: Linear] = [:]
      var prefix = ""
      if let head = description.head {
        let (headPrefix, name) = split(head)
        prefix = headPrefix
        linears[name] = try linear(head, rows: description.vocabularySize, columns: description.hiddenSize, bias: false)
      }
      return Block(
        kind: kind, prefix: prefix, linears: linears, norms: [description.finalNorm: norm], normEpsilon: description.normEpsilon,
        storageType: storageType(of: description.finalNorm))
    case .decoder(let index):
      let block = description.blocks[index]
      var linears: [LinearName: Linear] = [:]
      for (name, shape) in block.linearShapes {
        linears[name] = try linear(block.prefix + name.rawValue, rows: shape.rows, columns: shape.columns, bias: shape.bias)
      }
      var norms: [String: [Float]] = [:]
      for (name, size) in block.normSizes { norms[name] = try vector(block.prefix + name + ".weight", count: size) }
      return Block(
        kind: kind, description: block, prefix: block.prefix, linears: linears, norms: norms,
        cache: try reader?.cache(block.prefix + "self_attn", source), normEpsilon: block.normEpsilon,
        storageType: storageType(of: block.prefix + BlockDescription.attentionNorm))
    }
  }

  /// Checks headers alone: nothing is decoded.
  func verify() throws(CheckpointError) {
    try verify(description.embedding, rows: description.vocabularySize, columns: description.hiddenSize)
    if let head = description.head { try verify(head, rows: description.vocabularySize, columns: description.hiddenSize) }
    try verifyVector(description.finalNorm + ".weight", count: description.hiddenSize)
    for block in description.blocks {
      for (name, shape) in block.linearShapes.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
        try verify(block.prefix + name.rawValue, rows: shape.rows, columns: shape.columns)
        if shape.bias { try verifyVector(block.prefix + name.rawValue + ".bias", count: shape.rows) }
      }
      for (name, size) in block.normSizes { try verifyVector(block.prefix + name + ".weight", count: size) }
    }
  }

  private func verify(_ module: String, rows: Int, columns: Int) throws(CheckpointError) {
    // A compressed weight has other names or shapes; its reader checks them when it decodes it.
    if let reader, reader.holds(module, source) { return }
    guard let info = source.info(module + ".weight") else { throw .missingTensor(name: module + ".weight") }
    guard info.shape == [rows, columns] else {
      throw .wrongShape(tensor: module + ".weight", expected: [rows, columns], found: info.shape)
    }
  }

  private func verifyVector(_ name: String, count: Int) throws(CheckpointError) {
    guard let info = source.info(name) else { throw .missingTensor(name: name) }
    guard info.shape == [count] else { throw .wrongShape(tensor: name, expected: [count], found: info.shape) }
  }

  private func split(_ module: String) -> (prefix: String, name: LinearName) {
    let last = module.split(separator: ".").last.map(String.init) ?? module
    return (String(module.dropLast(last.count)), LinearName(rawValue: last))
  }

  private func storageType(of module: String) -> DType { source.info(module + ".weight")?.dtype ?? .bfloat16 }

  private func vector(_ name: String, count: Int) throws(CheckpointError) -> [Float] {
    let tensor = try source.tensor(name)
    guard tensor.shape == [count] else { throw .wrongShape(tensor: name, expected: [count], found: tensor.shape) }
    guard tensor.dtype.isReadableAsFloat else { throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "a vector of floats") }
    let values = tensor.floats()
    guard !values.withUnsafeBufferPointer(Kernel.hasNonfinite) else { throw .nonfiniteWeight(tensor: name) }
    return values
  }

  private func linear(_ module: String, rows: Int, columns: Int, bias: Bool) throws(CheckpointError) -> Linear {
    let bias = bias ? try vector(module + ".bias", count: rows) : nil
    if let reader, reader.holds(module, source) {
      let weight = try reader.weight(module, source)
      guard weight.rows == rows, weight.columns == columns else {
        throw .wrongShape(tensor: module, expected: [rows, columns], found: [weight.rows, weight.columns])
      }
      // Scales may have a type of their own; biases and norms have the one that dense weights would have.
      let storageType = source.info(module + ".bias")?.dtype ?? storageType(of: description.finalNorm)
      return Linear(weight: weight, bias: bias, storageType: storageType, inputQuantization: try reader.input(module, source))
    }
    let name = module + ".weight"
    let tensor = try source.tensor(name)
    guard tensor.shape == [rows, columns] else { throw .wrongShape(tensor: name, expected: [rows, columns], found: tensor.shape) }
    guard tensor.dtype.isReadableAsFloat else { throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: "a matrix of floats") }
    return Linear(weight: StoredWeight(tensor), bias: bias, storageType: tensor.dtype)
  }

  /// A NaN in a weight would spread silently through every layer after it.
  func checkFinite(_ block: Block) throws(CheckpointError) {
    for (name, linear) in block.linears.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
      let damaged: Bool
      if let stored = linear.weight as? StoredWeight {
        damaged = stored.holdsNonfinite
      } else if let quantized = linear.weight as? QuantizedMatrix {
        damaged = quantized.holdsNonfinite
      } else {
        damaged = linear.weight.dense().elements.withUnsafeBufferPointer(Kernel.hasNonfinite)
      }
      if damaged { throw .nonfiniteWeight(tensor: block.fullName(of: name) + ".weight") }
    }
  }

  /// Names of tensors that nothing in the description reads; buffers that are recomputed are nobody's.
  func uncovered() -> [String] {
    var weights = Set([description.embedding, description.head ?? "lm_head"])
    var exact = Set([description.finalNorm + ".weight"])
    for block in description.blocks {
      for (name, shape) in block.linearShapes {
        weights.insert(block.prefix + name.rawValue)
        if shape.bias { exact.insert(block.prefix + name.rawValue + ".bias") }
      }
      exact.formUnion(block.normSizes.map { block.prefix + $0.name + ".weight" })
      if reader != nil { exact.formUnion(["k_scale", "v_scale"].map { "\(block.prefix)self_attn.\($0)" }) }
    }
    let components = (reader?.components ?? []).union(["weight"])
    return source.names.filter { name in
      let parts = name.split(separator: ".")
      let isWeight = components.contains(parts.last.map(String.init) ?? "")
      var module = parts.dropLast()
      if let part = module.last, reader?.parts.contains(String(part)) == true { module = module.dropLast() }
      return !(isWeight && weights.contains(module.joined(separator: "."))) && !exact.contains(name)
        && !name.hasSuffix(".rotary_emb.inv_freq")
    }
  }
}

extension StoredWeight {
  fileprivate var holdsNonfinite: Bool {
    // A strip at a time, so that checking a large table does not expand it.
    let strip = max(1, (1 << 20) / max(columns, 1))
    let found = Parallel.map((rows + strip - 1) / strip) { index in
      tensor.floats(rows: index * strip..<min((index + 1) * strip, rows)).withUnsafeBufferPointer(Kernel.hasNonfinite)
    }
    return found.contains(true)
  }
}
