internal import CKernels

// MARK: - Gradients of activations, norms and softmax

extension Kernel {
  /// x · σ(x) and its slope, element by element; `value` may be `x`.
  package static func siluSlope(
    _ x: UnsafePointer<Float>, value: UnsafeMutablePointer<Float>, slope: UnsafeMutablePointer<Float>, count: Int
  ) { compress_silu_slope(x, value, slope, count) }

  /// GELU in its tanh form and its slope, element by element; `value` may be `x`.
  package static func geluTanhSlope(
    _ x: UnsafePointer<Float>, value: UnsafeMutablePointer<Float>, slope: UnsafeMutablePointer<Float>, count: Int
  ) { compress_gelu_tanh_slope(x, value, slope, count) }

  /// GELU with the error function and its slope, element by element; `value` may be `x`.
  package static func geluSlope(
    _ x: UnsafePointer<Float>, value: UnsafeMutablePointer<Float>, slope: UnsafeMutablePointer<Float>, count: Int
  ) { compress_gelu_slope(x, value, slope, count) }

  /// The gradient of a row x from that of y = w · x · r with r = (mean(x²) + ε)^−½: dx = r · w · dy − x · r³ / d · Σ w · dy · x.
  ///
  /// Adds dy · x · r to the weight's gradient. `dx` may be `dy` or `x`.
  package static func rmsNormPullback(
    _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, epsilon: Float, gradient dy: UnsafePointer<Float>,
    into dx: UnsafeMutablePointer<Float>, weightGradient: UnsafeMutablePointer<Float>, count: Int
  ) { compress_rms_norm_pullback(x, weight, epsilon, dy, dx, weightGradient, count) }

  /// The same through y = w · (x − mean(x)) · r with r = (var(x) + ε)^−½; adds dy · (x − mean(x)) · r to the weight's gradient.
  package static func layerNormPullback(
    _ x: UnsafePointer<Float>, weight: UnsafePointer<Float>, epsilon: Float, gradient dy: UnsafePointer<Float>,
    into dx: UnsafeMutablePointer<Float>, weightGradient: UnsafeMutablePointer<Float>, count: Int
  ) { compress_layer_norm_pullback(x, weight, epsilon, dy, dx, weightGradient, count) }

  /// dp ← scale · p · (dp − Σ p · dp): the gradient of a row from that of p = softmax(scale · row), in place.
  package static func softmaxPullback(_ p: UnsafePointer<Float>, gradient dp: UnsafeMutablePointer<Float>, scale: Float, count: Int) {
    compress_softmax_pullback(p, dp, scale, count)
  }
}

// MARK: - Training of codes

extension Kernel {
  /// scale · (clip(round(u), 0, top) − zero), ties to even: a group of latent codes as weights.
  package static func dequantize(
    latents u: UnsafePointer<Float>, scale: Float, zero: Float, top: Float, into out: UnsafeMutablePointer<Float>, count: Int
  ) { compress_dequantize_latents(u, scale, zero, top, out, count) }

  /// The gradient of a group of latent codes from that of its weights, in place, straight through the rounding (Bengio et al. 2013):
  /// scale · dŵ where −½ ≤ u ≤ top + ½, else 0.
  ///
  /// - Returns: Σ dŵ · (q − zero) over the codes q, which is the scale's gradient, and Σ dŵ, which times −scale is the zero point's.
  package static func latentPullback(
    _ u: UnsafePointer<Float>, scale: Float, zero: Float, top: Float, gradient dw: UnsafeMutablePointer<Float>, count: Int
  ) -> (scale: Float, sum: Float) {
    var (product, sum) = (Float(0), Float(0))
    compress_latent_pullback(u, scale, zero, top, dw, &product, &sum, count)
    return (product, sum)
  }

  /// One step of AdamW (Loshchilov and Hutter 2019, algorithm 2), with factor · g for g:
  /// m ← β₁ · m + (1 − β₁) · g, v ← β₂ · v + (1 − β₂) · g², p ← p − rate · (m · c₁ / (√(v · c₂) + ε) + decay · p).
  ///
  /// - Parameters:
  ///   - factor: what the gradient is multiplied by first, to clip it.
  ///   - correction1: c₁ = 1 / (1 − β₁ᵗ) at step t = 1, 2, …
  ///   - correction2: c₂ = 1 / (1 − β₂ᵗ).
  package static func adamW(
    _ p: UnsafeMutablePointer<Float>, gradient g: UnsafePointer<Float>, factor: Float, first m: UnsafeMutablePointer<Float>,
    second v: UnsafeMutablePointer<Float>, rate: Float, beta1: Float, beta2: Float, correction1: Float, correction2: Float,
    epsilon: Float, decay: Float, count: Int
  ) { compress_adamw(p, g, factor, m, v, rate, beta1, beta2, correction1, correction2, epsilon, decay, count) }
}
