import Foundation
import Models
import Passes
import Tensors

/// Whether scales grow with the inputs alone or also shrink with the weights.
public enum DuoScaling: Sendable, Hashable, Codable, CaseIterable {
  case enabled, disabled
  /// Both are tried.
  case both

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let value = try? container.decode(Bool.self) {
      self = value ? .enabled : .disabled
    } else if try container.decode(String.self) == "both" {
      self = .both
    } else {
      throw DecodingError.dataCorruptedError(in: container, debugDescription: "true, false or \"both\" are needed")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .enabled: try container.encode(true)
    case .disabled: try container.encode(false)
    case .both: try container.encode("both")
    }
  }

  var choices: [Bool] {
    switch self {
    case .enabled: [true]
    case .disabled: [false]
    case .both: [false, true]
    }
  }
}

extension AWQ {
  func candidates(
    for scaling: Scaling, in block: Block, magnitude: InputMagnitude, _ preview: QuantizerPreview
  ) -> [ScalingSearch.Candidate] {
    let activity = scaling.channelMeans(magnitude.means)
    let weights = duo == .disabled ? nil : scaling.channelMeans(Self.weightShares(of: scaling.consumers, in: block, preview))
    return duo.choices.flatMap { duo in
      ((duo ? 0 : 1)...grid).map { step in
        let ratio = Float(step) / Float(grid)
        return ScalingSearch.Candidate(
          scale: Self.scale(activity: activity, weights: duo ? weights : nil, ratio: ratio),
          metrics: ["ratio": Double(ratio), "duo": duo ? 1 : 0])
      }
    }
  }

  /// aʳ, or aʳ / (w̄¹⁻ʳ + 10⁻⁴) with weights, balanced around 1 by √(max · min).
  ///
  /// - Parameters:
  ///   - activity: mean |x| of every channel.
  ///   - weights: mean share of every channel in the largest weight of its group.
  static func scale(activity: [Float], weights: [Float]?, ratio: Float) -> [Float] {
    var scale = activity.map { pow($0, ratio) }
    if let weights { for channel in scale.indices { scale[channel] /= pow(weights[channel], 1 - ratio) + 1e-4 } }
    for channel in scale.indices { scale[channel] = max(scale[channel], 1e-4) }
    let finite = scale.filter(\.isFinite)
    let balance = ((finite.max() ?? 1) * (finite.min() ?? 1)).squareRoot()
    return scale.map { value in
      let balanced = value / balance
      return balanced.isFinite && balanced > 0 ? balanced : 1
    }
  }

  /// Mean over all rows of |w| / the largest |w| of its group, by column.
  static func weightShares(of names: [LinearName], in block: Block, _ preview: QuantizerPreview) -> [Float] {
    var (sums, rows) = ([Double](), 0)
    for name in names {
      let weight = block[name].weight.dense()
      let scheme = preview.quantizer(of: name, in: block)?.scheme(
        of: block.fullName(of: name), isEnd: false, columns: weight.columns)
      let size = scheme?.groupSize(columns: weight.columns) ?? weight.columns
      if sums.isEmpty { sums = Array(repeating: 0, count: weight.columns) }
      rows += weight.rows
      let strip = 64
      let parts = Parallel.map((weight.rows + strip - 1) / strip) { index in
        var part = [Float](repeating: 0, count: weight.columns)
        weight.withUnsafeElements { elements in
          for row in index * strip..<min((index + 1) * strip, weight.rows) {
            for start in stride(from: 0, to: weight.columns, by: size) {
              let group = UnsafeBufferPointer(
                start: elements + row * weight.columns + start, count: min(size, weight.columns - start))
              let range = Kernel.range(group)
              let inverse = 1 / (max(-range.lowerBound, range.upperBound) + 1e-6)
              for column in group.indices { part[start + column] += abs(group[column]) * inverse }
            }
          }
        }
        return part
      }
      for part in parts { for column in sums.indices { sums[column] += Double(part[column]) } }
    }
    return sums.map { Float($0 / Double(max(1, rows))) }
  }
}
