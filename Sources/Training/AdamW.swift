internal import Foundation
package import Tensors

/// AdamW (Loshchilov and Hutter 2019) with moments in single precision.
///
/// Every element is updated on its own, so the result does not depend on the number of threads.
package struct AdamW: Sendable {
  package var beta1: Float = 0.9
  package var beta2: Float = 0.95
  package var epsilon: Float = 1e-8
  /// What a parameter loses at every step, as a multiple of the rate.
  package var decay: Float = 0
  /// Steps done.
  package private(set) var steps = 0
  private var moments: [ParameterName: Moments] = [:]

  private struct Moments: Sendable {
    var first: [Float]
    var second: [Float]
  }

  package init() {}

  /// To be called once before the parameters of a step are updated.
  package mutating func begin() { steps += 1 }

  /// p ← p − rate · (m̂ / (√v̂ + ε) + decay · p).
  ///
  /// - Parameters:
  ///   - factor: what the gradient is multiplied by, as clipping asks.
  package mutating func update(
    _ values: inout [Float], _ name: ParameterName, gradient: [Float], rate: Float, factor: Float = 1
  ) {
    precondition(values.count == gradient.count && steps > 0, "a gradient of the parameter's shape, in a step that has begun")
    values.withUnsafeMutableBufferPointer { values in
      gradient.withUnsafeBufferPointer { update(values, name, gradient: $0, rate: rate, factor: factor) }
    }
  }

  package mutating func update(_ values: inout Matrix, _ name: ParameterName, gradient: Matrix, rate: Float, factor: Float = 1) {
    precondition(values.rows == gradient.rows && values.columns == gradient.columns && steps > 0, "a gradient of the matrix's shape")
    let count = values.rows * values.columns
    values.withUnsafeMutableElements { values in
      gradient.withUnsafeElements {
        update(
          UnsafeMutableBufferPointer(start: values, count: count), name, gradient: UnsafeBufferPointer(start: $0, count: count), rate: rate,
          factor: factor)
      }
    }
  }

  private mutating func update(
    _ values: UnsafeMutableBufferPointer<Float>, _ name: ParameterName, gradient: UnsafeBufferPointer<Float>, rate: Float, factor: Float
  ) {
    let count = values.count
    // Taken out while they change, so that they are not copied.
    var own =
      moments.removeValue(forKey: name) ?? Moments(first: Array(repeating: 0, count: count), second: Array(repeating: 0, count: count))
    let (correction1, correction2) = (correction(beta1), correction(beta2))
    let (beta1, beta2, epsilon, decay, strip) = (beta1, beta2, epsilon, decay, 1 << 16)
    own.first.withUnsafeMutableBufferPointer { first in
      own.second.withUnsafeMutableBufferPointer { second in
        guard let values = values.baseAddress, let gradient = gradient.baseAddress else { return }
        nonisolated(unsafe) let (p, m, v, g) = (values, first.baseAddress!, second.baseAddress!, gradient)
        Parallel.forEach((count + strip - 1) / strip) { index in
          let start = index * strip
          Kernel.adamW(
            p + start, gradient: g + start, factor: factor, first: m + start, second: v + start, rate: rate, beta1: beta1, beta2: beta2,
            correction1: correction1, correction2: correction2, epsilon: epsilon, decay: decay, count: min(strip, count - start))
        }
      }
    }
    moments[name] = own
  }

  /// Both moments of every parameter that has been updated.
  package var state: [(name: ParameterName, first: [Float], second: [Float])] {
    moments.map { ($0.key, $0.value.first, $0.value.second) }
  }

  /// Puts the optimizer where another one was.
  package mutating func restore(steps: Int, _ state: [(name: ParameterName, first: [Float], second: [Float])]) {
    self.steps = steps
    moments = Dictionary(uniqueKeysWithValues: state.map { ($0.name, Moments(first: $0.first, second: $0.second)) })
  }

  /// What makes up for moments that began with zeros.
  private func correction(_ beta: Float) -> Float { Float(1 / (1 - pow(Double(beta), Double(steps)))) }
}

/// A parameter that moves: of which block, and what of it.
package struct ParameterName: Hashable, Sendable, Codable {
  /// What the numbers are to the module.
  package enum Kind: String, Hashable, Sendable, Codable {
    case weight, inputFactor, outputFactor, codes, scales, zeroPoints, bias, norm, normBias, tensor
  }

  /// The full name of the linear, the norm or the tensor.
  package var module: String
  package var kind: Kind

  package init(_ module: String, _ kind: Kind) {
    self.module = module
    self.kind = kind
  }
}
