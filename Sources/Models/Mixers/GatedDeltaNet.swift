internal import Foundation
import Tensors

/// Gated DeltaNet (Yang et al. 2025; Qwen3-Next and later): a short convolution over queries, keys and values, linear attention by the gated
/// delta rule, and a gated norm over every head.
public struct GatedDeltaNet: TokenMixer {
  public static let kind = "gated delta rule"

  /// How the linears that read the input are stored.
  public enum Projections: Sendable, Equatable {
    /// `in_proj_qkv`, `in_proj_z`, `in_proj_b` and `in_proj_a` (Qwen3.5).
    case separate
    /// `in_proj_qkvz` and `in_proj_ba`, key head by key head (Qwen3-Next).
    case interleaved
  }

  public var module: String
  public var keyHeads: Int
  public var valueHeads: Int
  public var keySize: Int
  public var valueSize: Int
  /// Tokens that the convolution sees.
  public var taps: Int
  public var epsilon: Float
  public var projections: Projections

  public init(
    module: String = "linear_attn", keyHeads: Int, valueHeads: Int, keySize: Int, valueSize: Int, taps: Int, epsilon: Float,
    projections: Projections
  ) {
    self.module = module
    self.keyHeads = keyHeads
    self.valueHeads = valueHeads
    self.keySize = keySize
    self.valueSize = valueSize
    self.taps = taps
    self.epsilon = epsilon
    self.projections = projections
  }

  var keyWidth: Int { keyHeads * keySize }
  var valueWidth: Int { valueHeads * valueSize }
  var convolvedWidth: Int { 2 * keyWidth + valueWidth }
  /// Columns of queries, keys and values and of gates, and of strengths and of steps, in the outputs of interleaved linears.
  struct Places {
    let mixed, gates, strengths, steps: [Range<Int>]
  }

  var interleavedPlaces: Places {
    let values = group * valueSize
    func columns(_ width: Int, _ start: Int, _ count: Int) -> [Range<Int>] {
      (0..<keyHeads).map { $0 * width + start..<$0 * width + start + count }
    }
    let width = 2 * keySize + 2 * values
    return Places(
      mixed: columns(width, 0, keySize) + columns(width, keySize, keySize) + columns(width, 2 * keySize, values),
      gates: columns(width, 2 * keySize + values, values), strengths: columns(2 * group, 0, group), steps: columns(2 * group, group, group))
  }

  /// Value heads that share a key head.
  var group: Int { valueHeads / keyHeads }

  private func linear(_ name: String) -> LinearName { LinearName(rawValue: "\(module).\(name)") }
  private var output: LinearName { linear("out_proj") }

  /// Names of the linears that read the input, and their outputs.
  private var inputs: [(name: LinearName, rows: Int)] {
    switch projections {
    case .separate:
      [
        (linear("in_proj_qkv"), convolvedWidth), (linear("in_proj_z"), valueWidth), (linear("in_proj_b"), valueHeads),
        (linear("in_proj_a"), valueHeads),
      ]
    case .interleaved: [(linear("in_proj_qkvz"), convolvedWidth + valueWidth), (linear("in_proj_ba"), 2 * valueHeads)]
    }
  }

  public func linearShapes(hiddenSize: Int) -> [LinearName: LinearShape] {
    var shapes = Dictionary(uniqueKeysWithValues: inputs.map { ($0.name, LinearShape(rows: $0.rows, columns: hiddenSize)) })
    shapes[output] = LinearShape(rows: hiddenSize, columns: valueWidth)
    return shapes
  }

  public var parameters: [MixerParameter] {
    [
      MixerParameter(module + ".conv1d.weight", shape: [convolvedWidth, 1, taps]),
      MixerParameter(module + ".A_log", shape: [valueHeads]), MixerParameter(module + ".dt_bias", shape: [valueHeads]),
      MixerParameter(module + ".norm.weight", shape: [valueSize]),
    ]
  }

  public func steps(from input: BlockValue, into output: BlockValue, at place: MixerPlace) -> [BlockStep] {
    let names =
      switch projections {
      case .separate: ["queries, keys, values", "gates", "strengths", "decays"]
      case .interleaved: ["queries, keys, values, gates", "strengths, decays"]
      }
    let (made, context) = (names.map(place.value), place.value("context"))
    return [
      .linears(inputs.map(\.name), input, into: made), .mix(place.index, made, into: context),
      .linears([self.output], context, into: [output]),
    ]
  }

  /// Decays and strengths act on all that is remembered, and what comes out is read through a norm of each head.
  public var namedOnly: Set<LinearName> {
    switch projections {
    case .separate: [linear("in_proj_b"), linear("in_proj_a"), output]
    case .interleaved: [linear("in_proj_ba"), output]
    }
  }

  public var fusedLinears: [[LinearName]] {
    switch projections {
    case .separate: [[linear("in_proj_qkv"), linear("in_proj_z")], [linear("in_proj_b"), linear("in_proj_a")]]
    case .interleaved: []
    }
  }

  public var contextSize: Int { valueWidth }

  public func stateSize(tokens: Int) -> Int { (taps - 1) * convolvedWidth + valueHeads * keySize * valueSize }

  public var gradientObstacle: String? { nil }

  public var absurdity: String? {
    let sizes = [keyHeads, valueHeads, keySize, valueSize, taps - 1]
    guard sizes.allSatisfy({ $0 > 0 && $0 <= 1 << 20 }), valueHeads % keyHeads == 0 else {
      return
        "linear attention of \(keyHeads) key heads of \(keySize) numbers, \(valueHeads) value heads of \(valueSize) and \(taps) convolved "
        + "tokens is not possible"
    }
    return nil
  }

  public func prepared(_ parts: MixerParts) -> any PreparedMixer { PreparedGatedDeltaNet(self, parts) }
}

struct PreparedGatedDeltaNet: RecurrentMixer {
  let description: GatedDeltaNet
  let convolution: CausalConvolution
  let attention: LinearAttention
  /// exp(A_log), by head.
  let rates: [Float]
  let timeBias: [Float]
  let norm: [Float]

  init(_ description: GatedDeltaNet, _ parts: MixerParts) {
    self.description = description
    convolution = CausalConvolution(
      kernel: parts.parameter(description.module + ".conv1d.weight"), channels: description.convolvedWidth)
    attention = LinearAttention(
      heads: description.valueHeads, keyHeads: description.keyHeads, keySize: description.keySize, valueSize: description.valueSize)
    rates = parts.parameter(description.module + ".A_log").map { exp($0) }
    timeBias = parts.parameter(description.module + ".dt_bias")
    norm = parts.parameter(description.module + ".norm.weight")
  }

  func makeState() -> LinearAttention.State { attention.makeState(behind: convolution) }

  func mix(_ inputs: [Matrix], after state: inout LinearAttention.State) -> Matrix {
    let (mixed, gates, strengths, steps) = separated(inputs)
    let (queries, keys, values) = convolved(convolution.apply(mixed, past: &state.past))
    var (normalizedQueries, normalizedKeys) = (queries, keys)
    normalizedQueries.normalizeHeads(of: description.keySize, scale: queryScale)
    normalizedKeys.normalizeHeads(of: description.keySize, scale: 1)
    let context = attention.run(
      queries: normalizedQueries, keys: normalizedKeys, values: values, decays: decays(steps), strengths: open(strengths),
      memory: &state.memory)
    var result = gates
    result.activate(.silu, gating: normalized(context))
    return result
  }

  var queryScale: Float { 1 / Float(description.keySize).squareRoot() }

  /// Queries, keys and values from what the convolution made.
  func convolved(_ made: Matrix) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    var made = made
    made.activate(.silu, gating: nil)
    let width = description.keyWidth
    return (made.columns(in: [0..<width]), made.columns(in: [width..<2 * width]), made.columns(in: [2 * width..<made.columns]))
  }

  /// β = σ(b).
  func open(_ strengths: Matrix) -> Matrix {
    Matrix(rows: strengths.rows, columns: strengths.columns, elements: strengths.elements.map { 1 / (1 + exp(-$0)) })
  }

  /// Every head of every row by the norm.
  func normalized(_ context: Matrix) -> Matrix {
    let heads = Matrix(
      rows: context.elements.count / description.valueSize, columns: description.valueSize, elements: context.elements
    ).rmsNormalized(weight: norm, epsilon: description.epsilon)
    return Matrix(rows: context.rows, columns: context.columns, elements: heads.elements)
  }

  /// g = −exp(A_log) · softplus(a + dt_bias).
  func decays(_ steps: Matrix) -> Matrix {
    let heads = description.valueHeads
    return Matrix(
      rows: steps.rows, columns: heads,
      elements: steps.elements.enumerated().map { index, step in -rates[index % heads] * softplus(step + timeBias[index % heads]) })
  }

  /// Queries with keys and values, gates, strengths and steps, from the outputs of the linears.
  func separated(_ inputs: [Matrix]) -> (mixed: Matrix, gates: Matrix, strengths: Matrix, steps: Matrix) {
    guard description.projections == .interleaved else { return (inputs[0], inputs[1], inputs[2], inputs[3]) }
    let places = description.interleavedPlaces
    return (
      inputs[0].columns(in: places.mixed), inputs[0].columns(in: places.gates), inputs[1].columns(in: places.strengths),
      inputs[1].columns(in: places.steps)
    )
  }
}

/// log(1 + exp(x)), which is x for large x.
func softplus(_ x: Float) -> Float { x > 20 ? x : log1p(exp(x)) }

extension Matrix {
  /// Every head of every row divided by √(sum of squares + 1e-6), times a number.
  mutating func normalizeHeads(of size: Int, scale: Float) {
    let count = rows * columns / size
    withUnsafeMutableElements { elements in
      for head in 0..<count {
        let values = elements + head * size
        var sum: Float = 0
        for index in 0..<size { sum += values[index] * values[index] }
        let factor = scale / (sum + 1e-6).squareRoot()
        for index in 0..<size { values[index] *= factor }
      }
    }
  }
}
