import Foundation
import TestSupport
import Tensors
import Testing

@testable import Models

/// Linear attention in chunks against its recurrence, token by token, in double precision.
struct LinearAttentionTests {
  private let attention = LinearAttention(heads: 4, keyHeads: 2, keySize: 5, valueSize: 3)

  private struct Inputs {
    let queries, keys, values, decays, strengths: Matrix

    init(tokens: Int, decay: Float) {
      queries = .random(rows: tokens, columns: 10, key: "queries")
      var keys = Matrix.random(rows: tokens, columns: 10, key: "keys")
      // The delta rule is stable for keys of length one.
      for row in 0..<tokens {
        for head in 0..<2 {
          let length = (0..<5).reduce(Float(0)) { $0 + keys[row, head * 5 + $1] * keys[row, head * 5 + $1] }.squareRoot()
          for column in 0..<5 { keys[row, head * 5 + column] /= length }
        }
      }
      self.keys = keys
      values = .random(rows: tokens, columns: 12, key: "values")
      let random = Matrix.random(rows: tokens, columns: 8, key: "decays")
      decays = Matrix(rows: tokens, columns: 4, elements: (0..<tokens * 4).map { -decay * abs(random[$0 / 4, $0 % 4]) })
      strengths = Matrix(rows: tokens, columns: 4, elements: (0..<tokens * 4).map { 1 / (1 + exp(-random[$0 / 4, 4 + $0 % 4])) })
    }

    func rows(_ range: Range<Int>) -> (Matrix, Matrix, Matrix, Matrix, Matrix) {
      (queries.rows(range), keys.rows(range), values.rows(range), decays.rows(range), strengths.rows(range))
    }
  }

  private func recurrence(_ inputs: Inputs, isDelta: Bool) -> (outputs: [[Double]], memory: [Double]) {
    var memory = [Double](repeating: 0, count: 4 * 5 * 3)
    let outputs = (0..<inputs.queries.rows).map { token -> [Double] in
      (0..<4).flatMap { head -> [Double] in
        let key = (0..<5).map { Double(inputs.keys[token, head / 2 * 5 + $0]) }
        let query = (0..<5).map { Double(inputs.queries[token, head / 2 * 5 + $0]) }
        func place(_ row: Int, _ column: Int) -> Int { (head * 5 + row) * 3 + column }
        let fade = exp(Double(inputs.decays[token, head]))
        for index in head * 15..<(head + 1) * 15 { memory[index] *= fade }
        for column in 0..<3 {
          var update = Double(inputs.values[token, head * 3 + column])
          if isDelta {
            update -= (0..<5).reduce(0.0) { $0 + key[$1] * memory[place($1, column)] }
            update *= Double(inputs.strengths[token, head])
          }
          for row in 0..<5 { memory[place(row, column)] += key[row] * update }
        }
        return (0..<3).map { column in (0..<5).reduce(0.0) { $0 + query[$1] * memory[place($1, column)] } }
      }
    }
    return (outputs, memory)
  }

  private func run(_ inputs: Inputs, isDelta: Bool, pieces: [Int]) -> (outputs: Matrix, memory: [Float]) {
    var memory = [Float](repeating: 0, count: attention.memorySize)
    var (start, outputs) = (0, [Matrix]())
    for piece in pieces {
      let (queries, keys, values, decays, strengths) = inputs.rows(start..<start + piece)
      outputs.append(
        attention.run(
          queries: queries, keys: keys, values: values, decays: decays, strengths: isDelta ? strengths : nil, memory: &memory))
      start += piece
    }
    return (Matrix(stacking: outputs), memory)
  }

  /// Over more than two chunks, with decays that leave nothing of a chunk's beginning, and with hardly any.
  @Test(arguments: [true, false], [0.01, 1, 40] as [Float]) func chunksAreTheRecurrence(isDelta: Bool, decay: Float) {
    let inputs = Inputs(tokens: 150, decay: decay)
    let expected = recurrence(inputs, isDelta: isDelta)
    let found = run(inputs, isDelta: isDelta, pieces: [150])
    let largest = expected.outputs.joined().map(abs).max()!
    for (row, values) in expected.outputs.enumerated() {
      for (column, value) in values.enumerated() { #expect(abs(Double(found.outputs[row, column]) - value) < 1e-5 * largest) }
    }
    let remembered = expected.memory.map(abs).max()!
    #expect(zip(found.memory, expected.memory).allSatisfy { abs(Double($0) - $1) < 1e-5 * remembered })
  }

  @Test(arguments: [true, false]) func piecesAreTheWhole(isDelta: Bool) {
    let inputs = Inputs(tokens: 150, decay: 0.1)
    let whole = run(inputs, isDelta: isDelta, pieces: [150])
    for pieces in [Array(repeating: 1, count: 150), [64, 64, 22], [1, 100, 49], [63, 2, 85]] {
      let parts = run(inputs, isDelta: isDelta, pieces: pieces)
      #expect(parts.outputs.distance(to: whole.outputs) < 1e-5)
    }
  }
}

struct CausalConvolutionTests {
  @Test func everyOutputSeesItselfAndWhatCameBefore() {
    let kernel = Matrix.random(rows: 6, columns: 4, key: "kernel")
    let bias = Matrix.random(rows: 1, columns: 6, key: "bias").elements
    let input = Matrix.random(rows: 9, columns: 6, key: "input")
    let convolution = CausalConvolution(kernel: kernel.elements, bias: bias, channels: 6)
    var past = convolution.makePast()
    let whole = convolution.apply(input, past: &past)
    for token in 0..<9 {
      for channel in 0..<6 {
        let expected = (0..<4).reduce(Double(bias[channel])) { sum, tap in
          token - 3 + tap < 0 ? sum : sum + Double(kernel[channel, tap]) * Double(input[token - 3 + tap, channel])
        }
        #expect(abs(Double(whole[token, channel]) - expected) < 1e-5)
      }
    }
    #expect(past == input.rows(6..<9))
    var carried = convolution.makePast()
    let pieces = [0..<1, 1..<2, 2..<9].map { convolution.apply(input.rows($0), past: &carried) }
    #expect(Matrix(stacking: pieces) == whole && carried == past)
  }
}
