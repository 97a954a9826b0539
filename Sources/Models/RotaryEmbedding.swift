internal import Foundation
internal import Tensors

/// Rotary position embedding (Su et al. 2021): its base, how much of a head it turns, and how it is stretched over longer contexts.
public struct RotaryDescription: Sendable, Equatable {
  public enum Scaling: Sendable, Equatable {
    case none
    /// All frequencies divided by the factor.
    case linear(factor: Double)
    /// A base that grows with the sequence beyond the positions the model was made for.
    case dynamic(factor: Double, positions: Double)
    /// Llama 3: long wavelengths divided, short ones kept, a linear blend between.
    case llama3(factor: Double, low: Double, high: Double, originalPositions: Double)
    /// YaRN (Peng et al. 2023): a blend between kept and divided frequencies by how often they turn over the original context.
    case yarn(factor: Double, originalPositions: Double, fast: Double, slow: Double, truncates: Bool, attention: Double)
    /// LongRoPE (Ding et al. 2024): a divisor for every pair, other ones beyond the original context.
    case longrope(short: [Double], long: [Double], originalPositions: Double, attention: Double)
    /// The frequencies of a head that is turned whole, divided by the factor, for a share of its pairs, the fastest; the others stand still
    /// (Gemma 4).
    case proportional(share: Double, factor: Double)
  }

  public var base: Double
  public var scaling: Scaling
  /// The share of a head's dimensions that are turned; the others come last and stay.
  public var fraction: Double
  /// Whether neighbours make the pairs that are turned, instead of the two halves of what is rotated (GLM-4, Cohere, ERNIE).
  public var isInterleaved = false

  public init(base: Double = 10_000, scaling: Scaling = .none, fraction: Double = 1) {
    self.base = base
    self.scaling = scaling
    self.fraction = fraction
  }

  /// Dimensions of a head that are turned.
  public func rotatedSize(headSize: Int) -> Int { Int(Double(headSize) * fraction) }

  /// What cosines and sines are multiplied by.
  public var attentionFactor: Float {
    switch scaling {
    case .yarn(_, _, _, _, _, let attention), .longrope(_, _, _, let attention): Float(attention)
    default: 1
    }
  }

  /// The longest sequence that is turned as all shorter ones are.
  var uniformLength: Int {
    switch scaling {
    case .dynamic(_, let positions), .longrope(_, _, let positions, _): Int(positions)
    default: .max
    }
  }

  /// Radians per position of each pair of dimensions; half of the rotated size.
  ///
  /// - Parameter length: of the sequence, on which some scalings depend.
  package func inverseFrequencies(headSize: Int, length: Int = 0) -> [Float] {
    let size = rotatedSize(headSize: headSize)
    func frequency(_ i: Int, base: Double) -> Double { pow(base, -2 * Double(i) / Double(size)) }
    switch scaling {
    case .none: return (0..<size / 2).map { Float(frequency($0, base: base)) }
    case .linear(let factor): return (0..<size / 2).map { Float(frequency($0, base: base) / factor) }
    case .dynamic(let factor, let positions):
      let length = max(Double(length), positions)
      let grown = base * pow(factor * length / positions - (factor - 1), Double(size) / Double(size - 2))
      return (0..<size / 2).map { Float(frequency($0, base: grown)) }
    case .llama3(let factor, let low, let high, let originalPositions):
      return (0..<size / 2).map { i in
        let frequency = frequency(i, base: base)
        let wavelength = 2 * Double.pi / frequency
        if wavelength < originalPositions / high { return Float(frequency) }
        if wavelength > originalPositions / low { return Float(frequency / factor) }
        let blend = (originalPositions / wavelength - low) / (high - low)
        return Float((1 - blend) * frequency / factor + blend * frequency)
      }
    case .yarn(let factor, let originalPositions, let fast, let slow, let truncates, _):
      /// The pair that turns `turns` times over the original context.
      func pair(_ turns: Double) -> Double { Double(size) * log(originalPositions / (2 * Double.pi * turns)) / (2 * log(base)) }
      var (low, high) = (pair(fast), pair(slow))
      if truncates { (low, high) = (low.rounded(.down), high.rounded(.up)) }
      (low, high) = (max(low, 0), min(high, Double(size - 1)))
      if low == high { high += 0.001 }
      return (0..<size / 2).map { i in
        let ramp = min(max((Double(i) - low) / (high - low), 0), 1)
        let frequency = frequency(i, base: base)
        return Float((1 - ramp) * frequency + ramp * frequency / factor)
      }
    case .longrope(let short, let long, let originalPositions, _):
      let divisors = Double(length) > originalPositions ? long : short
      return (0..<size / 2).map { Float(frequency($0, base: base) / divisors[$0]) }
    case .proportional(let share, let factor):
      let turned = Int(share * Double(size) / 2)
      return (0..<size / 2).map { $0 < turned ? Float(frequency($0, base: base) / factor) : 0 }
    }
  }
}

/// The tables for sequences of any length up to a longest one.
struct RotaryTables: Sendable {
  private let description: RotaryDescription
  private let headSize: Int
  /// For all lengths that are turned alike.
  private let common: RotaryTable

  init(_ description: RotaryDescription, headSize: Int, positions: Int) {
    self.description = description
    self.headSize = headSize
    common = RotaryTable(description, headSize: headSize, positions: min(positions, description.uniformLength))
  }

  func table(for length: Int) -> RotaryTable {
    length <= description.uniformLength ? common : RotaryTable(description, headSize: headSize, positions: length)
  }
}

/// Cosines and sines for the positions of a sequence, half of the rotated size each.
struct RotaryTable: Sendable {
  let half: Int
  private let isInterleaved: Bool
  private let cosine: [Float]
  private var sine: [Float]

  /// - Parameter length: of the sequence, which some tables depend on; where it is not the number of positions.
  init(_ description: RotaryDescription, headSize: Int, positions: Int, length: Int? = nil) {
    half = description.rotatedSize(headSize: headSize) / 2
    isInterleaved = description.isInterleaved
    let frequencies = description.inverseFrequencies(headSize: headSize, length: length ?? positions)
    let factor = description.attentionFactor
    // Angles are rounded to Float before the cosine, as every reference implementation does.
    let angles = (0..<positions).flatMap { position in frequencies.map { Float(position) * $0 } }
    cosine = angles.map { Foundation.cos($0) * factor }
    sine = angles.map { Foundation.sin($0) * factor }
  }

  /// The rotation back, which is also the way of gradients.
  var inverted: RotaryTable {
    var other = self
    other.sine = sine.map { -$0 }
    return other
  }

  private static func rotateNeighbours(
    _ head: UnsafeMutablePointer<Float>, _ cosine: UnsafePointer<Float>, _ sine: UnsafePointer<Float>, pairs: Int
  ) {
    for pair in 0..<pairs {
      let (even, odd) = (head[2 * pair], head[2 * pair + 1])
      head[2 * pair] = even * cosine[pair] - odd * sine[pair]
      head[2 * pair + 1] = odd * cosine[pair] + even * sine[pair]
    }
  }

  /// Rotates every head of every row.
  ///
  /// - Parameter position: where a row stands, below the number of positions the table was made for; row t at t, unless told otherwise.
  func rotate(_ states: inout Matrix, heads: Int, headSize: Int, position: (Int) -> Int = { $0 }) {
    let (rows, columns, half, isInterleaved) = (states.rows, states.columns, half, isInterleaved)
    states.withUnsafeMutableElements { states in
      cosine.withUnsafeBufferPointer { cosine in
        sine.withUnsafeBufferPointer { sine in
          for row in 0..<rows {
            let start = position(row) * half
            precondition(start + half <= cosine.count, "position \(start / half) lies beyond the prepared ones")
            let (states, cosine, sine) = (states + row * columns, cosine.baseAddress! + start, sine.baseAddress! + start)
            if isInterleaved {
              for head in 0..<heads { Self.rotateNeighbours(states + head * headSize, cosine, sine, pairs: half) }
            } else if headSize == 2 * half {
              Kernel.rotary(states, cosine: cosine, sine: sine, heads: heads, headSize: headSize)
            } else {
              for head in 0..<heads { Kernel.rotary(states + head * headSize, cosine: cosine, sine: sine, heads: 1, headSize: 2 * half) }
            }
          }
        }
      }
    }
  }
}
