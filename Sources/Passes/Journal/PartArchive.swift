internal import CheckpointIO
internal import Foundation
internal import Models
internal import Tensors

/// A part of a model as a sweep has left it, held against the part that was read: what differs is kept, all else is read again.
struct PartArchive: Codable {
  private struct LinearArchive: Codable {
    var weight: WeightArchive
    var hasBias: Bool
    var input: InputQuantization?
    var storage: DType
    var scale: DType
    var storesTransposed: Bool
  }

  /// Whether the block has the sizes that the passes announced, instead of those it was read with.
  private var isReshaped = false
  /// All its linears; `nil` for one that is as it was read.
  private var linears: [String: LinearArchive?] = [:]
  private var norms: [String] = []
  private var normBiases: [String] = []
  private var cache: CacheQuantization?
  private var cachePolicy: CachePolicy?

  /// - Parameters:
  ///   - part: as the sweep has left it.
  ///   - read: the same part as the sweep found it.
  ///   - announced: what a block was announced to become.
  ///   - items: gets the tensors.
  /// - Throws: `Unkeepable` for what cannot be told by these.
  init(
    _ part: any ModelPart, read: any ModelPart, announced: BlockDescription?, into items: inout [TensorArchive.Item]
  ) throws(Unkeepable) {
    guard Self.isSame(part, as: read) else {
      guard let block = part as? Block, block.description == announced, Self.others(part, areThoseOf: read) else {
        throw Unkeepable(what: part.name, reason: "it has become what no pass had announced")
      }
      isReshaped = true
      (cache, cachePolicy) = (block.cache, block.cachePolicy)
      try add(part, read, into: &items)
      return
    }
    if let block = part as? Block { (cache, cachePolicy) = (block.cache, block.cachePolicy) }
    try add(part, read, into: &items)
  }

  private mutating func add(_ part: any ModelPart, _ read: any ModelPart, into items: inout [TensorArchive.Item]) throws(Unkeepable) {
    for (name, linear) in part.linears {
      let before = read.linears[name]
      guard linear.revision != before?.revision else {
        linears[name.rawValue] = .some(nil)
        continue
      }
      if let bias = linear.bias { items.append(.init("\(name).bias", Matrix(rows: 1, columns: bias.count, elements: bias))) }
      linears[name.rawValue] = LinearArchive(
        weight: try WeightArchive(linear.weight, read: before?.weight, "\(name).weight", into: &items), hasBias: linear.bias != nil,
        input: linear.inputQuantization, storage: linear.storageType, scale: linear.scaleType,
        storesTransposed: linear.storesTransposed)
    }
    guard part.norms.offset == read.norms.offset, part.norms.storageType == read.norms.storageType else {
      throw Unkeepable(what: part.name, reason: "its norms are stored otherwise than those that were read")
    }
    for (name, weight) in part.norms.weights {
      norms.append(name)
      items.append(.init("norm.\(name)", Matrix(rows: 1, columns: weight.count, elements: weight)))
    }
    for (name, bias) in part.norms.biases {
      normBiases.append(name)
      items.append(.init("norm_bias.\(name)", Matrix(rows: 1, columns: bias.count, elements: bias)))
    }
  }

  /// The part that a sweep had left, made of the part that this sweep has found.
  func part(from read: any ModelPart, announced: BlockDescription?, _ archive: TensorArchive) throws -> any ModelPart {
    var part = read
    var restored: [LinearName: Linear] = [:]
    for (raw, kept) in linears {
      let name = LinearName(rawValue: raw)
      let before = read.linears[name]
      guard let kept else {
        guard let before else { throw CheckpointError.missingTensor(name: read.fullName(of: name)) }
        restored[name] = before
        continue
      }
      var linear = Linear(
        weight: try kept.weight.weight(read: before?.weight, "\(name).weight", archive),
        bias: kept.hasBias ? try archive.matrix("\(name).bias").elements : nil, storageType: kept.storage,
        inputQuantization: kept.input, storesTransposed: kept.storesTransposed)
      linear.scaleType = kept.scale
      restored[name] = linear
    }
    part.linears = restored
    part.norms.weights = [:]
    for name in norms { part.norms.weights[name] = try archive.matrix("norm.\(name)").elements }
    part.norms.biases = [:]
    for name in normBiases { part.norms.biases[name] = try archive.matrix("norm_bias.\(name)").elements }
    part.withBlock { block in
      if isReshaped, let announced { block.description = announced }
      (block.cache, block.cachePolicy) = (cache, cachePolicy)
    }
    return part
  }

  /// Whether all but linears, norms and caches is as it was read.
  private static func isSame(_ part: any ModelPart, as read: any ModelPart) -> Bool {
    guard others(part, areThoseOf: read) else { return false }
    switch (part, read) {
    case (let part as Block, let read as Block): return part.description == read.description
    case (let part as Embedding, let read as Embedding):
      return part.description == read.description && part.norm == read.norm && part.tableName == read.tableName
    case (let part as Head, let read as Head): return part.norm == read.norm && part.logits == read.logits
    default: return false
    }
  }

  /// A tensor of a few bytes may have been copied from place to place.
  private static func areSame(_ own: Tensor, _ before: Tensor) -> Bool {
    own.isSame(as: before) || own.bytes.count <= 64 && own.dtype == before.dtype && own.shape == before.shape && own.bytes == before.bytes
  }

  private static func others(_ part: any ModelPart, areThoseOf read: any ModelPart) -> Bool {
    let (own, before) = (part.otherTensors, read.otherTensors)
    return part.place == read.place && own.count == before.count
      && zip(own, before).allSatisfy { $0.name == $1.name && areSame($0.tensor, $1.tensor) }
  }
}
