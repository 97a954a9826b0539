import Tensors

/// A convolution along the sequence, each channel on its own, that sees no later token:
/// out[t, c] = bias[c] + Σₖ kernel[c, k] · in[t − taps + 1 + k, c].
struct CausalConvolution: Sendable {
  let channels: Int
  let taps: Int
  /// [taps × channels], so that channels lie one after the other.
  let kernel: [Float]
  let bias: [Float]?

  /// - Parameter kernel: [channels × taps].
  init(kernel: [Float], bias: [Float]? = nil, channels: Int) {
    self.channels = channels
    taps = kernel.count / channels
    self.kernel = Matrix(rows: channels, columns: taps, elements: kernel).transposed().elements
    self.bias = bias
  }

  /// Inputs before the first token: zeros, [taps − 1 × channels].
  func makePast() -> Matrix { Matrix(rows: taps - 1, columns: channels) }

  /// - Parameters:
  ///   - input: the next tokens, [tokens × channels].
  ///   - past: the last inputs before them, [taps − 1 × channels]; becomes those before the tokens to come.
  func apply(_ input: Matrix, past: inout Matrix) -> Matrix {
    let all = Matrix(stacking: [past, input])
    past = all.rows(input.rows..<all.rows)
    let channels = channels
    return Matrix(rows: input.rows, columns: channels) { out in
      all.withUnsafeElements { all in
        kernel.withUnsafeBufferPointer { kernel in
          for token in 0..<input.rows {
            let row = out.baseAddress! + token * channels
            if let bias { row.update(from: bias, count: channels) } else { row.update(repeating: 0, count: channels) }
            for tap in 0..<taps {
              let (weights, values) = (kernel.baseAddress! + tap * channels, all + (token + tap) * channels)
              for channel in 0..<channels { row[channel] += weights[channel] * values[channel] }
            }
          }
        }
      }
    }
  }
}
