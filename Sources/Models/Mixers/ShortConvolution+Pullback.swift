import Tensors

extension PreparedShortConvolution: DifferentiableMixer {
  /// The way back through C ⊙ conv(B ⊙ x): with z the convolved, dC = d out ⊙ z, and dB = du ⊙ x, dx = du ⊙ B for the gradient du of B ⊙ x.
  func pullback(_ inputs: [Matrix], _ gradient: Matrix, into pull: inout BlockPull) -> [Matrix] {
    let (inner, outer, values) = separated(inputs[0])
    var gated = inner
    gated.multiply(by: values)
    var past = convolution.makePast()
    var outerGradient = convolution.apply(gated, past: &past)
    outerGradient.multiply(by: gradient)
    var above = gradient
    above.multiply(by: outer)
    let pulled = convolution.pullback(gated, above)
    pull.add(parameter: description.kernelName, pulled.kernel)
    if let bias = pulled.bias { pull.add(parameter: description.biasName, bias) }
    var (innerGradient, valueGradient) = (pulled.input, pulled.input)
    innerGradient.multiply(by: values)
    valueGradient.multiply(by: inner)
    return [Matrix(joining: [innerGradient, outerGradient, valueGradient])]
  }
}
