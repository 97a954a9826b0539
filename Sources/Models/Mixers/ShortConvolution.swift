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

  public var parameters: [MixerParameter] {
    [MixerParameter(module + ".conv.weight", shape: [size, 1, taps])]
      + (hasBias ? [MixerParameter(module + ".conv.bias", shape: [size])] : [])
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
  public var absurdity: String? { size > 0 && taps > 1 ? nil : "a convolution of \(size) channels over \(taps) tokens is not possible" }
  public func prepared(_ parts: MixerParts) -> any PreparedMixer { PreparedShortConvolution(self, parts) }
}

private struct PreparedShortConvolution: RecurrentMixer {
  struct State: MixerState {
    /// The last gated inputs, [taps − 1 × size].
    var past: Matrix
    var count: Int { past.elements.count }
  }

  private let size: Int
  private let convolution: CausalConvolution

  init(_ description: ShortConvolution, _ parts: MixerParts) {
    size = description.size
    convolution = CausalConvolution(
      kernel: parts.parameter(description.module + ".conv.weight"),
      bias: description.hasBias ? parts.parameter(description.module + ".conv.bias") : nil, channels: size)
  }

  func makeState() -> State { State(past: convolution.makePast()) }

  func mix(_ inputs: [Matrix], after state: inout State) -> Matrix {
    func part(_ index: Int) -> Matrix { inputs[0].columns(in: [index * size..<(index + 1) * size]) }
    var (gated, outer) = (part(0), part(1))
    gated.multiply(by: part(2))
    outer.multiply(by: convolution.apply(gated, past: &state.past))
    return outer
  }
}
