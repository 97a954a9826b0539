internal import Foundation
package import Tensors

/// How products of one query with keys become what it pays to each.
package struct AttentionSoftmax: Sendable {
  /// What products are multiplied by.
  var scale: Float
  /// c of c · tanh(score / c); `nil` for scores as they are.
  var cap: Float?
  /// By head, a score that no key stands behind: the softmax is over it, too, and what it gets is lost. `nil` where there is none.
  var sinks: [Float]?
  /// By head, what a score falls by for every position between its key and the last one; `nil` where it does not.
  var slopes: [Float]?

  /// In place.
  ///
  /// - Precondition: with slopes, the keys follow each other up to the query's own.
  package func callAsFunction(_ row: UnsafeMutablePointer<Float>, count: Int, head: Int) {
    if cap == nil, sinks == nil, slopes == nil { return Kernel.softmax(row, count: count, scale: scale) }
    for index in 0..<count { row[index] *= scale }
    if let cap { softCap(row, count: count, cap: cap) }
    if let slopes { for index in 0..<count { row[index] -= slopes[head] * Float(count - 1 - index) } }
    let total = sinks == nil ? 0 : Kernel.logSumExp(row, count: count)
    Kernel.softmax(row, count: count, scale: 1)
    guard let sinks else { return }
    let share = Float(1 / (1 + exp(Double(sinks[head]) - total)))
    for index in 0..<count { row[index] *= share }
  }
}

/// softmax(scale · q · kᵀ) · v of one sequence, head by head, with grouped key-value heads (Vaswani et al. 2017, equation 1).
package struct ScaledDotProduct: Sendable {
  var heads: Int
  var keyValueHeads: Int
  /// Numbers of a head's query and key.
  var keySize: Int
  /// Numbers of a head's value.
  var valueSize: Int
  var softmax: AttentionSoftmax
  var isCausal = true
  /// Of causal attention.
  var reach = AttentionReach()

  /// Queries are taken in tiles, so the largest score matrix is [tile × keys] of one head, never [tokens × tokens]; keys that no query of a
  /// tile may see are not computed.
  ///
  /// - Parameters:
  ///   - queries: of the last tokens of the sequence, [queries × heads · keySize].
  ///   - keys: of all tokens, [tokens × keyValueHeads · keySize].
  ///   - values: [tokens × keyValueHeads · valueSize].
  /// - Returns: [queries × heads · valueSize].
  func attend(queries: Matrix, keys: Matrix, values: Matrix) -> Matrix {
    let (tokens, past) = (keys.rows, keys.rows - queries.rows)
    let tile = 128
    let (queryStride, keyStride, valueStride) = (queries.columns, keys.columns, values.columns)
    return Matrix(rows: queries.rows, columns: heads * valueSize) { out in
      let scores = UnsafeMutablePointer<Float>.allocate(capacity: tile * tokens)
      defer { scores.deallocate() }
      queries.withUnsafeElements { queries in
        keys.withUnsafeElements { keys in
          values.withUnsafeElements { values in
            for head in 0..<heads {
              let shared = head * keyValueHeads / heads
              for first in stride(from: past, to: tokens, by: tile) {
                let end = min(first + tile, tokens)
                let start = isCausal ? reach.first(of: first) : 0
                let last = isCausal ? end : tokens
                let width = last - start
                BLAS.product(
                  queries + (first - past) * queryStride + head * keySize, stride: queryStride,
                  keys + start * keyStride + shared * keySize, stride: keyStride, rightTransposed: true,
                  rows: end - first, columns: width, inner: keySize, into: scores, stride: width)
                for query in first..<end {
                  let row = scores + (query - first) * width
                  let visible = isCausal ? reach.first(of: query)..<query + 1 : 0..<tokens
                  row.update(repeating: 0, count: visible.lowerBound - start)
                  softmax(row + (visible.lowerBound - start), count: visible.count, head: head)
                  (row + (visible.upperBound - start)).update(repeating: 0, count: last - visible.upperBound)
                }
                BLAS.product(
                  scores, stride: width, values + start * valueStride + shared * valueSize, stride: valueStride, rows: end - first,
                  columns: valueSize, inner: width,
                  into: out.baseAddress! + (first - past) * heads * valueSize + head * valueSize, stride: heads * valueSize)
              }
            }
          }
        }
      }
    }
  }
}

extension AttentionDescription {
  /// Queries, keys and values, heads one after the other, from the outputs of the projections.
  func split(_ outputs: [Matrix]) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    guard case .fused = projections else {
      let queries = hasOutputGate ? outputs[0].columns(in: (0..<heads).map { queryRows($0).rows }) : outputs[0]
      return (queries, outputs[1], outputs[outputs.count - 1])
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

  /// - Parameter sinks: by head; where the family has them.
  package func softmax(sinks: [Float]?) -> AttentionSoftmax {
    precondition(hasSinks == (sinks != nil), "attention with sinks needs them")
    return AttentionSoftmax(scale: scoreScale, cap: scoreCap, sinks: sinks, slopes: slopes)
  }

  /// Attention of one sequence, causal or not.
  ///
  /// - Parameters:
  ///   - sinks: by head; where the family has them.
  ///   - queries: [tokens × heads · headSize], rotated.
  ///   - keys: [tokens × keyValueHeads · headSize], rotated; `values` alike.
  /// - Returns: [tokens × heads · headSize].
  package func attend(queries: Matrix, keys: Matrix, values: Matrix, sinks: [Float]? = nil) -> Matrix {
    product(sinks: sinks).attend(queries: queries, keys: keys, values: values)
  }

  /// - Parameter sinks: by head; where the family has them.
  func product(sinks: [Float]?) -> ScaledDotProduct {
    ScaledDotProduct(
      heads: heads, keyValueHeads: keyValueHeads, keySize: headSize, valueSize: headSize, softmax: softmax(sinks: sinks),
      isCausal: isCausal, reach: reach)
  }

  /// What products of queries and keys are multiplied by.
  package var scoreScale: Float { scale ?? 1 / Float(headSize).squareRoot() }
}
