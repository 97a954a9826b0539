public import Evaluation
internal import Foundation
public import Passes

/// Everything a run did and what it measured: the `report.json` beside the weights.
public struct CompressionReport: Sendable, Codable, Equatable {
  public struct Sizes: Sendable, Codable, Equatable {
    /// Of all tensors, unpacked.
    public var bytesBefore: Int
    public var bytesAfter: Int
    /// Of the files that hold the weights, as the file system counts them.
    public var fileBytesBefore: Int
    public var fileBytesAfter: Int
    /// Bits per weight of the decoder blocks' linears, scales and zero points included.
    public var linearBitsPerWeight: Double
    /// Bits of the whole checkpoint per parameter of the model.
    public var bitsPerWeight: Double
    /// Weights of the decoder blocks' linears.
    public var linearParametersBefore: Int
    public var linearParametersAfter: Int
  }

  public struct Calibration: Sendable, Codable, Equatable {
    public var source: String
    public var sequences: Int
    public var tokens: Int
  }

  public struct EvaluationFigures: Sendable, Codable, Equatable {
    public var source: String
    public var window: Int
    /// Tokens fed at a time through the key-value cache; absent for whole windows at once.
    public var chunk: Int?
    /// What the cache holds for each token of a window once it has been read, all blocks together.
    public var cacheBytesPerTokenBefore: Double
    public var cacheBytesPerTokenAfter: Double
    public var tokens: Int
    public var perplexityBefore: Double
    public var perplexityAfter: Double
    /// 95 %, by windows; absent where there was only one, like the standard error below.
    public var intervalBefore: [Double]?
    public var intervalAfter: [Double]?
    public var klDivergence: Double
    public var klStandardError: Double?
    public var top1Agreement: Double
  }

  /// What takes the place of `EvaluationFigures` for models without logits.
  public struct SimilarityFigures: Sendable, Codable, Equatable {
    public var source: String
    public var window: Int
    /// Of the compressed model's hidden states to the original's.
    public var cosine: EmbeddingSimilarity
  }

  /// What became of all linears of one kind, such as `down_proj`.
  public struct KindTotal: Sendable, Codable, Equatable {
    public var kind: String
    public var modules: Int
    /// Every scheme that was used, and how often.
    public var schemes: [String: Int]
    /// Means over the modules that report them.
    public var bitsPerWeight: Double?
    public var relativeLayerLoss: Double?
    /// The share of weights that are zero at the end, where some pass reports it.
    public var sparsity: Double?
    public var fallbacks: Int
  }

  /// Counts up whenever a key changes its meaning or goes; keys that are added leave it as it is. `docs/report.md` explains every key.
  public static let schemaVersion = 1

  public var schema = CompressionReport.schemaVersion
  public var toolkitVersion: String
  /// Of the output, as `compress list formats` has it.
  public var format: String
  public var architecture: String
  public var seed: UInt64
  public var instructionSet: String
  public var sizes: Sizes
  public var calibration: Calibration?
  /// What predictions were measured on, where the recipe named it.
  public var probes: Calibration?
  /// Absent where nothing was scored, and for models without logits.
  public var evaluation: EvaluationFigures?
  /// Of models without logits.
  public var similarity: SimilarityFigures?
  public var layers: [Report.LayerRecord]
  /// How passes have trained the whole model; absent where none has.
  public var training: [Report.TrainingRecord]?
  public var kinds: [KindTotal]
  public var blocks: [Report.BlockRecord]
  /// Layers not done as asked.
  public var fallbackCount: Int
  /// Tensors that no pass can see, copied unchanged.
  public var carriedTensors: [String]
  public var remarks: [String]
  public var sweepSeconds: Double
  public var peakMemoryBytes: Int?
  public var run: Run

  /// The layers' records by the last part of their names; what several passes did to one layer counts once for each.
  static func totals(of layers: [Report.LayerRecord]) -> [KindTotal] {
    func mean(_ values: [Double]) -> Double? { values.isEmpty ? nil : values.reduce(0, +) / Double(values.count) }
    /// What the last pass of each module that counted zeros found.
    func sparsities(_ records: [Report.LayerRecord]) -> [Double] {
      Dictionary(records.compactMap { record in record.metrics["sparsity"].map { (record.layer, $0) } }) { _, last in last }.values.sorted()
    }
    let kinds = Dictionary(grouping: layers) { String($0.layer.split(separator: ".").last ?? "") }
    return kinds.sorted { $0.key < $1.key }.map { kind, records in
      KindTotal(
        kind: kind, modules: Set(records.map(\.layer)).count,
        schemes: records.reduce(into: [:]) { if let scheme = $1.scheme { $0[scheme, default: 0] += 1 } },
        bitsPerWeight: mean(records.compactMap { $0.metrics["bits_per_weight"] }),
        relativeLayerLoss: mean(records.compactMap { $0.metrics["relative_layer_loss"] ?? $0.metrics["relative_weight_error"] }),
        sparsity: mean(sparsities(records)),
        fallbacks: records.count { $0.fallback != nil })
    }
  }

  /// Sum of the divergences that an allocation foretold; `nil` where there was none.
  public var predictedDivergence: Double? {
    let parts = layers.compactMap { $0.metrics["predicted_divergence"] }
    return parts.isEmpty ? nil : parts.reduce(0, +)
  }

  /// The text of `report.json`.
  public var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    guard let data = try? encoder.encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self) + "\n"
  }
}
