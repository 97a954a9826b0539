import Tensors

extension CausalConvolution {
  /// Gradients of what a convolution has read.
  struct Gradients {
    /// [tokens × channels].
    var input: Matrix
    /// [channels × taps], as on disk.
    var kernel: [Float]
    /// By channel; `nil` where there is none.
    var bias: [Float]?
  }

  /// The way back through `apply` of a whole sequence:
  /// d in[t, c] = Σₖ kernel[c, k] · d out[t + taps − 1 − k, c], d kernel[c, k] = Σₜ d out[t, c] · in[t − taps + 1 + k, c] and
  /// d bias[c] = Σₜ d out[t, c].
  ///
  /// - Parameter gradient: of what came out, [tokens × channels].
  func pullback(_ input: Matrix, _ gradient: Matrix) -> Gradients {
    let (channels, tokens) = (channels, input.rows)
    var (below, weights) = (Matrix(rows: tokens, columns: channels), Matrix(rows: taps, columns: channels))
    below.withUnsafeMutableElements { below in
      weights.withUnsafeMutableElements { weights in
        input.withUnsafeElements { input in
          gradient.withUnsafeElements { gradient in
            kernel.withUnsafeBufferPointer { kernel in
              // Strips of channels, so that the rows of all taps stay in the cache from token to token.
              for first in stride(from: 0, to: channels, by: 256) {
                let count = min(256, channels - first)
                for token in 0..<tokens {
                  let above = gradient + token * channels + first
                  for tap in max(0, taps - 1 - token)..<taps {
                    let place = (token + tap - taps + 1) * channels + first
                    let (factors, sums) = (kernel.baseAddress! + tap * channels + first, weights + tap * channels + first)
                    let (row, values) = (below + place, input + place)
                    for channel in 0..<count { row[channel] += factors[channel] * above[channel] }
                    for channel in 0..<count { sums[channel] += values[channel] * above[channel] }
                  }
                }
              }
            }
          }
        }
      }
    }
    return Gradients(input: below, kernel: weights.transposed().elements, bias: bias == nil ? nil : gradient.columnSums())
  }
}
