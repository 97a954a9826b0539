internal import Models
internal import Quantization
internal import Tensors

/// SparseGPT on some rows of a weight. Columns lie in the order of the solve and every array is [columns × rows], as in `GPTQStrip`.
struct SparseGPTStrip: Sendable {
  private let rows: Range<Int>
  private let columns: Int
  private let weight: [Float]
  private var target: [Float]
  private var errors: [Float]
  private var mask: [Bool]

  init(_ source: Matrix, rows: Range<Int>, order: [Int], mask given: SparsityMask?) {
    (self.rows, columns) = (rows, source.columns)
    let count = source.columns * rows.count
    weight = [Float](unsafeUninitializedCapacity: count) { out, initialized in
      source.withUnsafeElements { elements in
        for (position, column) in order.enumerated() {
          for (index, row) in rows.enumerated() { out[position * rows.count + index] = elements[row * source.columns + column] }
        }
      }
      initialized = count
    }
    target = weight
    errors = Array(repeating: 0, count: count)
    mask = Array(repeating: false, count: count)
    guard let given else { return }
    for (position, column) in order.enumerated() {
      for (index, row) in rows.enumerated() { mask[position * rows.count + index] = given.isPruned[row * source.columns + column] }
    }
  }

  /// target ← weight + Uᵀ·errors of all columns before the block.
  mutating func correct(_ block: Range<Int>, _ factor: SymmetricMatrix.UpperFactor) {
    let (count, columns, before) = (rows.count, columns, block.lowerBound)
    guard before > 0 else { return }
    factor.unitUpper.withUnsafeElements { upper in
      errors.withUnsafeBufferPointer { errors in
        target.withUnsafeMutableBufferPointer { target in
          BLAS.product(
            upper + before, stride: columns, leftTransposed: true, errors.baseAddress!, stride: count, rows: block.count, columns: count,
            inner: before, beta: 1, into: target.baseAddress! + before * count, stride: count)
        }
      }
    }
  }

  /// What removing each weight of the block costs, [rows × block]: with the targets that all have if none is removed.
  func scores(_ block: Range<Int>, _ factor: SymmetricMatrix.UpperFactor, _ pivots: [Float]) -> Matrix {
    let (count, columns, from) = (rows.count, columns, block.lowerBound * rows.count)
    var kept = Array(target[from..<block.upperBound * count])
    var (unused, none) = (kept, [Bool](repeating: false, count: kept.count))
    factor.unitUpper.withUnsafeElements { upper in
      weight.withUnsafeBufferPointer { weight in
        Kernel.sparseGPTBlock(
          target: &kept, weight: weight.baseAddress! + from, feedback: upper + block.lowerBound * columns + block.lowerBound,
          feedbackStride: columns, pivots: pivots, choosing: nil, mask: &none, errors: &unused, columns: block.count, rows: count)
      }
    }
    return Matrix(rows: count, columns: block.count) { out in
      for (index, position) in block.enumerated() {
        for row in 0..<count {
          let value = kept[index * count + row]
          out[row * block.count + index] = pivots[position] * value * value
        }
      }
    }
  }

  /// - Parameter chosen: [all rows × block].
  mutating func take(_ chosen: SparsityMask, _ block: Range<Int>) {
    let count = rows.count
    for (index, position) in block.enumerated() {
      for (at, row) in rows.enumerated() { mask[position * count + at] = chosen.isPruned[row * block.count + index] }
    }
  }

  mutating func prune(
    _ block: Range<Int>, _ factor: SymmetricMatrix.UpperFactor, pivots: [Float], choosing: (pruned: Int, group: Int)?
  ) {
    let (count, start, columns) = (rows.count, block.lowerBound, columns)
    let from = start * count
    factor.unitUpper.withUnsafeElements { upper in
      target.withUnsafeMutableBufferPointer { target in
        errors.withUnsafeMutableBufferPointer { errors in
          mask.withUnsafeMutableBufferPointer { mask in
            weight.withUnsafeBufferPointer { weight in
              pivots.withUnsafeBufferPointer { pivots in
                Kernel.sparseGPTBlock(
                  target: target.baseAddress! + from, weight: weight.baseAddress! + from, feedback: upper + start * columns + start,
                  feedbackStride: columns, pivots: pivots.baseAddress! + start, choosing: choosing, mask: mask.baseAddress! + from,
                  errors: errors.baseAddress! + from, columns: block.count, rows: count)
              }
            }
          }
        }
      }
    }
  }

  /// Σᵢ Dᵢ·‖tᵢ − qᵢ‖² and Σᵢ Dᵢ·‖(W·U)ᵢ‖²: the losses of the pruned rows and of no rows at all.
  func loss(_ factor: SymmetricMatrix.UpperFactor) -> (error: Double, norm: Double) {
    let count = rows.count
    var error = 0.0
    for position in 0..<columns {
      var lost = 0.0
      for at in position * count..<(position + 1) * count where mask[at] { lost += Double(target[at]) * Double(target[at]) }
      error += factor.pivots[position] * lost
    }
    return (error, factor.energy(ofTransposed: weight, rows: count))
  }

  /// Writes the results where they belong in arrays of the whole weight, columns in their natural order.
  func store(_ order: [Int], weight out: UnsafeMutablePointer<Float>, mask flags: UnsafeMutablePointer<Bool>) {
    let count = rows.count
    for (position, column) in order.enumerated() {
      for (index, row) in rows.enumerated() {
        let (from, to) = (position * count + index, row * columns + column)
        out[to] = mask[from] ? 0 : target[from]
        flags[to] = mask[from]
      }
    }
  }
}
