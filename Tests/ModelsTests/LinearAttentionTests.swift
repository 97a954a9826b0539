import Foundation
import TestSupport
import Tensors
import Testing

@testable import Models

/// Linear attention in chunks against its recurrence, token by token, in double precision.
struct LinearAttentionTests {
  private typealias Inputs = LinearAttentionInputs
  private let attention = Inputs.attention

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
    let expected = LinearAttentionRecurrence(inputs, isDelta: isDelta).run()
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
