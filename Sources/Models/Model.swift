public import CheckpointIO
public import Tensors

/// A checkpoint that an architecture has made sense of. Its parts are made when asked for; their weights stay mapped.
public struct Model: Sendable {
  public private(set) var description: ModelDescription
  /// Tensors of the checkpoint that the description does not cover; they are carried along unchanged.
  public private(set) var carried: [String]
  /// Modules among them that may be linears, such as those of a vision tower: formats say of them that they are not compressed.
  public private(set) var carriedModules: [String]
  /// Names of all modules that those tensors belong to.
  package var carriedNames: [String] { carried.map { $0.split(separator: ".").dropLast().joined(separator: ".") } }
  /// Bytes of those tensors.
  public var carriedBytes: Int { carried.reduce(0) { $0 + (carriedTensors[$1]?.byteCount ?? 0) } }
  /// What the headers say of them.
  private let carriedTensors: [String: TensorInfo]
  /// What was odd about the checkpoint and how it was read; for the report.
  public let remarks: [String]
  /// The checkpoint's tensors under the names that the description uses; `nil` for a model of another source.
  public let tensors: (any TensorSource)?
  /// What scales are to be rounded to where they are not powers of two or E4M3; `nil` for the type each weight is stored in.
  public var scaleType: DType?
  private var load: @Sendable (PartPlace) throws -> any ModelPart
  private var check: @Sendable (any ModelPart) throws -> Void
  private var change: (@Sendable (inout any ModelPart) throws -> Void)?

  /// A model from any source of parts: what tests and other containers use.
  ///
  /// - Parameter load: gives an `Embedding`, a `Block` of the index asked for, or a `Head`.
  public init(
    description: ModelDescription, carried: [String] = [], load: @escaping @Sendable (PartPlace) throws -> any ModelPart
  ) {
    self.description = description
    self.carried = carried
    carriedModules = []
    carriedTensors = [:]
    remarks = []
    tensors = nil
    self.load = load
    check = { _ in }
  }

  /// Where it has parts, in the order of the sweep. A model without logits has no head.
  public var places: [PartPlace] {
    [.embedding] + description.blocks.indices.map { .decoder(index: $0) } + (description.hasLogits ? [.head] : [])
  }

  /// - Throws: `CheckpointError` where the checkpoint turns out to be damaged, a NaN in a weight included.
  public func part(_ place: PartPlace) throws -> any ModelPart {
    var part = try outline(place)
    try check(part)
    try Self.checkFiles()
    try change?(&part)
    return part
  }

  /// As `part`, for those who want to know which it is.
  public func embedding() throws -> Embedding { try typed(.embedding) }
  public func block(_ index: Int) throws -> Block { try typed(.decoder(index: index)) }
  public func head() throws -> Head { try typed(.head) }

  private func typed<Part: ModelPart>(_ place: PartPlace) throws -> Part {
    let part = try part(place)
    guard let typed = part as? Part else { preconditionFailure("at \(place) the model's source gave \(type(of: part))") }
    return typed
  }

  /// To be asked before anything is made of what was computed with stored weights.
  ///
  /// - Throws: `CheckpointError.cutShort` where another program has cut a mapped file while it was read.
  package static func checkFiles() throws(CheckpointError) { try MappedFile.checkIntact() }

  /// The same model with a head of its own: a tied one is given the embedding's weight, which passes may then change apart.
  public func untied() -> Model {
    guard description.isTied else { return self }
    let (name, load) = (LinearName(rawValue: description.ownHead), load)
    var untied = self
    untied.description.head = name.rawValue
    untied.load = { place in
      var part = try load(place)
      if place == .head { for table in try load(.embedding).linears.values { part.linears[name] = table } }
      return part
    }
    return untied
  }

  /// The same model without some of the tensors that are no part of it.
  package func leavingOut(_ names: Set<String>) -> Model {
    var smaller = self
    smaller.carried.removeAll { names.contains($0) }
    smaller.carriedModules.removeAll { names.contains($0 + ".weight") }
    return smaller
  }

  /// Tensors among those carried along that have the residual stream's width on some side: what writes into the stream or reads from it.
  package var carriedOnStream: [String] { carried.filter { carriedTensors[$0]?.shape.contains(description.hiddenSize) == true } }

  /// The same model with every part changed when it is asked for; its outlines stay what they are.
  package func changing(_ change: @escaping @Sendable (inout any ModelPart) throws -> Void) -> Model {
    var changed = self
    let before = self.change
    changed.change = { part in
      try before?(&part)
      try change(&part)
    }
    return changed
  }

  /// The same, of decoder blocks alone.
  package func changingBlocks(_ change: @escaping @Sendable (inout Block) throws -> Void) -> Model {
    changing { part in try part.withBlock(change) }
  }

  /// The same model with parts that are held in memory, in the order of `places`.
  ///
  /// - Parameter description: of the parts.
  package func holding(_ description: ModelDescription, _ parts: [any ModelPart]) -> Model {
    var held = self
    held.description = description
    let parts = Dictionary(uniqueKeysWithValues: zip(held.places, parts))
    held.load = { place in
      guard let part = parts[place] else { preconditionFailure("the model has no such part") }
      return part
    }
    (held.check, held.change) = ({ _ in }, nil)
    return held
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
    smaller.load = { place in
      guard case .decoder(let index) = place else { return try load(place) }
      var part = try load(.decoder(index: kept[index]))
      part.withBlock { $0.move(to: index, prefix: prefixes[index]) }
      return part
    }
    smaller.check = { part in
      // What is wrong is reported under the name it has in the file.
      var original = part
      original.withBlock { $0.move(to: kept[$0.index], prefix: prefixes[kept[$0.index]]) }
      try check(original)
    }
    return smaller
  }

  /// A part unchecked, for its names and shapes: no stored weight is read.
  package func outline(_ place: PartPlace) throws -> any ModelPart {
    var part = try load(place)
    if let scaleType { for name in part.linears.keys { part[name].scaleType = scaleType } }
    return part
  }
}

extension Model {
  /// Checks that every tensor the description names exists with the right shape; reads headers only.
  ///
  /// - Parameter reader: of the format the checkpoint is compressed in; `nil` where all weights are plain.
  /// - Throws: `CheckpointError` for the first tensor that is missing or does not fit.
  public init(_ checkpoint: Checkpoint, description: ModelDescription, reader: WeightReader? = nil) throws(CheckpointError) {
    var (source, reader) = (checkpoint.tensors, reader)
    var description = description.spelled(as: source, reader: reader)
    let spelling = StoredSpelling(of: description, in: source, reader: reader)
    if !spelling.modules.isEmpty {
      reader = reader?.renaming(spelling.modules, in: source)
      source = RenamedTensors(source, modules: spelling.modules)
    }
    var remarks = source.remarks + spelling.remarks + (reader?.remarks ?? [])
    // Both ends may be stored although the configuration ties them: they are tied only if they are equal.
    if description.isTied, try !source.holdsTheSame(description.embedding, description.ownHead) {
      description.head = description.ownHead
      remarks.append("tie_word_embeddings is true, but \(description.ownHead) differs from the embedding: read as untied")
    }
    let loader = PartLoader(source: source, description: description, reader: reader)
    try loader.verify()
    try loader.refuseUnknownComponents()
    self.description = description
    self.remarks = remarks
    tensors = source
    carried = loader.uncovered()
    carriedModules = carried.filter { $0.hasSuffix(".weight") && source.info($0)?.shape.count == 2 }.map { String($0.dropLast(7)) }
    carriedTensors = Dictionary(carried.compactMap { name in source.info(name).map { (name, $0) } }) { first, _ in first }
    load = { try loader.part($0) }
    check = { try loader.checkFinite($0) }
  }
}

extension TensorSource {
  /// Whether whatever stores a second module, codes and scales included, is byte for byte what stores the first; also where nothing does.
  fileprivate func holdsTheSame(_ first: String, _ second: String) throws(CheckpointError) -> Bool {
    for name in names where name.hasPrefix(second + ".") && name != second + ".bias" {
      let other = first + name.dropFirst(second.count)
      guard info(name) == info(other), try tensor(name).bytes == tensor(other).bytes else { return false }
    }
    return true
  }
}
