import Models
import Tensors

/// How the newest queries attend to what is held, smoothed over neighbouring keys: SnapKV.
///
/// Softmax is causal inside the window, the mean is over its queries, then comes an average over `pool` neighbours, then the mean over the
/// queries' group. The paper compresses a prompt once; here the window moves on with the sequence.
struct ObservedWindow: KeyImportance {
  private let description: AttentionDescription
  private let softmax: AttentionSoftmax
  private let window: Int
  private let pool = 5
  /// The newest queries, [at most `window` × heads · size], and the position of the last.
  private var queries: Matrix
  private var last = -1

  init(_ description: AttentionDescription, _ softmax: AttentionSoftmax, window: Int) {
    self.description = description
    self.softmax = softmax
    self.window = window
    queries = Matrix(rows: 0, columns: description.heads * description.headSize)
  }

  mutating func observe(unrotated: Matrix, rotated: Matrix, position: Int) {
    let all = Matrix(stacking: [queries, rotated])
    queries = all.rows(max(0, all.rows - window)..<all.rows)
    last = position + rotated.rows - 1
  }

  func scores(of heads: [() -> HeldHead], counts: [Int], rotate: (inout Matrix, [Int]) -> Void) -> [[Float]] {
    let (size, group) = (description.headSize, description.heads / description.keyValueHeads)
    return heads.indices.map { index in
      let head = heads[index]()
      let count = head.positions.count
      var sums = [Float](repeating: 0, count: count)
      var products = [Float](repeating: 0, count: queries.rows * count)
      for member in 0..<group {
        queries.withUnsafeElements { queries in
          head.keys.withUnsafeElements { keys in
            products.withUnsafeMutableBufferPointer {
              BLAS.product(
                queries + (index * group + member) * size, stride: self.queries.columns, keys, stride: size, rightTransposed: true,
                rows: self.queries.rows, columns: count, inner: size, into: $0.baseAddress!, stride: count)
            }
          }
        }
        var mean = [Float](repeating: 0, count: count)
        products.withUnsafeMutableBufferPointer { products in
          for row in 0..<queries.rows {
            let line = products.baseAddress! + row * count
            let position = last - (queries.rows - 1 - row)
            let visible = head.positions.firstIndex { $0 > position } ?? count
            softmax(line, count: visible, head: index * group + member)
            for token in 0..<visible { mean[token] += line[token] / Float(queries.rows) }
          }
        }
        for token in 0..<count {
          for neighbour in max(0, token - pool / 2)...min(count - 1, token + pool / 2) { sums[token] += mean[neighbour] / Float(pool) }
        }
      }
      return sums.map { $0 / Float(group) }
    }
  }
}
