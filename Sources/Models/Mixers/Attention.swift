package import Tensors

extension AttentionDescription {
  /// Queries, keys and values, heads one after the other, from the outputs of the projections.
  func split(_ outputs: [Matrix]) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    guard case .fused = projections else {
      let queries = hasOutputGate ? outputs[0].columns(in: (0..<heads).map { queryRows($0).rows }) : outputs[0]
      return (queries, outputs[1], outputs[2])
    }
    let output = outputs[0]
    return (
      output.columns(in: (0..<heads).map { queryRows($0).rows }), output.columns(in: (0..<keyValueHeads).map { keyRows($0).rows }),
      output.columns(in: (0..<keyValueHeads).map { valueRows($0).rows })
    )
  }

  /// Multiplies attention's output by the sigmoid of the gates that the query linear made beside the queries; nothing where it makes none.
  func gate(_ context: inout Matrix, by outputs: [Matrix]) {
    guard hasOutputGate else { return }
    let gates = outputs[0].columns(in: (0..<heads).map { (2 * $0 + 1) * headSize..<(2 * $0 + 2) * headSize })
    context.multiply(by: Matrix(rows: gates.rows, columns: gates.columns, elements: gates.elements.map { 1 / (1 + exponential(-$0)) }))
  }

  /// Attention of one sequence, causal or not: softmax(scale · q · kᵀ) · v, head by head, with grouped key-value heads.
  ///
  /// Queries are taken in tiles, so the largest score matrix is [tile × keys] of one head, never [tokens × tokens]; keys that no query of
  /// a tile may see are not computed.
  ///
  /// - Parameters:
  ///   - queries: [tokens × heads · headSize], rotated.
  ///   - keys: [tokens × keyValueHeads · headSize], rotated; `values` alike.
  /// - Returns: [tokens × heads · headSize].
  package func attend(queries: Matrix, keys: Matrix, values: Matrix) -> Matrix {
    let tokens = queries.rows
    let tile = 128
    let (queryStride, keyStride) = (queries.columns, keys.columns)
    return Matrix(rows: tokens, columns: queryStride) { out in
      let scores = UnsafeMutablePointer<Float>.allocate(capacity: tile * tokens)
      defer { scores.deallocate() }
      queries.withUnsafeElements { queries in
        keys.withUnsafeElements { keys in
          values.withUnsafeElements { values in
            for head in 0..<heads {
              let keyOffset = head / group * headSize
              for first in stride(from: 0, to: tokens, by: tile) {
                let end = min(first + tile, tokens)
                let start = isCausal ? window.map { max(0, first - $0 + 1) } ?? 0 : 0
                let last = isCausal ? end : tokens
                let width = last - start
                BLAS.product(
                  queries + first * queryStride + head * headSize, stride: queryStride,
                  keys + start * keyStride + keyOffset, stride: keyStride, rightTransposed: true,
                  rows: end - first, columns: width, inner: headSize, into: scores, stride: width)
                for query in first..<end {
                  let row = scores + (query - first) * width
                  let visible = isCausal ? (window.map { max(start, query - $0 + 1) } ?? 0)..<query + 1 : 0..<tokens
                  (row).update(repeating: 0, count: visible.lowerBound - start)
                  softmax(row + (visible.lowerBound - start), count: visible.count)
                  (row + (visible.upperBound - start)).update(repeating: 0, count: last - visible.upperBound)
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

  /// What products of queries and keys are multiplied by.
  package var scoreScale: Float { scale ?? 1 / Float(headSize).squareRoot() }

  /// Products of one query with keys become what the query pays to each, in place.
  package func softmax(_ row: UnsafeMutablePointer<Float>, count: Int) {
    let scale = scoreScale
    guard let scoreCap else { return Kernel.softmax(row, count: count, scale: scale) }
    for index in 0..<count { row[index] *= scale }
    softCap(row, count: count, cap: scoreCap)
    Kernel.softmax(row, count: count, scale: 1)
  }
}
