internal import Foundation
internal import Tensors

/// xIELU (Huang and Schlag 2024, "Deriving Activation Functions Using Integration"): a parabola above zero, the integral of an exponential below,
/// and numbers of both that each layer learns.
///
/// With a = softplus(αp) and b = β + softplus(αn): a · x² + β · x for x > 0, and b · (exp(min(x, ε)) − 1 − x) + β · x otherwise.
struct XIELU: Sendable {
  /// The last parts of the names of what a layer stores; the first two are learned.
  static let names = ["alpha_p", "alpha_n", "beta", "eps"]

  private let above, below: Float
  private let beta, limit: Float
  /// What the learned numbers move `above` and `below` by: the slopes of softplus.
  private let aboveSlope, belowSlope: Float

  /// - Parameter stored: αp, αn, β and ε.
  init(_ stored: [Float]) {
    func softplus(_ x: Float) -> Float { max(x, 0) + log1p(exp(-abs(x))) }
    func sigmoid(_ x: Float) -> Float { 1 / (1 + exp(-x)) }
    (beta, limit) = (stored[2], stored[3])
    above = softplus(stored[0])
    below = beta + softplus(stored[1])
    (aboveSlope, belowSlope) = (sigmoid(stored[0]), sigmoid(stored[1]))
  }

  /// Every element, in place.
  func apply(to matrix: inout Matrix) {
    let count = matrix.rows * matrix.columns
    matrix.withUnsafeMutableElements { elements in
      for index in 0..<count {
        let x = elements[index]
        elements[index] = (x > 0 ? above * x * x : below * (expm1(min(x, limit)) - x)) + beta * x
      }
    }
  }

  /// Gradients of what went in, [tokens × features], and of both learned numbers, which are sums over all elements.
  ///
  /// - Parameters:
  ///   - input: what went in.
  ///   - gradient: of what came out.
  func pullback(_ input: Matrix, gradient: Matrix) -> (input: Matrix, learned: [Float]) {
    var result = gradient
    var (aboveSum, belowSum) = (0.0, 0.0)
    let count = input.rows * input.columns
    result.withUnsafeMutableElements { result in
      input.withUnsafeElements { input in
        for index in 0..<count {
          let (x, above) = (input[index], result[index])
          if x > 0 {
            aboveSum += Double(above * x * x)
            result[index] = above * (2 * self.above * x + beta)
          } else {
            belowSum += Double(above * (expm1(min(x, limit)) - x))
            // Beyond the limit the exponential stands still.
            result[index] = above * (below * ((x < limit ? exp(x) : 0) - 1) + beta)
          }
        }
      }
    }
    return (result, [Float(aboveSum) * aboveSlope, Float(belowSum) * belowSlope])
  }
}
