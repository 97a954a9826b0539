import CompressKit
import Foundation

/// Seconds of the fastest of some runs: what the machine can do, whoever else is using it.
func fastest(of runs: Int = 5, _ body: () -> Void) -> Double {
  (0..<runs).map { _ in
    let start = ContinuousClock.now
    body()
    let took = start.duration(to: .now)
    return Double(took.components.seconds) + Double(took.components.attoseconds) * 1e-18
  }.min()!
}

func random(_ rows: Int, _ columns: Int, _ key: String) -> Matrix {
  var generator = KeyedRandomness(seed: 1, key: key)
  return Matrix(rows: rows, columns: columns, elements: (0..<rows * columns).map { _ in Float.random(in: -0.05...0.05, using: &generator) })
}

/// One JSON line a figure, so that runs can be compared by a script.
func report(_ name: String, _ value: Double, _ unit: String) {
  print(#"{"benchmark":"\#(name)","value":\#((value * 1000).rounded() / 1000),"unit":"\#(unit)","threads":\#(Parallel.width)}"#)
}

// The roofline: one large product on each thread at once.
let width = Parallel.width
let square = random(1024, 1024, "square")
let peak =
  Double(2 * 8 * width) * 1024 * 1024 * 1024 / fastest { Parallel.forEach(8 * width) { _ in _ = square.times(transposed: square) } }
report("sgemm peak, 1024³ on every thread", peak / 1e9, "GFLOP/s")

// One decoder block of the 160M shape: hidden size 768, 12 heads over 4 key-value heads, feed-forward 2048, sequences of 512.
let (hidden, forwardSize, length, sequences) = (768, 2048, 512, 8)
let attention = AttentionDescription(heads: 12, keyValueHeads: 4, headSize: 64, rotary: RotaryDescription())
let description = BlockDescription(
  prefix: "model.layers.0.", hiddenSize: hidden, normEpsilon: 1e-5, attention: attention,
  feedForward: FeedForwardDescription(size: forwardSize, activation: .silu))
let shapes: [(LinearName, Int, Int)] = [
  ("self_attn.q_proj", 768, 768), ("self_attn.k_proj", 256, 768), ("self_attn.v_proj", 256, 768), ("self_attn.o_proj", 768, 768),
  ("mlp.gate_proj", 2048, 768), ("mlp.up_proj", 2048, 768), ("mlp.down_proj", 768, 2048),
]
let linears = Dictionary(uniqueKeysWithValues: shapes.map { ($0.0, Linear(weight: random($0.1, $0.2, $0.0.rawValue))) })
let ones = [Float](repeating: 1, count: hidden)
let block = Block(
  index: 0, description: description, linears: linears,
  norms: PartNorms(["input_layernorm": ones, "post_attention_layernorm": ones]))
let prepared = PreparedBlock(block, positions: length)
let inputs = (0..<sequences).map { random(length, hidden, "sequence \($0)") }
let weights = shapes.reduce(0) { $0 + $1.1 * $1.2 }
let forward = fastest { Parallel.forEach(sequences) { _ = try? prepared.forward(inputs[$0]) } }
let products = Double(2 * weights * length * sequences)
// Causal attention: scores and their product with the values, half of each square.
let scores = Double(2 * length * length * 12 * 64 * sequences)
report("block forward, 160M shape", Double(length * sequences) / forward, "tokens/s")
report("share of the sgemm peak in that forward", (products + scores) / forward / peak, "of 1")

// Statistics and solves of the widest linear.
let wide = random(4096, forwardSize, "wide")
let gram = fastest(of: 3) {
  var hessian = Hessian(features: forwardSize)
  hessian.update(wide)
}
report("Hessian, 4096 tokens of 2048 features", Double(4096) * Double(forwardSize * forwardSize) / gram / peak, "of the sgemm peak")
var hessian = Hessian(features: forwardSize)
hessian.update(wide)
let down = random(hidden, forwardSize, "down")
let scheme = QuantizationScheme(bits: 4, granularity: .group(128))
let solve = fastest(of: 3) {
  if case .success(let solver) = GPTQSolver.prepare(hessian, groupSize: 128, order: .activation, damping: 0.01) {
    _ = solver.quantize(down, scheme: scheme)
  }
}
report("GPTQ of a 768 × 2048 linear, factorization included", Double(hidden * forwardSize) / solve / 1e6, "million weights/s")
let rounding = fastest { _ = RoundToNearest.quantize(down, scheme: scheme) }
report("RTN of the same, with scale search", Double(hidden * forwardSize) / rounding / 1e6, "million weights/s")
