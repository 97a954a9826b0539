internal import Foundation
public import Passes

/// Everything a run did and what it measured: the `report.json` beside the weights.
public struct CompressionReport: Sendable, Codable, Equatable {
  public struct Sizes: Sendable, Codable, Equatable {
    public var bytesBefore: Int
    public var bytesAfter: Int
    /// Bits per weight of the decoder blocks' linears, scales and zero points included.
    public var linearBitsPerWeight: Double
    /// Bits of the whole checkpoint per parameter of the model.
    public var bitsPerWeight: Double
  }

  public struct Calibration: Sendable, Codable, Equatable {
    public var source: String
    public var sequences: Int
    public var tokens: Int
  }

  public struct EvaluationFigures: Sendable, Codable, Equatable {
    public var source: String
    public var window: Int
    public var tokens: Int
    public var perplexityBefore: Double
    public var perplexityAfter: Double
    /// 95 %, by windows.
    public var intervalBefore: [Double]
    public var intervalAfter: [Double]
    public var klDivergence: Double
    public var klStandardError: Double
    public var top1Agreement: Double
  }

  public var toolkitVersion: String
  public var architecture: String
  public var seed: UInt64
  public var instructionSet: String
  public var sizes: Sizes
  public var calibration: Calibration?
  public var evaluation: EvaluationFigures?
  public var layers: [Report.LayerRecord]
  public var blocks: [Report.BlockRecord]
  /// Layers not done as asked.
  public var fallbackCount: Int
  /// Tensors that no pass can see, copied unchanged.
  public var carriedTensors: [String]
  public var remarks: [String]
  public var sweepSeconds: Double
  public var peakMemoryBytes: Int?

  /// The text of `report.json`.
  public var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    guard let data = try? encoder.encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self) + "\n"
  }
}
