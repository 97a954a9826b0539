import Models
import Tensors

/// GPTQ on some rows of a weight: rows do not depend on each other, so strips of them are solved in parallel.
///
/// Inside, columns lie in the order of the solve and every array is [columns × rows], which makes the rows the vector dimension.
struct GPTQStrip {
  private let rows: Range<Int>
  private let columns: Int
  private let order: [Int]
  private let factor: SymmetricMatrix.UpperFactor
  private let importance: [Float]
  private let search: ScaleSearch
  private let groupSize: Int
  private var weight: [Float]
  private var target: [Float]
  private var errors: [Float]
  private var codes: [UInt8]
  private var scales: [Float]
  private var zeros: [Float]
  /// Scale and zero point by [group × row].
  private var parameters: [GroupParameters]

  init(
    _ source: Matrix, rows: Range<Int>, order: [Int], factor: SymmetricMatrix.UpperFactor, importance: [Float], search: ScaleSearch,
    groupSize: Int
  ) {
    (self.rows, columns, self.order, self.factor) = (rows, source.columns, order, factor)
    (self.importance, self.search, self.groupSize) = (importance, search, groupSize)
    let count = columns * rows.count
    weight = [Float](unsafeUninitializedCapacity: count) { out, initialized in
      for (position, column) in order.enumerated() {
        for row in rows { out[position * rows.count + row - rows.lowerBound] = source[row, column] }
      }
      initialized = count
    }
    target = weight
    errors = Array(repeating: 0, count: count)
    codes = Array(repeating: 0, count: count)
    scales = errors
    zeros = errors
    parameters = Array(repeating: GroupParameters(scale: 1, zero: 0), count: source.columns / groupSize * rows.count)
  }

  private var topCode: Float { search.scheme.top }
  private func group(ofPosition position: Int) -> Int { order[position] / groupSize }

  /// - Parameter fixedGroups: whether scales come from the original weights; otherwise each group's positions must be contiguous, and its
  ///   scales see the corrections made before it is reached.
  mutating func solve(fixedGroups: Bool, blockSize: Int) {
    if fixedGroups {
      for group in 0..<columns / groupSize { chooseParameters(group, from: weight, positions: positions(of: group)) }
    }
    var start = 0
    while start < columns {
      // A block never crosses a group whose scales are still to be chosen.
      let groupEnd = fixedGroups ? columns : (start / groupSize + 1) * groupSize
      let end = min(start + blockSize, groupEnd)
      if !fixedGroups, start % groupSize == 0 {
        correct(start..<groupEnd)
        chooseParameters(group(ofPosition: start), from: target, positions: Array(start..<groupEnd))
      } else {
        correct(start..<end)
      }
      quantize(start..<end)
      start = end
    }
  }

  private func positions(of group: Int) -> [Int] {
    order.indices.filter { order[$0] / groupSize == group }
  }

  private mutating func chooseParameters(_ group: Int, from values: [Float], positions: [Int]) {
    // In the order of the columns, so that the sums of the search do not depend on the order of the solve.
    let positions = positions.sorted { order[$0] < order[$1] }
    let factors = positions.map { importance[order[$0]] }
    var part = [Float](repeating: 0, count: positions.count)
    for row in 0..<rows.count {
      for (index, position) in positions.enumerated() { part[index] = values[position * rows.count + row] }
      let chosen = part.withUnsafeBufferPointer { part in
        factors.withUnsafeBufferPointer { search.parameters(part, importance: $0.baseAddress) }
      }
      parameters[group * rows.count + row] = chosen
    }
  }

  /// target ← weight + Uᵀ·errors of all columns before the block.
  private mutating func correct(_ block: Range<Int>) {
    let count = rows.count
    let (before, from, to) = (block.lowerBound, block.lowerBound * count, block.upperBound * count)
    target.replaceSubrange(from..<to, with: weight[from..<to])
    guard before > 0 else { return }
    let columns = columns
    factor.unitUpper.withUnsafeElements { upper in
      errors.withUnsafeBufferPointer { errors in
        target.withUnsafeMutableBufferPointer { target in
          BLAS.product(
            upper + before, stride: columns, leftTransposed: true, errors.baseAddress!, stride: count, rows: block.count, columns: count,
            inner: before, beta: 1, into: target.baseAddress! + from, stride: count)
        }
      }
    }
  }

  private mutating func quantize(_ block: Range<Int>) {
    let count = rows.count
    for position in block {
      let group = group(ofPosition: position)
      for row in 0..<count {
        scales[position * count + row] = parameters[group * count + row].scale
        zeros[position * count + row] = parameters[group * count + row].zero
      }
    }
    let from = block.lowerBound * count
    let (start, columns, top) = (block.lowerBound, columns, topCode)
    factor.unitUpper.withUnsafeElements { upper in
      target.withUnsafeMutableBufferPointer { target in
        codes.withUnsafeMutableBufferPointer { codes in
          errors.withUnsafeMutableBufferPointer { errors in
            weight.withUnsafeBufferPointer { weight in
              scales.withUnsafeBufferPointer { scales in
                zeros.withUnsafeBufferPointer { zeros in
                  Kernel.gptqBlock(
                    target: target.baseAddress! + from, weight: weight.baseAddress! + from,
                    feedback: upper + start * columns + start, feedbackStride: columns, scales: scales.baseAddress! + from,
                    zeros: zeros.baseAddress! + from, top: top, codes: codes.baseAddress! + from, errors: errors.baseAddress! + from,
                    columns: block.count, rows: count)
                }
              }
            }
          }
        }
      }
    }
  }

  /// Σᵢ Dᵢ·‖tᵢ − qᵢ‖² and Σᵢ Dᵢ·‖(W·U)ᵢ‖²: the losses of the quantized rows and of no rows at all.
  func loss() -> (error: Double, norm: Double) {
    let count = rows.count
    var transformed = [Float](repeating: 0, count: columns * count)
    factor.unitUpper.withUnsafeElements { upper in
      transformed.withUnsafeMutableBufferPointer { out in
        weight.withUnsafeBufferPointer { weight in
          BLAS.product(
            upper, stride: columns, leftTransposed: true, weight.baseAddress!, stride: count, rows: columns, columns: count, inner: columns,
            into: out.baseAddress!, stride: count)
        }
      }
    }
    var (error, norm) = (0.0, 0.0)
    for position in 0..<columns {
      var (squares, full) = (Float(0), Float(0))
      for at in position * count..<(position + 1) * count {
        let difference = target[at] - (weight[at] - errors[at])
        squares += difference * difference
        full += transformed[at] * transformed[at]
      }
      error += factor.pivots[position] * Double(squares)
      norm += factor.pivots[position] * Double(full)
    }
    return (error, norm)
  }

  /// Writes the results where they belong in arrays of the whole weight, columns in their natural order.
  func store(
    codes out: UnsafeMutableBufferPointer<UInt8>, scales outScales: UnsafeMutableBufferPointer<Float>,
    zeros outZeros: UnsafeMutableBufferPointer<Float>
  ) {
    let groups = columns / groupSize
    for (position, column) in order.enumerated() {
      for row in 0..<rows.count { out[(rows.lowerBound + row) * columns + column] = codes[position * rows.count + row] }
    }
    for group in 0..<groups {
      for row in 0..<rows.count {
        outScales[(rows.lowerBound + row) * groups + group] = parameters[group * rows.count + row].scale
        outZeros[(rows.lowerBound + row) * groups + group] = parameters[group * rows.count + row].zero
      }
    }
  }
}
