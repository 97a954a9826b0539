import Models
import Tensors

/// GPTQ on some rows of a weight: rows do not depend on each other, so strips of them are solved in parallel.
///
/// Inside, columns lie in the order of the solve and every array is [columns × rows], which makes the rows the vector dimension.
struct GPTQStrip {
  let rows: Range<Int>
  let columns: Int
  private let order: [Int]
  private let positionOfColumn: [Int]
  let factor: SymmetricMatrix.UpperFactor
  private let importance: [Float]
  let search: ScaleSearch
  private let groupSize: Int
  private var weight: [Float]
  private var target: [Float]
  /// Targets minus what they were rounded to: (W − Q)·U.
  var remaining: [Float] = []
  private var errors: [Float]
  /// What the codes stand for in units of the scale: code − zero, or the value of a float code.
  var levels: [Float] = []
  var codes: [UInt8]
  private var scales: [Float]
  private var zeros: [Float]
  /// By [group × row].
  private(set) var groupScales: [Float]
  private(set) var groupZeros: [Float]
  /// Which weights become zero; empty where none has to.
  private(set) var isZero: [Bool] = []
  private let zeroChoice: ZeroChoice?

  init(
    _ source: Matrix, rows: Range<Int>, order: [Int], factor: SymmetricMatrix.UpperFactor, importance: [Float], search: ScaleSearch,
    groupSize: Int, zeros: SparsityMask?, choosing zeroChoice: ZeroChoice?
  ) {
    (self.rows, columns, self.order, self.factor) = (rows, source.columns, order, factor)
    var positions = order
    for (position, column) in order.enumerated() { positions[column] = position }
    positionOfColumn = positions
    (self.importance, self.search, self.groupSize, self.zeroChoice) = (importance, search, groupSize, zeroChoice)
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
    self.zeros = errors
    groupScales = Array(repeating: 1, count: source.columns / groupSize * rows.count)
    groupZeros = groupScales
    guard zeros != nil || zeroChoice != nil else { return }
    isZero = [Bool](repeating: false, count: count)
    guard let zeros else { return }
    for (position, column) in order.enumerated() {
      for (index, row) in rows.enumerated() { isZero[position * rows.count + index] = zeros.isPruned[row * source.columns + column] }
    }
  }

  private var topCode: Float { search.scheme.top }
  func group(ofPosition position: Int) -> Int { order[position] / groupSize }
  private func positions(of group: Int) -> ArraySlice<Int> { positionOfColumn[group * groupSize..<(group + 1) * groupSize] }

  /// - Parameters:
  ///   - fixedGroups: whether scales come from the original weights; otherwise each group's positions must be contiguous, and its scales
  ///     see the corrections made before it is reached.
  ///   - preset: scales that rows share, which are not the strip's to choose.
  mutating func solve(fixedGroups: Bool, preset: QuantizedMatrix?, blockSize: Int) {
    if let preset {
      take(preset)
    } else if fixedGroups {
      // Scales fixed beforehand are to fit what is likely to stay.
      chooseZeros(0..<columns)
      for group in 0..<columns / groupSize { chooseParameters(group, from: weight) }
    }
    var start = 0
    while start < columns {
      // A block never crosses a group whose scales are still to be chosen.
      let groupEnd = fixedGroups ? columns : (start / groupSize + 1) * groupSize
      let end = min(start + blockSize, groupEnd)
      if !fixedGroups, start % groupSize == 0 {
        correct(start..<groupEnd)
        chooseZeros(start..<groupEnd)
        chooseParameters(group(ofPosition: start), from: target)
      } else {
        correct(start..<end)
      }
      quantizeChoosing(start..<end)
      start = end
    }
    findLevels()
    remaining = [Float](unsafeUninitializedCapacity: target.count) { out, count in
      for at in target.indices { out[at] = target[at] - (weight[at] - errors[at]) }
      count = target.count
    }
  }

  private mutating func take(_ preset: QuantizedMatrix) {
    let height = preset.scheme.groupHeight(rows: preset.rows)
    for group in 0..<columns / groupSize {
      for (index, row) in rows.enumerated() {
        groupScales[group * rows.count + index] = preset.scales[row / height, group]
        groupZeros[group * rows.count + index] = preset.zeroPoints?[row / height, group] ?? search.scheme.middle
      }
    }
  }

  private mutating func findLevels() {
    let count = rows.count
    let format = search.scheme.grid == .float ? search.scheme.miniFloat : nil
    levels = [Float](unsafeUninitializedCapacity: target.count) { out, initialized in
      for position in 0..<columns {
        let parameters = group(ofPosition: position) * count
        for row in 0..<count {
          let at = position * count + row
          // What the kernel left is the error of a point of the grid; dividing it out again may be off by an ulp.
          out[at] =
            format?.rounded((weight[at] - errors[at]) / search.effective(groupScales[parameters + row]))
            ?? Float(codes[at]) - groupZeros[parameters + row]
        }
      }
      initialized = target.count
    }
    if let format { codes = format.encode(levels) }
  }

  /// The group's positions are taken in the order of its columns, so that the search's sums do not depend on the order of the solve.
  private mutating func chooseParameters(_ group: Int, from values: [Float]) {
    let positions = positions(of: group)
    let factors = positions.map { importance[order[$0]] }
    var part = [Float](repeating: 0, count: positions.count)
    for row in 0..<rows.count {
      for (index, position) in positions.enumerated() {
        let at = position * rows.count + row
        part[index] = isZero.isEmpty || !isZero[at] ? values[at] : 0
      }
      let chosen = part.withUnsafeBufferPointer { part in
        factors.withUnsafeBufferPointer { search.parameters(part, importance: $0.baseAddress) }
      }
      groupScales[group * rows.count + row] = chosen.scale
      groupZeros[group * rows.count + row] = chosen.zero
    }
  }

  /// Chooses what becomes zero among some columns, by what it costs with the corrections made so far and all of them kept.
  private mutating func chooseZeros(_ block: Range<Int>) {
    guard let zeroChoice else { return }
    let (count, from, columns) = (rows.count, block.lowerBound * rows.count, columns)
    var kept = Array(target[from..<block.upperBound * count])
    var (unused, none) = (kept, [Bool](repeating: false, count: kept.count))
    factor.unitUpper.withUnsafeElements { upper in
      weight.withUnsafeBufferPointer { weight in
        Kernel.sparseGPTBlock(
          target: &kept, weight: weight.baseAddress! + from, feedback: upper + block.lowerBound * columns + block.lowerBound,
          feedbackStride: columns, pivots: zeroChoice.pivots, choosing: nil, mask: &none, errors: &unused, columns: block.count, rows: count
        )
      }
    }
    let scores = Matrix(rows: count, columns: block.count) { out in
      for (index, position) in block.enumerated() {
        for row in 0..<count {
          let value = kept[index * count + row]
          out[row * block.count + index] = zeroChoice.pivots[position] * value * value
        }
      }
    }
    let mask = zeroChoice.mask(scores)
    for (index, position) in block.enumerated() {
      for row in 0..<count { isZero[position * count + row] = mask.isPruned[row * block.count + index] }
    }
  }

  /// Quantizes a block whose targets know of all columns before it, and chooses its zeros where they are still to be chosen.
  private mutating func quantizeChoosing(_ block: Range<Int>) {
    guard let zeroChoice else { return quantize(block) }
    guard case .grouped(_, let size) = zeroChoice.pattern else {
      chooseZeros(block)
      return quantize(block)
    }
    for start in stride(from: block.lowerBound, to: block.upperBound, by: size) {
      let group = start..<min(start + size, block.upperBound)
      correct(group, after: block.lowerBound)
      chooseZeros(group)
      quantize(group)
    }
  }

  /// target ← weight + Uᵀ·errors of all columns before the block.
  private mutating func correct(_ block: Range<Int>) {
    let count = rows.count
    let (from, to) = (block.lowerBound * count, block.upperBound * count)
    target.replaceSubrange(from..<to, with: weight[from..<to])
    correct(block, after: 0)
  }

  /// target ← target + Uᵀ·errors of the columns from `first` up to the block.
  private mutating func correct(_ block: Range<Int>, after first: Int) {
    let count = rows.count
    let (before, from) = (block.lowerBound - first, block.lowerBound * count)
    guard before > 0 else { return }
    let columns = columns
    factor.unitUpper.withUnsafeElements { upper in
      errors.withUnsafeBufferPointer { errors in
        target.withUnsafeMutableBufferPointer { target in
          BLAS.product(
            upper + first * columns + block.lowerBound, stride: columns, leftTransposed: true, errors.baseAddress! + first * count,
            stride: count, rows: block.count, columns: count, inner: before, beta: 1, into: target.baseAddress! + from, stride: count)
        }
      }
    }
  }

  private mutating func quantize(_ block: Range<Int>) {
    let count = rows.count
    for position in block {
      let first = group(ofPosition: position) * count
      for row in 0..<count { scales[position * count + row] = search.effective(groupScales[first + row]) }
      zeros.replaceSubrange(position * count..<(position + 1) * count, with: groupZeros[first..<first + count])
    }
    let from = block.lowerBound * count
    // On a grid as fine as this, all points are zero to a weight.
    if !isZero.isEmpty { for at in from..<block.upperBound * count where isZero[at] { scales[at] = 1e-30 } }
    defer { settleZeros(block) }
    let (start, columns, top) = (block.lowerBound, columns, topCode)
    let format = search.scheme.grid == .float ? search.scheme.miniFloat : nil
    factor.unitUpper.withUnsafeElements { upper in
      target.withUnsafeMutableBufferPointer { target in
        codes.withUnsafeMutableBufferPointer { codes in
          errors.withUnsafeMutableBufferPointer { errors in
            weight.withUnsafeBufferPointer { weight in
              scales.withUnsafeBufferPointer { scales in
                zeros.withUnsafeBufferPointer { zeros in
                  if let format {
                    Kernel.gptqBlock(
                      target: target.baseAddress! + from, weight: weight.baseAddress! + from,
                      feedback: upper + start * columns + start, feedbackStride: columns, scales: scales.baseAddress! + from, grid: format,
                      errors: errors.baseAddress! + from, columns: block.count, rows: count)
                    return
                  }
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

  /// What became zero has the code of zero and an error of all it was.
  private mutating func settleZeros(_ block: Range<Int>) {
    guard !isZero.isEmpty else { return }
    for at in block.lowerBound * rows.count..<block.upperBound * rows.count where isZero[at] {
      codes[at] = UInt8(zeros[at])
      errors[at] = weight[at]
    }
  }

  /// Moves the scales to where the whole loss, not each group's own error, is smallest for the codes found.
  ///
  /// Coordinate descent over the groups: with C the codes' distances from the zero point in one group, the loss as a function of its scale is
  /// a parabola whose axis is Σᵢ Dᵢ·(UᵀC)ᵢ·dᵢ / Σᵢ Dᵢ·(UᵀC)ᵢ² from where it is, d being what remains of the targets.
  mutating func refitScales(sweeps: Int = 1) {
    let (count, size, columns) = (rows.count, groupSize, columns)
    var upperRows = [Float](repeating: 0, count: size * columns)
    var distances = [Float](repeating: 0, count: size * count)
    var reach = [Float](repeating: 0, count: columns * count)
    var step = [Float](repeating: 0, count: count)
    for _ in 0..<sweeps {
      for group in 0..<columns / size {
        let positions = positions(of: group)
        let parameters = group * count
        for (index, position) in positions.enumerated() {
          factor.unitUpper.withUnsafeElements { upper in
            upperRows.withUnsafeMutableBufferPointer {
              $0.baseAddress!.advanced(by: index * columns).update(from: upper + position * columns, count: columns)
            }
          }
          for row in 0..<count { distances[index * count + row] = levels[position * count + row] }
        }
        // Nothing before the group's first position is reached.
        let first = positions.min() ?? 0
        reach.withUnsafeMutableBufferPointer { out in
          upperRows.withUnsafeBufferPointer { upper in
            BLAS.product(
              upper.baseAddress! + first, stride: columns, leftTransposed: true, distances, stride: count, rows: columns - first,
              columns: count, inner: size, into: out.baseAddress! + first * count, stride: count)
          }
        }
        let gradient = weightedProducts(reach, remaining, from: first)
        let curvature = weightedProducts(reach, reach, from: first)
        for row in 0..<count {
          let scale = groupScales[parameters + row]
          let divisor = search.divisor
          let better = curvature[row] > 0 ? search.stored(scale + divisor * gradient[row] / curvature[row]) : scale
          // A scale that shrinks to nothing or turns its sign belongs to a group whose codes are wrong, not its scale.
          let taken = (0.25..<4).contains(better / scale) ? better : scale
          step[row] = search.effective(taken) - search.effective(scale)
          groupScales[parameters + row] = taken
        }
        remaining.withUnsafeMutableBufferPointer { remaining in
          for position in first..<columns {
            for row in 0..<count { remaining[position * count + row] -= step[row] * reach[position * count + row] }
          }
        }
      }
    }
  }

  /// Σᵢ Dᵢ·aᵢ·bᵢ for every row, over the positions from `first` on.
  private func weightedProducts(_ a: [Float], _ b: [Float], from first: Int) -> [Float] {
    let count = rows.count
    var sums = [Float](repeating: 0, count: count)
    for position in first..<columns {
      let pivot = Float(factor.pivots[position])
      let at = position * count
      for row in 0..<count { sums[row] += pivot * a[at + row] * b[at + row] }
    }
    return sums
  }

  /// Σᵢ Dᵢ·‖tᵢ − qᵢ‖² and Σᵢ Dᵢ·‖(W·U)ᵢ‖²: the losses of the quantized rows and of no rows at all.
  func loss() -> (error: Double, norm: Double) {
    let count = rows.count
    let error = remaining.withUnsafeBufferPointer { remaining in
      (0..<columns).reduce(0.0) { sum, position in
        sum + factor.pivots[position] * Kernel.squaredDistance(remaining.baseAddress! + position * count, nil, count: count)
      }
    }
    return (error, factor.energy(ofTransposed: weight, rows: count))
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
        outScales[(rows.lowerBound + row) * groups + group] = groupScales[group * rows.count + row]
        outZeros[(rows.lowerBound + row) * groups + group] = groupZeros[group * rows.count + row]
      }
    }
  }
}
