public import Tensors

/// The weights that compete for being kept.
public enum ComparisonGroup: String, Sendable, Codable, CaseIterable {
  /// Those of one output: all outputs become equally sparse (Wanda).
  case row
  /// All of the layer.
  case layer
}

/// Which weights of a matrix become zero.
public struct SparsityMask: Sendable, Equatable {
  public let rows: Int
  public let columns: Int
  /// Row by row: whether the weight is removed.
  public private(set) var isPruned: [Bool]

  /// Removes the weights with the lowest scores; of equal ones, those further left and above.
  ///
  /// - Parameters:
  ///   - scores: [outputs × inputs], none negative.
  ///   - sparsity: the share to remove, rounded down to whole weights of a comparison group. A pattern has its own.
  public init(scores: Matrix, pattern: SparsityPattern, sparsity: Double, comparing: ComparisonGroup) {
    let (rows, columns) = (scores.rows, scores.columns)
    self.rows = rows
    self.columns = columns
    isPruned = [Bool](repeating: false, count: rows * columns)
    isPruned.withUnsafeMutableBufferPointer { out in
      scores.withUnsafeElements { scores in
        nonisolated(unsafe) let (out, scores) = (out, scores)
        /// Runs of weights among which each choice is made, and how many of each go.
        func prune(runs length: Int, removing count: Int) {
          guard count > 0 else { return }
          let runs = rows * columns / max(1, length)
          let strip = max(1, (1 << 16) / max(1, length))
          Parallel.forEach((runs + strip - 1) / strip) { index in
            for run in index * strip..<min((index + 1) * strip, runs) {
              let part = UnsafeBufferPointer(start: scores + run * length, count: length)
              Self.markLowest(count, of: part, in: UnsafeMutableBufferPointer(rebasing: out[run * length..<(run + 1) * length]))
            }
          }
        }
        switch (pattern, comparing) {
        case (.grouped(let kept, let group), _):
          precondition(columns % group == 0, "groups of \(group) do not fill rows of \(columns)")
          prune(runs: group, removing: group - kept)
        case (.unstructured, .row): prune(runs: columns, removing: Int(sparsity * Double(columns)))
        case (.unstructured, .layer): prune(runs: rows * columns, removing: Int(sparsity * Double(rows * columns)))
        }
      }
    }
  }

  package init(rows: Int, columns: Int, isPruned: [Bool]) {
    precondition(isPruned.count == rows * columns, "flags do not fill the shape")
    (self.rows, self.columns, self.isPruned) = (rows, columns, isPruned)
  }

  /// The zeros of a weight.
  public init(zerosOf weight: Matrix) {
    (rows, columns) = (weight.rows, weight.columns)
    isPruned = weight.elements.map { $0 == 0 }
  }

  /// The share of weights that are removed.
  public var sparsity: Double { Double(isPruned.count { $0 }) / Double(max(1, isPruned.count)) }

  /// The weight without what is removed.
  public func applied(to weight: Matrix) -> Matrix {
    precondition(weight.rows == rows && weight.columns == columns, "the weight has another shape than the mask")
    return Matrix(rows: rows, columns: columns, elements: zip(weight.elements, isPruned).map { $1 ? 0 : $0 })
  }

  private static func markLowest(_ count: Int, of scores: UnsafeBufferPointer<Float>, in out: UnsafeMutableBufferPointer<Bool>) {
    guard count < scores.count else { return out.update(repeating: true) }
    if scores.count <= 16 {
      // How many are lower, or equal and to the left: cheaper than any sort of a few.
      for index in scores.indices {
        var rank = 0
        for other in scores.indices where scores[other] < scores[index] || (scores[other] == scores[index] && other < index) { rank += 1 }
        out[index] = rank < count
      }
      return
    }
    let threshold = Selection.smallest(count, of: scores)
    var equal = count
    for index in scores.indices where scores[index] < threshold {
      out[index] = true
      equal -= 1
    }
    for index in scores.indices where equal > 0 && scores[index] == threshold {
      out[index] = true
      equal -= 1
    }
  }
}
