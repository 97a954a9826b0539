import Models
import Tensors

/// One key-value head: what it holds of a sequence, and attention over that.
struct HeadCache: Sendable, Equatable {
  private(set) var keys: HeadStore
  private(set) var values: HeadStore
  /// Where each held token stood in the sequence, ascending.
  private(set) var positions: [Int] = []

  init(keys: HeadStore, values: HeadStore) {
    self.keys = keys
    self.values = values
  }

  var count: Int { positions.count }

  mutating func keep(_ tokens: [Int]) {
    keys.keep(tokens)
    values.keep(tokens)
    positions = tokens.map { positions[$0] }
  }

  /// Some tokens on their way into the cache, and the queries that stand at them.
  struct Piece {
    /// [tokens × heads · size], of which this key-value head's group begins at `queryOffset`.
    let queries: Matrix
    let queryOffset: Int
    /// Query heads of the group.
    let group: Int
    /// [tokens × key-value heads · size], of which this head begins at `offset`.
    let keys: Matrix
    let values: Matrix
    let offset: Int
    /// Of the first token.
    let position: Int
    var tokens: Int { queries.rows }
  }

  /// What the attention of some queries to the held tokens was: one row for each query head of the group and each query, head by head.
  struct Probabilities {
    let rows: UnsafePointer<Float>
    let stride: Int
    let group: Int
    /// Tokens of the piece that the rows belong to.
    let queries: Range<Int>
    /// Tokens held before the piece: query `j` sees no more than `held + j + 1`.
    let held: Int
    /// Whether the piece's last token is among them.
    let isLast: Bool
  }

  /// Takes the piece in and lets its queries attend to what is held.
  ///
  /// Every query sees each token as it would if tokens came one by one: coded where it would have been coded when the query came, as
  /// computed otherwise. The result therefore does not depend on how a sequence is cut.
  ///
  /// - Parameters:
  ///   - softmax: turns products of queries and keys into probabilities.
  ///   - reach: which positions of the sequence a query sees.
  ///   - place: rotates keys by their places in the cache, for keys that are held without positions: [tokens × size], the first place.
  ///   - out: [tokens × heads · size] with the piece's stride; the group's columns are written.
  ///   - observe: sees the probabilities before they are used.
  mutating func attend(
    _ piece: Piece, _ softmax: AttentionSoftmax, reach: AttentionReach, place: ((inout Matrix, Int) -> Void)?,
    into out: UnsafeMutablePointer<Float>, observe: (Probabilities) -> Void
  ) {
    let (size, tokens, held) = (keys.size, piece.tokens, count)
    let (keyStart, valueStart) = (keys.coded, values.coded)
    let keySplits = (0..<tokens).map { keys.coded(of: held + $0 + 1) }
    let valueSplits = (0..<tokens).map { values.coded(of: held + $0 + 1) }
    positions += piece.position..<piece.position + tokens
    var plainKeys = piece.keys.withUnsafeElements { keys.append($0 + piece.offset, stride: piece.keys.columns, tokens: tokens) }
    let plainValues = piece.values.withUnsafeElements { values.append($0 + piece.offset, stride: piece.values.columns, tokens: tokens) }
    var (codedKeys, keysAreTransposed) = keys.decoded()
    let (codedValues, valuesAreTransposed) = values.decoded()
    if let place {
      precondition(!keysAreTransposed, "keys coded along time have their positions in them")
      func placed(_ elements: [Float], from first: Int) -> [Float] {
        var states = Matrix(rows: elements.count / size, columns: size, elements: elements)
        place(&states, first)
        return states.elements
      }
      plainKeys = placed(plainKeys, from: keyStart)
      codedKeys = placed(codedKeys, from: 0)
    }
    let tile = 128
    let rowLimit = piece.group * min(tile, tokens)
    let total = held + tokens
    func buffer(_ count: Int) -> UnsafeMutablePointer<Float> { .allocate(capacity: max(1, count)) }
    let (gathered, scores, fresh) = (buffer(rowLimit * size), buffer(rowLimit * total), buffer(rowLimit * total))
    defer { for pointer in [gathered, scores, fresh] { pointer.deallocate() } }
    for first in stride(from: 0, to: tokens, by: tile) {
      let queries = first..<min(first + tile, tokens)
      let (rows, visible) = (piece.group * queries.count, held + queries.upperBound)
      gather(piece, queries, into: gathered)

      // Scores against both forms of the keys, each query taking from either what it would have found.
      let codedCount = min(keys.coded, visible)
      let width = visible - keyStart
      if codedCount > 0 {
        BLAS.product(
          gathered, stride: size, codedKeys, stride: keysAreTransposed ? keys.coded : size, rightTransposed: !keysAreTransposed, rows: rows,
          columns: codedCount, inner: size, into: scores, stride: total)
      }
      let target = codedCount > 0 ? fresh : scores
      let targetStride = codedCount > 0 ? width : total
      BLAS.product(
        gathered, stride: size, plainKeys, stride: size, rightTransposed: true, rows: rows, columns: width, inner: size, into: target,
        stride: targetStride)
      for row in 0..<rows {
        let query = queries.lowerBound + row % queries.count
        let (line, end) = (scores + row * total, held + query + 1)
        if codedCount > 0 {
          let split = keySplits[query]
          (line + split).update(from: fresh + row * width + split - keyStart, count: end - split)
        }
        let start = firstPosition(after: reach.first(of: piece.position + query) - 1)
        line.update(repeating: 0, count: start)
        softmax(line + start, count: end - start, head: piece.queryOffset / size + row / queries.count)
        (line + end).update(repeating: 0, count: visible - end)
      }
      observe(
        Probabilities(
          rows: scores, stride: total, group: piece.group, queries: queries, held: held, isLast: queries.upperBound == tokens))
      mix(
        scores, fresh, coded: codedValues, isTransposed: valuesAreTransposed, plain: plainValues, start: valueStart, splits: valueSplits,
        queries: queries, visible: visible, total: total, group: piece.group, into: gathered)
      for row in 0..<rows {
        let (head, query) = (row / queries.count, queries.lowerBound + row % queries.count)
        (out + query * piece.queries.columns + piece.queryOffset + head * size).update(from: gathered + row * size, count: size)
      }
    }
  }

  /// The first held token behind a position.
  private func firstPosition(after position: Int) -> Int {
    var (low, high) = (0, positions.count)
    while low < high {
      let middle = (low + high) / 2
      if positions[middle] > position { high = middle } else { low = middle + 1 }
    }
    return low
  }

  private func gather(_ piece: Piece, _ queries: Range<Int>, into gathered: UnsafeMutablePointer<Float>) {
    let size = keys.size
    piece.queries.withUnsafeElements { states in
      for head in 0..<piece.group {
        for (row, query) in queries.enumerated() {
          (gathered + (head * queries.count + row) * size).update(
            from: states + query * piece.queries.columns + piece.queryOffset + head * size, count: size)
        }
      }
    }
  }

  /// Probabilities times values, both forms of them: [group · queries × size].
  private func mix(
    _ scores: UnsafeMutablePointer<Float>, _ fresh: UnsafeMutablePointer<Float>, coded: [Float], isTransposed: Bool, plain: [Float],
    start: Int, splits: [Int], queries: Range<Int>, visible: Int, total: Int, group: Int, into out: UnsafeMutablePointer<Float>
  ) {
    let (size, rows, width) = (values.size, group * queries.count, visible - start)
    let codedCount = min(values.coded, visible)
    guard codedCount > 0 else {
      return BLAS.product(scores, stride: total, plain, stride: size, rows: rows, columns: size, inner: visible, into: out, stride: size)
    }
    for row in 0..<rows {
      let (line, other) = (scores + row * total, fresh + row * width)
      let split = splits[queries.lowerBound + row % queries.count]
      other.update(repeating: 0, count: split - start)
      (other + split - start).update(from: line + split, count: visible - split)
      if split < codedCount { (line + split).update(repeating: 0, count: codedCount - split) }
    }
    BLAS.product(
      scores, stride: total, coded, stride: isTransposed ? values.coded : size, rightTransposed: isTransposed, rows: rows, columns: size,
      inner: codedCount, into: out, stride: size)
    BLAS.product(
      fresh, stride: width, plain, stride: size, rows: rows, columns: size, inner: width, beta: 1, into: out, stride: size)
  }
}
