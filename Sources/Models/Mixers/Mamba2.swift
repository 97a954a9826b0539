internal import Foundation
import Tensors

/// Mamba-2 (Dao and Gu 2024): one linear makes gates, inputs x, the state's readers C and writers B, and time steps; a short convolution runs
/// over x, B and C, then linear attention of C to B and x · Δ that fades by −exp(A_log) · Δ, and a gated norm.
public struct Mamba2: TokenMixer {
  public static let kind = "Mamba-2"

  /// How the output is normalised, in stretches of inner size / groups, and gated.
  public enum Norm: Sendable, Equatable {
    /// norm(y ⊙ silu(z)).
    case afterGate
    /// norm(y) ⊙ silu(z).
    case beforeGate
    /// y ⊙ silu(z).
    case none
  }

  /// What the outputs of the input linear are multiplied by, part by part (Falcon-H1).
  public struct Multipliers: Sendable, Equatable {
    public var gates: Float = 1
    public var values: Float = 1
    public var writers: Float = 1
    public var readers: Float = 1
    public var steps: Float = 1

    public init() {}
  }

  public var module: String
  public var heads: Int
  public var headSize: Int
  /// Groups of heads that share B and C.
  public var groups: Int
  /// Numbers of B and C for each head.
  public var stateSize: Int
  /// Tokens that the convolution sees.
  public var taps: Int
  public var epsilon: Float
  public var norm: Norm
  public var hasConvolutionBias: Bool
  public var hasInputBias: Bool
  public var hasOutputBias: Bool
  /// Bounds of Δ.
  public var steps: ClosedRange<Float>
  public var multipliers: Multipliers
  public var outputScale: Float

  public init(
    module: String = "mamba", heads: Int, headSize: Int, groups: Int, stateSize: Int, taps: Int, epsilon: Float, norm: Norm = .afterGate,
    hasConvolutionBias: Bool = true, hasInputBias: Bool = false, hasOutputBias: Bool = false, steps: ClosedRange<Float> = 0 ... .infinity,
    multipliers: Multipliers = Multipliers(), outputScale: Float = 1
  ) {
    self.module = module
    self.heads = heads
    self.headSize = headSize
    self.groups = groups
    self.stateSize = stateSize
    self.taps = taps
    self.epsilon = epsilon
    self.norm = norm
    self.hasConvolutionBias = hasConvolutionBias
    self.hasInputBias = hasInputBias
    self.hasOutputBias = hasOutputBias
    self.steps = steps
    self.multipliers = multipliers
    self.outputScale = outputScale
  }

  var innerSize: Int { heads * headSize }
  var sharedSize: Int { groups * stateSize }
  var convolvedSize: Int { innerSize + 2 * sharedSize }

  private var input: LinearName { LinearName(rawValue: module + ".in_proj") }
  private var output: LinearName { LinearName(rawValue: module + ".out_proj") }

  public func linearShapes(hiddenSize: Int) -> [LinearName: LinearShape] {
    [
      input: LinearShape(rows: innerSize + convolvedSize + heads, columns: hiddenSize, bias: hasInputBias),
      output: LinearShape(rows: hiddenSize, columns: innerSize, bias: hasOutputBias),
    ]
  }

  public var parameters: [MixerParameter] {
    var parameters = [MixerParameter(module + ".conv1d.weight", shape: [convolvedSize, 1, taps])]
    if hasConvolutionBias { parameters.append(MixerParameter(module + ".conv1d.bias", shape: [convolvedSize])) }
    for name in ["A_log", "D", "dt_bias"] { parameters.append(MixerParameter("\(module).\(name)", shape: [heads])) }
    if norm != .none { parameters.append(MixerParameter(module + ".norm.weight", shape: [innerSize])) }
    return parameters
  }

  public func steps(from input: BlockValue, into output: BlockValue, at place: MixerPlace) -> [BlockStep] {
    let (made, context) = (place.value("gates, inputs and steps"), place.value("scanned"))
    return [
      .linears([self.input], input, into: [made]), .mix(place.index, [made], into: context),
      .linears([self.output], context, into: [output]),
    ]
  }

  public var namedOnly: Set<LinearName> { [output] }
  public var contextSize: Int { innerSize }
  public func stateSize(tokens: Int) -> Int { (taps - 1) * convolvedSize + heads * stateSize * headSize }

  public var gradientObstacle: String? { nil }

  public var absurdity: String? {
    let sizes = [heads, headSize, groups, stateSize, taps - 1]
    guard sizes.allSatisfy({ $0 > 0 && $0 <= 1 << 20 }), heads % groups == 0 else {
      return
        "Mamba-2 with \(heads) heads of \(headSize) numbers in \(groups) groups, states of \(stateSize) and \(taps) taps is not possible"
    }
    return nil
  }

  public func prepared(_ parts: MixerParts) -> any PreparedMixer { PreparedMamba2(self, parts) }
}

struct PreparedMamba2: RecurrentMixer {
  let description: Mamba2
  let convolution: CausalConvolution
  let attention: LinearAttention
  /// exp(A_log), by head.
  let rates: [Float]
  let timeBias: [Float]
  /// What passes by the recurrence, D, by head.
  let skip: [Float]
  let norm: [Float]?

  init(_ description: Mamba2, _ parts: MixerParts) {
    self.description = description
    let module = description.module
    convolution = CausalConvolution(
      kernel: parts.parameter(module + ".conv1d.weight"),
      bias: description.hasConvolutionBias ? parts.parameter(module + ".conv1d.bias") : nil, channels: description.convolvedSize)
    attention = LinearAttention(
      heads: description.heads, keyHeads: description.groups, keySize: description.stateSize, valueSize: description.headSize)
    rates = parts.parameter(module + ".A_log").map { exp($0) }
    timeBias = parts.parameter(module + ".dt_bias")
    skip = parts.parameter(module + ".D")
    norm = description.norm == .none ? nil : parts.parameter(module + ".norm.weight")
  }

  func makeState() -> LinearAttention.State { attention.makeState(behind: convolution) }

  func mix(_ inputs: [Matrix], after state: inout LinearAttention.State) -> Matrix {
    let made = separated(inputs[0])
    let scan = scanned(convolution.apply(made.mixed, past: &state.past), steps: made.steps)
    var result = attention.run(
      queries: scan.readers, keys: scan.writers, values: scan.updates, decays: scan.decays, strengths: nil, memory: &state.memory)
    result.add(scan.skipped)
    return gated(result, by: made.gates)
  }

  /// Gates, what the convolution reads, and time steps with their bias, from the output of the linear.
  func separated(_ made: Matrix) -> (gates: Matrix, mixed: Matrix, steps: Matrix) {
    let (inner, convolved, heads) = (description.innerSize, description.convolvedSize, description.heads)
    func part(_ start: Int, _ count: Int) -> Matrix { made.columns(in: [start..<start + count]) }
    var (gates, mixed, steps) = (part(0, inner), part(inner, convolved), part(inner + convolved, heads))
    let factors = description.multipliers
    if factors.gates != 1 { gates.scaleColumns(by: Array(repeating: factors.gates, count: inner)) }
    if factors != Mamba2.Multipliers() { mixed.scaleColumns(by: convolvedFactors) }
    if factors.steps != 1 { steps.scaleColumns(by: Array(repeating: factors.steps, count: heads)) }
    steps.add(row: timeBias)
    return (gates, mixed, steps)
  }

  /// What x, B and C are multiplied by, column by column.
  var convolvedFactors: [Float] {
    let (factors, shared) = (description.multipliers, description.sharedSize)
    return [(factors.values, description.innerSize), (factors.writers, shared), (factors.readers, shared)]
      .flatMap { Array(repeating: $0.0, count: $0.1) }
  }

  /// What linear attention reads, and what passes by it.
  struct Scan {
    /// x, B and C.
    let values, writers, readers: Matrix
    /// Δ, row by row.
    let times: [Float]
    /// x · Δ, −exp(A_log) · Δ and D · x.
    let updates, decays, skipped: Matrix
  }

  /// - Parameters:
  ///   - convolved: x, B and C before their activation.
  ///   - steps: the time steps before softplus, [tokens × heads].
  func scanned(_ convolved: Matrix, steps: Matrix) -> Scan {
    let (inner, shared, heads, rows) = (description.innerSize, description.sharedSize, description.heads, steps.rows)
    var convolved = convolved
    convolved.activate(.silu, gating: nil)
    let values = convolved.columns(in: [0..<inner])
    let times = steps.elements.map { min(max(softplus($0), description.steps.lowerBound), description.steps.upperBound) }
    return Scan(
      values: values, writers: convolved.columns(in: [inner..<inner + shared]),
      readers: convolved.columns(in: [inner + shared..<inner + 2 * shared]), times: times,
      updates: values.headsScaled(by: times, size: description.headSize),
      decays: Matrix(rows: rows, columns: heads, elements: times.enumerated().map { -rates[$0.offset % heads] * $0.element }),
      skipped: values.headsScaled(by: Array(repeating: skip, count: rows).flatMap { $0 }, size: description.headSize))
  }

  private func gated(_ states: Matrix, by gates: Matrix) -> Matrix {
    var gates = gates
    switch description.norm {
    case .none:
      gates.activate(.silu, gating: states)
      return gates
    case .afterGate:
      gates.activate(.silu, gating: states)
      return normalized(gates)
    case .beforeGate:
      gates.activate(.silu, gating: normalized(states))
      return gates
    }
  }

  /// Every stretch of a row normalised on its own, then all multiplied by the weight.
  func normalized(_ states: Matrix) -> Matrix {
    guard let norm else { return states }
    let width = description.innerSize / description.groups
    let parts = Matrix(rows: states.elements.count / width, columns: width, elements: states.elements)
      .rmsNormalized(weight: Array(repeating: 1, count: width), epsilon: description.epsilon)
    var result = Matrix(rows: states.rows, columns: states.columns, elements: parts.elements)
    result.scaleColumns(by: norm)
    return result
  }
}

extension Matrix {
  /// Every head of every row times a number of its own, [rows × heads].
  func headsScaled(by factors: [Float], size: Int) -> Matrix {
    var result = self
    result.withUnsafeMutableElements { elements in
      for (head, factor) in factors.enumerated() {
        let values = elements + head * size
        for index in 0..<size { values[index] *= factor }
      }
    }
    return result
  }
}
