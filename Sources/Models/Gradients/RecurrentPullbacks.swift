internal import Foundation
import Tensors

/// The slope of `softplus`.
func softplusSlope(_ x: Float) -> Float { x > 20 ? 1 : 1 / (1 + exp(-x)) }

extension Matrix {
  /// The way back through root-mean-square norms of stretches of rows: of a weight's elements for each, one stretch after the other.
  ///
  /// - Parameters:
  ///   - width: of a stretch.
  ///   - weight: for a row's stretches, or for all of them alike; its gradient has the same length.
  ///   - gradient: of what came out, [rows × columns].
  func stretchNormPullback(width: Int, weight: [Float], epsilon: Float, gradient: Matrix) -> (rows: Matrix, weight: [Float]) {
    var weightGradient = [Float](repeating: 0, count: weight.count)
    let below = Matrix(rows: rows, columns: columns) { out in
      withUnsafeElements { x in
        gradient.withUnsafeElements { dy in
          weight.withUnsafeBufferPointer { weight in
            weightGradient.withUnsafeMutableBufferPointer { weightGradient in
              for start in stride(from: 0, to: rows * columns, by: width) {
                let offset = start % weight.count
                Kernel.rmsNormPullback(
                  x + start, weight: weight.baseAddress! + offset, epsilon: epsilon, gradient: dy + start, into: out.baseAddress! + start,
                  weightGradient: weightGradient.baseAddress! + offset, count: width)
              }
            }
          }
        }
      }
    }
    return (below, weightGradient)
  }

  /// The scalar products of every head of every row with the other's, row by row.
  func headProducts(with other: Matrix, size: Int) -> [Float] {
    func narrow(_ matrix: Matrix) -> Matrix {
      Matrix(rows: matrix.elements.count / size, columns: size, elements: matrix.elements)
    }
    return narrow(self).rowProducts(with: narrow(other))
  }
}

/// Σ a · b in lanes, which a plain loop may not be turned into.
func scalarProduct(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>, count: Int) -> Float {
  var (lanes, index) = (SIMD8<Float>.zero, 0)
  while index + 8 <= count {
    lanes +=
      UnsafeRawPointer(a + index).loadUnaligned(as: SIMD8<Float>.self) * UnsafeRawPointer(b + index).loadUnaligned(as: SIMD8<Float>.self)
    index += 8
  }
  var sum = lanes.sum()
  while index < count {
    sum += a[index] * b[index]
    index += 1
  }
  return sum
}
