internal import Foundation

/// What the kernels of gradients compute, in double precision on both sides, so that differences of a function can be held against them.
extension Reference {
  package static func silu(_ x: Double) -> (value: Double, slope: Double) {
    let sigma = 1 / (1 + exp(-x))
    return (x * sigma, sigma + x * sigma * (1 - sigma))
  }

  package static func geluTanh(_ x: Double) -> (value: Double, slope: Double) {
    let root = (2 / Double.pi).squareRoot()
    let t = tanh(root * (x + 0.044715 * x * x * x))
    return (0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x))
  }

  package static func gelu(_ x: Double) -> (value: Double, slope: Double) {
    let area = 0.5 * (1 + erf(x / 2.0.squareRoot()))
    return (x * area, area + x * exp(-x * x / 2) / (2 * Double.pi).squareRoot())
  }

  package static func rmsNormPullback(
    _ x: [Double], weight: [Double], epsilon: Double, gradient dy: [Double]
  ) -> (dx: [Double], weightGradient: [Double]) {
    let d = Double(x.count)
    let r = 1 / (x.reduce(0) { $0 + $1 * $1 } / d + epsilon).squareRoot()
    let sum = x.indices.reduce(0) { $0 + weight[$1] * dy[$1] * x[$1] }
    return (x.indices.map { r * weight[$0] * dy[$0] - x[$0] * r * r * r / d * sum }, x.indices.map { dy[$0] * x[$0] * r })
  }

  package static func layerNormPullback(
    _ x: [Double], weight: [Double], epsilon: Double, gradient dy: [Double]
  ) -> (dx: [Double], weightGradient: [Double]) {
    let d = Double(x.count)
    let mean = x.reduce(0, +) / d
    let r = 1 / (x.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / d + epsilon).squareRoot()
    let n = x.map { ($0 - mean) * r }
    let g = x.indices.map { weight[$0] * dy[$0] }
    let (level, along) = (g.reduce(0, +) / d, x.indices.reduce(0) { $0 + g[$1] * n[$1] } / d)
    return (x.indices.map { r * (g[$0] - level - n[$0] * along) }, x.indices.map { dy[$0] * n[$0] })
  }

  package static func softmaxPullback(_ p: [Double], gradient dp: [Double], scale: Double) -> [Double] {
    let sum = p.indices.reduce(0) { $0 + p[$1] * dp[$1] }
    return p.indices.map { scale * p[$0] * (dp[$0] - sum) }
  }

  /// The code that a latent one stands for; NaN for NaN.
  package static func code(latent u: Float, top: Float) -> Float {
    let rounded = u.rounded(.toNearestOrEven)
    return rounded < 0 ? 0 : rounded > top ? top : rounded
  }

  package static func latentPullback(
    _ u: [Float], scale: Float, zero: Float, top: Float, gradient dw: [Float]
  ) -> (du: [Float], scale: Double, sum: Double) {
    (
      zip(u, dw).map { -0.5 <= $0 && $0 <= top + 0.5 ? scale * $1 : 0 },
      zip(u, dw).reduce(0) { $0 + Double($1.1) * Double(code(latent: $1.0, top: top) - zero) }, dw.reduce(0) { $0 + Double($1) }
    )
  }

  /// One parameter's step of AdamW, number `step` from 1.
  package static func adamW(
    _ p: inout Double, gradient g: Double, first m: inout Double, second v: inout Double, step: Int, rate: Double, beta1: Double,
    beta2: Double, epsilon: Double, decay: Double
  ) {
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    let (first, second) = (m / (1 - pow(beta1, Double(step))), v / (1 - pow(beta2, Double(step))))
    p -= rate * (first / (second.squareRoot() + epsilon) + decay * p)
  }
}
