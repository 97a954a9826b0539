internal import CheckpointIO
internal import Foundation
internal import Models
internal import Tensors

/// A weight of one of the toolkit's own kinds, taken apart into tensors and words: every number of it comes back as it was.
indirect enum WeightArchive: Codable {
  /// The weight that the part was read with.
  case asRead
  case numbers
  case stored(isTransposed: Bool)
  case quantized(scheme: QuantizationScheme, rows: Int, columns: Int, globalScaleBits: UInt32?)
  case blocks(type: String)
  case lowRank(storage: DType)
  case sum([WeightArchive])
  case factored(input: WeightArchive, output: WeightArchive, groups: Int, sharesInputOf: LinearName?)

  /// Takes a weight apart.
  ///
  /// - Parameters:
  ///   - read: the weight that the part was read with, under the same name.
  ///   - path: what precedes the names of its tensors.
  ///   - items: gets these.
  /// - Throws: `Unkeepable` for a kind of weight that is not known here.
  init(_ weight: any Weight, read: (any Weight)?, _ path: String, into items: inout [TensorArchive.Item]) throws(Unkeepable) {
    switch weight {
    case let weight as StoredWeight:
      if let read = read as? StoredWeight, read.tensor.isSame(as: weight.tensor), read.expert != nil || weight.expert == nil {
        self = .asRead
      } else {
        guard weight.expert == nil else { throw Unkeepable(what: path, reason: "it is an expert's share of a stack under another name") }
        items.append(.init(path, weight.tensor))
        self = .stored(isTransposed: weight.isTransposed)
      }
    case let weight as BlockQuantizedMatrix:
      if let read = read as? BlockQuantizedMatrix, read.type == weight.type, read.blocks.isSame(as: weight.blocks) {
        self = .asRead
      } else {
        items.append(.init(path, weight.blocks))
        self = .blocks(type: weight.type.name)
      }
    case let weight as ForeignWeight:
      guard let read = read as? ForeignWeight, read.tensors.count == weight.tensors.count,
        zip(read.tensors, weight.tensors).allSatisfy({ $0.isSame(as: $1) })
      else { throw Unkeepable(what: path, reason: "its form is another library's") }
      self = .asRead
    case let weight as Matrix:
      items.append(.init(path, weight))
      self = .numbers
    case let weight as QuantizedMatrix:
      items.append(
        .init(path + ".codes", TensorInfo(dtype: .uint8, shape: [weight.rows, weight.columns])) { Data(weight.codes) })
      items.append(.init(path + ".scales", weight.scales))
      if let zeroPoints = weight.zeroPoints { items.append(.init(path + ".zero_points", zeroPoints)) }
      if let groups = weight.columnGroups {
        items.append(.init(path + ".groups", Tensor(dtype: .int32, shape: [groups.count], integers: groups)))
      }
      self = .quantized(
        scheme: weight.scheme, rows: weight.rows, columns: weight.columns, globalScaleBits: weight.globalScale?.bitPattern)
    case let weight as LowRankMatrix:
      items.append(.init(path + ".left", weight.left))
      items.append(.init(path + ".right", weight.right))
      self = .lowRank(storage: weight.storageType)
    case let weight as SumOfWeights:
      var terms: [WeightArchive] = []
      for (index, term) in weight.terms.enumerated() {
        terms.append(try WeightArchive(term, read: index == 0 ? read : nil, path + ".\(index)", into: &items))
      }
      self = .sum(terms)
    case let weight as FactoredWeight:
      let read = read as? FactoredWeight
      self = .factored(
        input: try WeightArchive(weight.input, read: read?.input, path + ".A", into: &items),
        output: try WeightArchive(weight.output, read: read?.output, path + ".B", into: &items),
        groups: weight.groups, sharesInputOf: weight.sharesInputOf)
    default: throw Unkeepable(what: path, reason: "it is a \(type(of: weight)), which only its own library knows")
    }
  }

  /// Puts the weight together again.
  ///
  /// - Throws: `CheckpointError` for what the archive does not hold.
  func weight(read: (any Weight)?, _ path: String, _ archive: TensorArchive) throws -> any Weight {
    switch self {
    case .asRead:
      guard let read else { throw CheckpointError.missingTensor(name: path) }
      return read
    case .numbers: return try archive.matrix(path)
    case .stored(let isTransposed):
      let tensor = try archive.tensor(path)
      guard tensor.shape.count == 2, tensor.dtype.isReadableAsFloat else {
        throw CheckpointError.unusableType(tensor: path, dtype: tensor.dtype.rawValue, use: "a matrix of floats")
      }
      return StoredWeight(tensor, isTransposed: isTransposed)
    case .quantized(let scheme, let rows, let columns, let globalScaleBits):
      func optional(_ name: String) throws -> Matrix? { archive.info(name) == nil ? nil : try archive.matrix(name) }
      let groups = archive.info(path + ".groups") == nil ? nil : try archive.tensor(path + ".groups").integers(Int32.self)
      return QuantizedMatrix(
        scheme: scheme, rows: rows, columns: columns, codes: Array(try archive.tensor(path + ".codes").bytes),
        scales: try archive.matrix(path + ".scales"), zeroPoints: try optional(path + ".zero_points"),
        globalScale: globalScaleBits.map { Float(bitPattern: $0) }, columnGroups: groups)
    case .blocks(let name):
      guard let type = BlockType.allCases.first(where: { $0.name == name }) else {
        throw CheckpointError.unusableType(tensor: path, dtype: name, use: "one of ggml's block types")
      }
      return BlockQuantizedMatrix(type, blocks: try archive.tensor(path))
    case .lowRank(let storage):
      return LowRankMatrix(
        left: try archive.matrix(path + ".left"), right: try archive.matrix(path + ".right"), storageType: storage)
    case .sum(let terms):
      return SumOfWeights(
        try terms.enumerated().map { try $1.weight(read: $0 == 0 ? read : nil, path + ".\($0)", archive) })
    case .factored(let input, let output, let groups, let sharesInputOf):
      let read = read as? FactoredWeight
      return FactoredWeight(
        input: try input.weight(read: read?.input, path + ".A", archive),
        output: try output.weight(read: read?.output, path + ".B", archive), groups: groups, sharesInputOf: sharesInputOf)
    }
  }
}

/// Something that no journal can hold, so that a run from there on could not be taken up again.
struct Unkeepable: Error, CustomStringConvertible {
  let what: String
  let reason: String
  var description: String { "\(what) cannot be kept: \(reason)" }
}
