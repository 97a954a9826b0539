internal import Tensors

extension AttentionDescription {
  /// Causal attention of one sequence: softmax(q · kᵀ / √headSize) · v, head by head, with grouped key-value heads.
  ///
  /// Queries are taken in tiles, so the largest score matrix is [tile × keys] of one head, never [tokens × tokens]; keys that no query of
  /// a tile may see are not computed.
  ///
  /// - Parameters:
  ///   - queries: [tokens × heads · headSize], rotated.
  ///   - keys: [tokens × keyValueHeads · headSize], rotated; `values` alike.
  /// - Returns: [tokens × heads · headSize].
  func attend(queries: Matrix, keys: Matrix, values: Matrix) -> Matrix {
    let tokens = queries.rows
    let tile = 128
    let (queryStride, keyStride) = (queries.columns, keys.columns)
    let scale = 1 / Float(headSize).squareRoot()
    return Matrix(rows: tokens, columns: queryStride) { out in
      let scores = UnsafeMutablePointer<Float>.allocate(capacity: tile * tokens)
      defer { scores.deallocate() }
      queries.withUnsafeElements { queries in
        keys.withUnsafeElements { keys in
          values.withUnsafeElements { values in
            for head in 0..<heads {
              let keyOffset = head / (heads / keyValueHeads) * headSize
              for first in stride(from: 0, to: tokens, by: tile) {
                let end = min(first + tile, tokens)
                let start = window.map { max(0, first - $0 + 1) } ?? 0
                let width = end - start
                BLAS.product(
                  queries + first * queryStride + head * headSize, stride: queryStride,
                  keys + start * keyStride + keyOffset, stride: keyStride, rightTransposed: true,
                  rows: end - first, columns: width, inner: headSize, into: scores, stride: width)
                for query in first..<end {
                  let row = scores + (query - first) * width
                  let visible = (window.map { max(start, query - $0 + 1) } ?? 0)..<query + 1
                  (row).update(repeating: 0, count: visible.lowerBound - start)
                  Kernel.softmax(row + (visible.lowerBound - start), count: visible.count, scale: scale)
                  (row + (visible.upperBound - start)).update(repeating: 0, count: end - visible.upperBound)
                }
                BLAS.product(
                  scores, stride: width, values + start * keyStride + keyOffset, stride: keyStride, rows: end - first, columns: headSize,
                  inner: width, into: out.baseAddress! + first * queryStride + head * headSize, stride: queryStride)
              }
            }
          }
        }
      }
    }
  }
}
