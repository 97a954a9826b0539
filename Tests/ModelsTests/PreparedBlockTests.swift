import CompressKit
import Foundation
import TestSupport
import Testing

struct PreparedBlockTests {
  private static let qwen3 = """
    {"model_type":"qwen3","vocab_size":64,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":1,"num_attention_heads":4,
     "num_key_value_heads":2,"head_dim":16,"rms_norm_eps":1e-06,"rope_theta":10000.0,"attention_bias":true,"mlp_bias":true,
     "hidden_act":"gelu_pytorch_tanh","use_sliding_window":true,"sliding_window":WINDOW,"max_window_layers":0}
    """

  private static let mistral = """
    {"model_type":"mistral","vocab_size":64,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":1,"num_attention_heads":4,
     "num_key_value_heads":2,"rms_norm_eps":1e-05,"sliding_window":WINDOW}
    """

  private func block(_ json: String, window: Int?) throws -> Block {
    try TinyModel.model(json.replacing("WINDOW", with: window.map { "\($0)" } ?? "null")).block(0)
  }

  /// A block as its equations state it, in double, one query at a time.
  private func reference(_ block: Block, _ hidden: Matrix) throws -> [[Double]] {
    let description = block.description
    let attention = try #require(description.attention)
    func apply(_ name: LinearName, _ x: [Double]) -> [Double] {
      let (weight, bias) = (block[name].weight.dense(), block[name].bias)
      return (0..<weight.rows).map { row in
        (0..<weight.columns).reduce(Double(bias?[row] ?? 0)) { $0 + Double(weight[row, $1]) * x[$1] }
      }
    }
    func norm(_ x: [Double], _ name: String) throws -> [Double] {
      let weight = try #require(block.norms[name])
      let factor = 1 / (x.reduce(0) { $0 + $1 * $1 } / Double(x.count) + Double(description.normEpsilon)).squareRoot()
      return zip(x, weight).map { $0 * factor * Double($1) }
    }
    let size = attention.headSize
    func head(_ x: [Double], _ index: Int, norm name: String, position: Int) throws -> [Double] {
      var part = Array(x[index * size..<(index + 1) * size])
      if attention.normalizesQueriesAndKeys { part = try norm(part, name) }
      return (0..<size).map { i in
        let pair = i % (size / 2)
        let angle = Double(position) * pow(10_000, -2 * Double(pair) / Double(size))
        return part[i] * cos(angle) + (i < size / 2 ? -part[i + size / 2] : part[i - size / 2]) * sin(angle)
      }
    }
    let sinks = attention.hasSinks ? block.parameters["self_attn.sinks"]?.floats() : nil
    let inputs = (0..<hidden.rows).map { row in (0..<hidden.columns).map { Double(hidden[row, $0]) } }
    let normed = try inputs.map { try norm($0, "input_layernorm") }
    let (queries, keys) = (normed.map { apply("self_attn.q_proj", $0) }, normed.map { apply("self_attn.k_proj", $0) })
    let values = normed.map { apply("self_attn.v_proj", $0) }
    let rotatedKeys = try keys.enumerated().map { position, key in
      try (0..<attention.keyValueHeads).map { try head(key, $0, norm: "self_attn.k_norm", position: position) }
    }
    return try inputs.indices.map { position in
      let first = max(0, position + 1 - (attention.window ?? .max / 2))
      var joined: [Double] = []
      for index in 0..<attention.heads {
        let shared = index * attention.keyValueHeads / attention.heads
        let query = try head(queries[position], index, norm: "self_attn.q_norm", position: position)
        let scores = (first...position).map { key in
          exp(zip(query, rotatedKeys[key][shared]).reduce(0) { $0 + $1.0 * $1.1 } / Double(size).squareRoot())
        }
        let total = scores.reduce(0, +) + (sinks.map { exp(Double($0[index])) } ?? 0)
        joined += (0..<size).map { i in zip(first...position, scores).reduce(0) { $0 + $1.1 / total * values[$1.0][shared * size + i] } }
      }
      let residual = zip(inputs[position], apply("self_attn.o_proj", joined)).map { $0 + $1 }
      let normed = try norm(residual, "post_attention_layernorm")
      let product = zip(apply("mlp.gate_proj", normed), apply("mlp.up_proj", normed)).map { x, up in
        switch description.feedForward!.activation {
        case .silu: return up * x / (1 + exp(-x))
        case .geluTanh: return up * 0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x)))
        case .gelu: return up * 0.5 * x * (1 + erf(x / 2.0.squareRoot()))
        case .relu: return up * max(x, 0)
        case .reluSquared: return up * max(x, 0) * max(x, 0)
        case .xielu: preconditionFailure("networks without a gate are not computed here")
        case .scaledSilu(let factor): return up * x * Double(factor) / (1 + exp(-x * Double(factor)))
        case .clampedSwiglu(let gain, let limit):
          let (gain, limit) = (Double(gain), Double(limit))
          let gate = min(x, limit)
          return gate / (1 + exp(-gain * gate)) * (min(max(up, -limit), limit) + 1)
        }
      }
      return zip(residual, apply("mlp.down_proj", product)).map { $0 + $1 }
    }
  }

  /// Sequences longer than a tile of queries, windows that end inside, at and beyond it.
  @Test(arguments: [qwen3, mistral], [nil, 1, 5, 127, 128, 129, 400])
  func agreesWithTheEquations(_ json: String, _ window: Int?) throws {
    let block = try block(json, window: window)
    #expect(block.description.attention?.window == (window ?? (json.contains("qwen3") ? 4096 : nil)))
    let hidden = Matrix.random(rows: 271, columns: 32, key: "hidden")
    let found = try PreparedBlock(block, positions: 271).forward(hidden)
    let expected = try reference(block, hidden)
    var worst = 0.0
    for row in 0..<found.rows { for column in 0..<32 { worst = max(worst, abs(Double(found[row, column]) - expected[row][column])) } }
    #expect(worst < 2e-5)
  }

  /// Sinks of very different height, and a limit that half of the numbers are beyond.
  @Test(arguments: [nil, 5]) func sinksAndLimitsAgreeWithTheEquations(window: Int?) throws {
    var block = try block(Self.qwen3, window: window)
    block.description.attention?.hasSinks = true
    block.parameters["self_attn.sinks"] = Tensor([-3, 0, 2, 9], shape: [4], dtype: .float32)
    block.description.feedForward?.activation = .clampedSwiglu(gain: 1.702, limit: 0.2)
    let hidden = Matrix.random(rows: 40, columns: 32, key: "hidden")
    let found = try PreparedBlock(block, positions: 40).forward(hidden)
    let expected = try reference(block, hidden)
    var worst = 0.0
    for row in 0..<found.rows { for column in 0..<32 { worst = max(worst, abs(Double(found[row, column]) - expected[row][column])) } }
    #expect(worst < 2e-5)
  }

  @Test func stagesAddUpToTheWhole() throws {
    let block = try block(Self.qwen3, window: 4)
    let hidden = Matrix.random(rows: 20, columns: 32, key: "hidden")
    let prepared = PreparedBlock(block, positions: 20)
    let whole = try prepared.forward(hidden)
    var state = try prepared.start(hidden)
    let widths = [32, 64, 32, 48]
    for stage in 0..<4 {
      #expect(state.stage == stage)
      #expect(state.input?.columns == widths[stage])
      try prepared.advance(&state)
    }
    #expect(state.stage == 4)
    #expect(state.input == nil)
    #expect(state.residual == whole)
  }

  @Test func aKeptStateGoesOnWhereItWas() throws {
    let block = try block(Self.mistral, window: nil)
    let hidden = Matrix.random(rows: 9, columns: 32, key: "hidden")
    let whole = try PreparedBlock(block, positions: 9).forward(hidden)
    for stage in 0..<4 {
      let before = PreparedBlock(block, stages: 0..<stage, positions: 9)
      var state = try before.start(hidden)
      while state.stage < stage { try before.advance(&state) }
      let program = block.description.program
      let kept = program.kept(atStop: program.stops[stage])
      let after = PreparedBlock(block, stages: stage..<4, positions: 9)
      var resumed = try after.resume(stage: stage, state.values.filter { kept.contains($0.key) })
      #expect(resumed.input == state.input)
      while resumed.input != nil { try after.advance(&resumed) }
      #expect(resumed.residual == whole, "from stage \(stage)")
    }
    let program = block.description.program
    #expect(program.stops.map { program.kept(atStop: $0) } == [[.stream], [.stream, "context"], [.stream], [.stream, "inner"]])
  }

  @Test func aWindowHidesWhatLiesBeforeIt() throws {
    let prepared = PreparedBlock(try block(Self.mistral, window: 3), positions: 12)
    let hidden = Matrix.random(rows: 12, columns: 32, key: "hidden")
    var changed = hidden
    for column in 0..<32 { changed[4, column] += 1 }
    let (a, b) = (try prepared.forward(hidden), try prepared.forward(changed))
    for row in 0..<12 { #expect((a.rows(row..<row + 1) == b.rows(row..<row + 1)) == !(4...6).contains(row), "row \(row)") }
  }

  @Test func tokensOutsideTheVocabularyAreRefused() throws {
    let weight = Matrix(rows: 3, columns: 2, elements: [0, 1, 2, 3, 4, 5])
    let stored = StoredWeight(Tensor(weight.elements, shape: [3, 2], dtype: .bfloat16))
    for weight in [weight as any Weight, stored] {
      let embedding = PreparedEmbedding(Embedding(tableName: "table", table: Linear(weight: weight)))
      #expect(try embedding([2, 0, 2]).elements == [4, 5, 0, 1, 4, 5])
      for token in [Int32(3), -1, .max] {
        #expect(throws: TokenOutOfRange(token: token, vocabularySize: 3)) { try embedding([0, token]) }
      }
    }
  }
}
