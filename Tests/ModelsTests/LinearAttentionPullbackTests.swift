import Foundation
import TestSupport
import Tensors
import Testing

@testable import Models

/// The way back through linear attention against central differences of its recurrence in double precision.
struct LinearAttentionPullbackTests {
  private static func pullback(_ inputs: LinearAttentionInputs, isDelta: Bool, _ gradient: Matrix, chunk: Int = 64) -> [Matrix] {
    var attention = LinearAttentionInputs.attention
    attention.chunk = chunk
    let read = LinearAttention.Inputs(
      queries: inputs.queries, keys: inputs.keys, values: inputs.values, decays: inputs.decays,
      strengths: isDelta ? inputs.strengths : nil)
    let found = attention.pullback(read, attention.record(read).tape, gradient)
    #expect((found.strengths != nil) == isDelta)
    return [found.queries, found.keys, found.values, found.decays] + (found.strengths.map { [$0] } ?? [])
  }

  /// Over more than two chunks, with decays that leave nothing of a chunk's beginning, and with hardly any.
  @Test(arguments: [true, false], [0.01, 1, 40] as [Float]) func everyInputIsPulledAsByTheRecurrence(isDelta: Bool, decay: Float) {
    let inputs = LinearAttentionInputs(tokens: 150, decay: decay)
    let gradient = Matrix.random(rows: 150, columns: 12, key: "gradient")
    let found = Self.pullback(inputs, isDelta: isDelta, gradient)
    let recurrence = LinearAttentionRecurrence(inputs, isDelta: isDelta)
    var memories = [LinearAttentionRecurrence.Memory()]
    for token in 0..<150 {
      var memory = memories[token]
      _ = recurrence.advance(token, &memory)
      memories.append(memory)
    }
    let moved: [(name: String, path: WritableKeyPath<LinearAttentionRecurrence, [Double]>)] =
      [("queries", \.queries), ("keys", \.keys), ("values", \.values), ("decays", \.decays)]
      + (isDelta ? [("strengths", \.strengths!)] : [])
    // All tokens around the chunks' ends, and some between.
    let tokens = (0..<150).filter { ($0 + 2) % 64 < 4 || $0 % 9 == 0 || $0 == 149 }
    for (matrix, (name, path)) in zip(found, moved) {
      let largest = Double(matrix.elements.map(abs).max()!)
      var worst = 0.0
      for token in tokens {
        for column in 0..<matrix.columns {
          func loss(_ step: Double) -> Double {
            var other = recurrence
            other[keyPath: path][token * matrix.columns + column] += step
            return other.loss(from: token, memories[token], weights: gradient)
          }
          let expected = (loss(1e-4) - loss(-1e-4)) / 2e-4
          worst = max(worst, abs(Double(matrix[token, column]) - expected))
        }
      }
      #expect(worst < 1e-4 * largest, "\(name): \(worst) of \(largest)")
    }
  }

  /// Just below a chunk's length, at it, just above, and beyond two: against chunks of another length, and token by token.
  @Test(arguments: [true, false], [63, 64, 65, 129]) func chunksChangeNothing(isDelta: Bool, tokens: Int) {
    let inputs = LinearAttentionInputs(tokens: tokens, decay: 0.1)
    let gradient = Matrix.random(rows: tokens, columns: 12, key: "gradient")
    let whole = Self.pullback(inputs, isDelta: isDelta, gradient)
    for chunk in [1, 7, 32] {
      for (found, expected) in zip(Self.pullback(inputs, isDelta: isDelta, gradient, chunk: chunk), whole) {
        #expect(found.distance(to: expected) < 1e-5, "chunks of \(chunk)")
      }
    }
  }
}

struct CausalConvolutionPullbackTests {
  @Test(arguments: [2, 9]) func inputKernelAndBiasArePulled(tokens: Int) {
    let kernel = Matrix.random(rows: 6, columns: 4, key: "kernel")
    let (input, gradient) = (Matrix.random(rows: tokens, columns: 6, key: "input"), Matrix.random(rows: tokens, columns: 6, key: "above"))
    let found = CausalConvolution(kernel: kernel.elements, bias: Array(repeating: 1, count: 6), channels: 6).pullback(input, gradient)
    for channel in 0..<6 {
      for token in 0..<tokens {
        let expected = (0..<4).reduce(0.0) { sum, tap in
          token + 3 - tap < tokens ? sum + Double(kernel[channel, tap]) * Double(gradient[token + 3 - tap, channel]) : sum
        }
        #expect(abs(Double(found.input[token, channel]) - expected) < 1e-5)
      }
      for tap in 0..<4 {
        let expected = (0..<tokens).reduce(0.0) { sum, token in
          token - 3 + tap < 0 ? sum : sum + Double(gradient[token, channel]) * Double(input[token - 3 + tap, channel])
        }
        #expect(abs(Double(found.kernel[channel * 4 + tap]) - expected) < 1e-5)
      }
      let expected = (0..<tokens).reduce(0.0) { $0 + Double(gradient[$1, channel]) }
      #expect(abs(Double(found.bias?[channel] ?? .nan) - expected) < 1e-5)
    }
  }
}
