import Tensors

/// A gated short convolution (LFM2; Liquid AI 2025): C ⊙ conv(B ⊙ x), where one linear makes B, C and x.
public struct ShortConvolution: TokenMixer {
  public static let kind = "short convolution"

  public var module: String
  public var size: Int
  /// Tokens that an output sees, its own included.
  public var taps: Int
  public var hasBias: Bool

  public init(module: String = "conv", size: Int, taps: Int, hasBias: Bool) {
    self.module = module
    self.size = size
    self.taps = taps
    self.hasBias = hasBias
  }

  private var input: LinearName { LinearName(rawValue: module + ".in_proj") }
  private var output: LinearName { LinearName(rawValue: module + ".out_proj") }

  public func linearShapes(hiddenSize: Int) -> [LinearName: LinearShape] {
    [
      input: LinearShape(rows: 3 * size, columns: hiddenSize, bias: hasBias),
      output: LinearShape(rows: hiddenSize, columns: size, bias: hasBias),
    ]
  }

  var kernelName: String { module + ".conv.weight" }
  var biasName: String { module + ".conv.bias" }

  public var parameters: [MixerParameter] {
    [MixerParameter(kernelName, shape: [size, 1, taps])] + (hasBias ? [MixerParameter(biasName, shape: [size])] : [])
  }

  public func steps(from input: BlockValue, into output: BlockValue, at place: MixerPlace) -> [BlockStep] {
    let (made, mixed) = (place.value("gates and values"), place.value("convolved"))
    return [
      .linears([self.input], input, into: [made]), .mix(place.index, [made], into: mixed), .linears([self.output], mixed, into: [output]),
    ]
  }

  public var namedOnly: Set<LinearName> { [output] }
  public var contextSize: Int { size }
  public func stateSize(tokens: Int) -> Int { (taps - 1) * size }
  public var gradientObstacle: String? { nil }
  public var absurdity: String? { size > 0 && taps > 1 ? nil : "a convolution of \(size) channels over \(taps) tokens is not possible" }
  public func prepared(_ parts: MixerParts) -> any PreparedMixer { PreparedShortConvolution(self, parts) }
}

struct PreparedShortConvolution: RecurrentMixer {
  struct State: MixerState {
    /// The last gated inputs, [taps − 1 × size].
    var past: Matrix
    var count: Int { past.elements.count }
  }

  let description: ShortConvolution
  let convolution: CausalConvolution

  init(_ description: ShortConvolution, _ parts: MixerParts) {
    self.description = description
    convolution = CausalConvolution(
      kernel: parts.parameter(description.kernelName),
      bias: description.hasBias ? parts.parameter(description.biasName) : nil, channels: description.size)
  }

  func makeState() -> State { State(past: convolution.makePast()) }

  func mix(_ inputs: [Matrix], after state: inout State) -> Matrix {
    var (gated, outer, values) = separated(inputs[0])
    gated.multiply(by: values)
    outer.multiply(by: convolution.apply(gated, past: &state.past))
    return outer
  }

  /// B, C and x.
  func separated(_ made: Matrix) -> (inner: Matrix, outer: Matrix, values: Matrix) {
    let size = description.size
    func part(_ index: Int) -> Matrix { made.columns(in: [index * size..<(index + 1) * size]) }
    return (part(0), part(1), part(2))
  }
}
