internal import Foundation
internal import Tensors

/// Rotary position embedding (Su et al. 2021): its base and how it is stretched over longer contexts.
public struct RotaryDescription: Sendable, Equatable {
  public enum Scaling: Sendable, Equatable {
    case none
    /// All frequencies divided by the factor.
    case linear(factor: Double)
    /// Llama 3: long wavelengths divided, short ones kept, a linear blend between.
    case llama3(factor: Double, low: Double, high: Double, originalPositions: Double)
  }

  public var base: Double
  public var scaling: Scaling

  public init(base: Double = 10_000, scaling: Scaling = .none) {
    self.base = base
    self.scaling = scaling
  }

  /// Radians per position of each pair of dimensions; half a head.
  package func inverseFrequencies(headSize: Int) -> [Float] {
    (0..<headSize / 2).map { i in
      let frequency = pow(base, -2 * Double(i) / Double(headSize))
      switch scaling {
      case .none: return Float(frequency)
      case .linear(let factor): return Float(frequency / factor)
      case .llama3(let factor, let low, let high, let originalPositions):
        let wavelength = 2 * Double.pi / frequency
        if wavelength < originalPositions / high { return Float(frequency) }
        if wavelength > originalPositions / low { return Float(frequency / factor) }
        let blend = (originalPositions / wavelength - low) / (high - low)
        return Float((1 - blend) * frequency / factor + blend * frequency)
      }
    }
  }
}

/// Cosines and sines for the positions of a sequence, half a head each.
struct RotaryTable: Sendable {
  let half: Int
  private let cosine: [Float]
  private let sine: [Float]

  init(_ description: RotaryDescription, headSize: Int, positions: Int) {
    half = headSize / 2
    let frequencies = description.inverseFrequencies(headSize: headSize)
    // Angles are rounded to Float before the cosine, as every reference implementation does.
    let angles = (0..<positions).flatMap { position in frequencies.map { Float(position) * $0 } }
    cosine = angles.map { Foundation.cos($0) }
    sine = angles.map { Foundation.sin($0) }
  }

  /// Rotates every head of every row.
  ///
  /// - Parameter position: where a row stands, below the number of positions the table was made for; row t at t, unless told otherwise.
  func rotate(_ states: inout Matrix, heads: Int, position: (Int) -> Int = { $0 }) {
    let (rows, columns, half) = (states.rows, states.columns, half)
    states.withUnsafeMutableElements { states in
      cosine.withUnsafeBufferPointer { cosine in
        sine.withUnsafeBufferPointer { sine in
          for row in 0..<rows {
            let start = position(row) * half
            precondition(start + half <= cosine.count, "position \(start / half) lies beyond the prepared ones")
            Kernel.rotary(
              states + row * columns, cosine: cosine.baseAddress! + start, sine: sine.baseAddress! + start, heads: heads, headSize: 2 * half
            )
          }
        }
      }
    }
  }
}
