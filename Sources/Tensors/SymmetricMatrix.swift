/// A symmetric matrix in double precision, of which the lower triangle is kept current.
///
/// Second moments are summed here: products of at most a few thousand tokens in `Float`, their totals in `Double`
/// (algorithm notes: single-precision totals drift with the number of tokens).
public struct SymmetricMatrix: Sendable, Equatable {
  public let size: Int
  /// Row-major [size × size]; above the diagonal only `element` knows.
  package var lower: [Double]

  public init(size: Int) {
    self.size = size
    lower = Array(repeating: 0, count: size * size)
  }

  public subscript(row: Int, column: Int) -> Double {
    get { lower[max(row, column) * size + min(row, column)] }
    set { lower[max(row, column) * size + min(row, column)] = newValue }
  }

  public var diagonal: [Double] { (0..<size).map { lower[$0 * size + $0] } }

  /// Adds xᵀ · x for x [tokens × size].
  public mutating func addGram(of x: Matrix) {
    precondition(x.columns == size, "the input has \(x.columns) features, the matrix \(size)")
    // The tiling depends on the size alone, so the sums do not depend on the number of threads.
    let tile = size < 512 ? 128 : 256
    let tiles = (size + tile - 1) / tile
    let pairs = (0..<tiles).flatMap { row in (0...row).map { (row, $0) } }
    let size = size
    lower.withUnsafeMutableBufferPointer { buffer in
      x.withUnsafeElements { input in
        nonisolated(unsafe) let (total, input) = (buffer, input)
        Parallel.forEach(pairs.count) { index in
          let (row, column) = (pairs[index].0 * tile, pairs[index].1 * tile)
          let (height, width) = (min(tile, size - row), min(tile, size - column))
          withUnsafeTemporaryAllocation(of: Float.self, capacity: height * width) { part in
            let out = part.baseAddress!
            if row == column {
              BLAS.gramLower(input + row, stride: size, size: height, inner: x.rows, into: out, stride: width)
            } else {
              BLAS.product(
                input + row, stride: size, leftTransposed: true, input + column, stride: size, rows: height, columns: width,
                inner: x.rows, into: out, stride: width)
            }
            for r in 0..<height {
              let last = row == column ? r + 1 : width
              for c in 0..<last { total[(row + r) * size + column + c] += Double(out[r * width + c]) }
            }
          }
        }
      }
    }
  }

  /// The matrix with rows and columns rearranged alike: element (i, j) of the result is (order[i], order[j]) of this.
  public func permuted(_ order: [Int]) -> SymmetricMatrix {
    precondition(order.count == size, "an order of \(size) indices is needed")
    var result = SymmetricMatrix(size: size)
    let size = size
    result.lower.withUnsafeMutableBufferPointer { out in
      lower.withUnsafeBufferPointer { lower in
        nonisolated(unsafe) let (out, lower) = (out, lower)
        let strip = 64
        Parallel.forEach((size + strip - 1) / strip) { index in
          for row in index * strip..<min((index + 1) * strip, size) {
            let from = order[row]
            for column in 0...row {
              let to = order[column]
              out[row * size + column] = from >= to ? lower[from * size + to] : lower[to * size + from]
            }
          }
        }
      }
    }
    return result
  }

  /// Both triangles in single precision, with `shift` added to the diagonal.
  package func full(shift: Double = 0) -> Matrix {
    Matrix(rows: size, columns: size) { out in
      nonisolated(unsafe) let out = out
      Parallel.forEach(size) { row in
        for column in 0..<size { out[row * size + column] = Float(self[row, column] + (row == column ? shift : 0)) }
      }
    }
  }

  public static func += (left: inout SymmetricMatrix, right: SymmetricMatrix) {
    precondition(left.size == right.size, "sizes differ")
    for i in left.lower.indices { left.lower[i] += right.lower[i] }
  }
}
