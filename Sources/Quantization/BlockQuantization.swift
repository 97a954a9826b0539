import Foundation
public import Models
public import Passes
public import Tensors

/// Puts weights into ggml's block types, as `llama-quantize` does: byte for byte where it is given the same importances.
///
/// The scales of a block are searched for the smallest error, weighted by how much each input matters: by the weight itself, or with
/// `importance: activations` by the mean square of every input channel over the calibration data (an "importance matrix"). The embedding
/// has no input channels and is never weighted.
public struct BlockQuantization: Pass {
  public static let name = "ggml"
  public static let summary = "ggml's block types and llama.cpp's mixtures of them, for GGUF"

  public enum Importance: String, Sendable, Codable, CaseIterable { case none, activations }

  /// A block type for all weights, or a mixture.
  public enum Choice: Sendable, Hashable, SpelledOption {
    case mix(BlockMix)
    case type(BlockType)

    /// Names of mixtures win over names of types: `q2_k` is what llama.cpp calls so.
    public init?(_ name: String) {
      if let mix = BlockMix(rawValue: name.lowercased()) {
        self = .mix(mix)
      } else if let type = BlockType(name: name), type.isWritten {
        self = .type(type)
      } else {
        return nil
      }
    }

    public var name: String {
      switch self {
      case .mix(let mix): mix.rawValue
      case .type(let type): "\(type)"
      }
    }

    public static var spelling: String { "one of \(known.joined(separator: ", "))" }

    static var known: [String] {
      BlockMix.allCases.map(\.rawValue) + BlockType.allCases.filter(\.isWritten).map { "\($0)" }.filter { BlockMix(rawValue: $0) == nil }
    }
  }

  public var type = Choice.mix(.q4_k_m)
  /// The mixture's main type for every weight, the head included.
  public var pure = false
  public var importance = Importance.none
  /// By default everything, both ends included.
  public var layers = BlockQuantization.everything

  static let everything = LayerSelector(include: ["*", "embed_tokens", "lm_head"])

  public init() {}

  private enum CodingKeys: String, CodingKey { case type, pure, importance, layers }

  public var usesCalibration: Bool { importance == .activations }
  public var analyses: [any Analysis] { [Outline()] }
  /// The default speaks of a head that a tied model does not have.
  public var selectors: [LayerSelector] { layers == Self.everything ? [] : [layers] }

  /// What the model looks like: mixtures depend on the number of layers and on the heads.
  struct Outline: Analysis {
    func answer(for model: Model, in context: AnalysisContext) async throws -> ModelDescription { model.description }
  }

  private func type(of name: String, columns: Int, in description: ModelDescription) -> BlockType {
    switch type {
    case .type(let type): type
    case .mix(let mix) where pure: mix.base
    case .mix(let mix):
      mix.type(
        of: BlockMix.Role(of: name, in: description), columns: columns,
        in: BlockMix.Model(description, hasImportance: importance == .activations))
    }
  }

  public func plan(_ linear: PlannedLinear, in description: ModelDescription) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    let type = type(of: linear.name, columns: linear.columns, in: description).fitting(columns: linear.columns)
    var planned = linear
    planned.scheme = type.name
    planned.mark(as: type)
    planned.storedBits = linear.rows * type.byteCount(columns: linear.columns) * 8
    return planned
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    let description = context.answer(to: Outline())
    for group in part.groups(layers) {
      let weighted = importance == .activations && !(part is Embedding)
      let norms = try weighted ? context.statistic(InputNorm.self, of: group, in: part) : nil
      let isUnreached = norms?.tokens == 0
      let importance = isUnreached ? nil : norms?.meanSquares
      for name in group.linears {
        if isUnreached { try context.recordFallback(name, in: part, "\(Unreached.reason): its scales are searched without importances") }
        let weight = part[name].weight.dense()
        let wanted = type(of: part.fullName(of: name), columns: weight.columns, in: description)
        let type = wanted.fitting(columns: weight.columns)
        if type != wanted {
          try context.recordFallback(
            name, in: part, "rows of \(weight.columns) are no whole number of \(wanted.name) blocks of \(wanted.blockLength): \(type.name)"
          )
        }
        let usable = importance.map { Self.usable($0, blockLength: type.blockLength) }
        let quantized = BlockQuantizedMatrix(weight, as: type, importance: usable)
        let error = Self.relativeError(of: quantized, against: weight)
        guard error.isFinite else { throw ScaleOutOfRange(layer: part.fullName(of: name), type: type.name) }
        part[name].weight = quantized
        context.record(
          name, in: part,
          [
            "bits_per_weight": Double(quantized.storedBits) / Double(weight.rows * weight.columns),
            "relative_weight_error": error,
          ], scheme: type.name)
      }
    }
  }

  /// Importances that say something about every block: where no input of a block was ever active, all its columns count alike.
  package static func usable(_ importance: [Float], blockLength: Int) -> [Float] {
    var result = importance
    for start in stride(from: 0, to: result.count, by: blockLength) {
      let range = start..<min(start + blockLength, result.count)
      if result[range].allSatisfy({ $0 == 0 }) { result.replaceSubrange(range, with: repeatElement(1, count: range.count)) }
    }
    return result
  }

  /// ‖W − Q‖² / ‖W‖².
  static func relativeError(of quantized: BlockQuantizedMatrix, against weight: Matrix) -> Double {
    let strip = max(1, (1 << 16) / max(1, weight.columns))
    let parts: [(error: Double, norm: Double)] = Parallel.map((weight.rows + strip - 1) / strip) { index in
      let rows = index * strip..<min((index + 1) * strip, weight.rows)
      let count = rows.count * weight.columns
      return weight.withUnsafeElements { elements in
        let exact = elements + rows.lowerBound * weight.columns
        return quantized.dense(rows: rows).withUnsafeElements { found in
          (error: Kernel.squaredDistance(exact, found, count: count), norm: Kernel.squaredDistance(exact, nil, count: count))
        }
      }
    }
    let norm = parts.reduce(0) { $0 + $1.norm }
    return norm > 0 ? parts.reduce(0) { $0 + $1.error } / norm : 0
  }
}

/// A weight is too large for the half-precision scales of a block type.
public struct ScaleOutOfRange: Error, Equatable, Sendable, CustomStringConvertible {
  public let layer: String
  public let type: String
  public var description: String {
    "\(layer): its largest weights need a scale beyond 65504, the largest of the half-precision scales of \(type); leave it out of layers, or store it as bf16"
  }
}

extension BlockQuantization.Choice: Codable {
  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    let name = try container.decode(String.self)
    guard let choice = Self(name) else {
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "unknown \"\(name)\"; known: \(Self.known.joined(separator: ", "))")
    }
    self = choice
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    try container.encode(name)
  }
}

extension Pass where Self == BlockQuantization {
  /// ggml's block types, for use in code: `Pipeline([.ggml(.mix(.q4_k_m))])`.
  public static func ggml(_ type: BlockQuantization.Choice) -> BlockQuantization {
    var pass = BlockQuantization()
    pass.type = type
    return pass
  }
}
