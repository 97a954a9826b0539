internal import Foundation
import Tensors

/// One sequence's way back through linear attention, with the names of `LinearAttention.pullback`.
struct LinearAttentionPullback {
  let attention: LinearAttention
  let queries, keys, values, gradient: UnsafePointer<Float>
  let queryGradient, keyGradient, valueGradient: UnsafeMutablePointer<Float>
  let decays: Matrix
  let strengths: Matrix?
  let tape: LinearAttention.Tape
  let work: PullbackWorkspace

  private var group: Int { attention.heads / attention.keyHeads }
  private var keySize: Int { attention.keySize }
  private var valueSize: Int { attention.valueSize }
  private var keyStride: Int { attention.keyHeads * keySize }
  private var valueStride: Int { attention.heads * valueSize }
  private var memory: Int { keySize * valueSize }

  /// A chunk of tokens as one head sees them.
  private struct Part {
    let rows: Range<Int>
    let head: Int
    /// The head among those that share its key head.
    let member: Int
    /// G, f and w.
    let sums, fades, rests: [Float]
    /// Whether there are tokens before and behind it: without them, S or dS' is zero.
    let hasPast, hasFuture: Bool
    var count: Int { rows.count }
  }

  private func part(_ chunk: Int, _ keyHead: Int, _ member: Int) -> Part {
    let first = chunk * attention.chunk
    let (rows, head) = (first..<min(first + attention.chunk, decays.rows), keyHead * group + member)
    var sum: Float = 0
    let sums = rows.map { row -> Float in
      sum += decays[row, head]
      return sum
    }
    return Part(
      rows: rows, head: head, member: member, sums: sums, fades: sums.map { exp($0) }, rests: sums.map { exp(sum - $0) },
      hasPast: chunk > 0, hasFuture: rows.upperBound < decays.rows)
  }

  /// X and the stride of its rows.
  private func updates(_ part: Part) -> (elements: UnsafePointer<Float>, stride: Int) {
    let first = part.rows.lowerBound
    guard strengths != nil else { return (values + first * valueStride + part.head * valueSize, valueStride) }
    return (UnsafePointer(tape.updates(part.head, from: first)), valueSize)
  }

  /// Left · Kᵀ of a chunk, [chunk × chunk].
  private func overlap(_ left: UnsafePointer<Float>, _ key: UnsafePointer<Float>, count: Int, into result: UnsafeMutablePointer<Float>) {
    BLAS.product(
      left, stride: keyStride, key, stride: keyStride, rightTransposed: true, rows: count, columns: count, inner: keySize, into: result,
      stride: count)
  }

  /// Rows of values times a number each, into `scaled`.
  private func scale(_ rows: UnsafePointer<Float>, stride: Int, by factors: [Float]) {
    for (row, factor) in factors.enumerated() {
      let (from, to) = (rows + row * stride, work.scaled + row * valueSize)
      for column in 0..<valueSize { to[column] = factor * from[column] }
    }
  }

  /// All chunks of the heads that share a key head, the last one first.
  func pull(_ keyHead: Int, decays decayGradient: inout Matrix, strengths strengthGradient: inout Matrix?) {
    work.carried.update(repeating: 0, count: group * memory)
    for chunk in (0..<(decays.rows + attention.chunk - 1) / attention.chunk).reversed() {
      pull(keyHead, chunk: chunk, decays: &decayGradient, strengths: &strengthGradient)
    }
  }

  /// One chunk of the heads that share a key head; takes dS' from `carried` and leaves dS there.
  private func pull(_ keyHead: Int, chunk: Int, decays decayGradient: inout Matrix, strengths strengthGradient: inout Matrix?) {
    let first = chunk * attention.chunk
    let (count, offset) = (min(attention.chunk, decays.rows - first), first * keyStride + keyHead * keySize)
    let (query, key) = (queries + offset, keys + offset)
    overlap(query, key, count: count, into: work.scores)
    work.scoreGradient.update(repeating: 0, count: count * count)
    if strengths != nil {
      overlap(key, key, count: count, into: work.overlaps)
      work.overlapGradient.update(repeating: 0, count: count * count)
    }
    for member in 0..<group {
      let part = part(chunk, keyHead, member)
      // In double: what a token adds to one sum and takes from another cancels.
      var sums = [Double](repeating: 0, count: count)
      pullOutputs(part, query, key, tape.memory(part.head, from: first), &sums)
      if let strengths {
        pullDelta(part, key, tape.memory(part.head, from: first), strengths, &sums, &strengthGradient!)
      } else {
        put(part) { _ in 1 }
      }
      var sum = 0.0
      for row in (0..<count).reversed() {
        sum += sums[row]
        decayGradient[first + row, part.head] = Float(sum)
      }
    }
    func add(_ gradient: UnsafePointer<Float>, transposed: Bool, _ other: UnsafePointer<Float>, to result: UnsafeMutablePointer<Float>) {
      BLAS.product(
        gradient, stride: count, leftTransposed: transposed, other, stride: keyStride, rows: count, columns: keySize, inner: count, beta: 1,
        into: result + offset, stride: keyStride)
    }
    add(work.scoreGradient, transposed: false, key, to: queryGradient)
    add(work.scoreGradient, transposed: true, query, to: keyGradient)
    guard strengths != nil else { return }
    add(work.overlapGradient, transposed: false, key, to: keyGradient)
    add(work.overlapGradient, transposed: true, key, to: keyGradient)
  }

  /// Values' gradients: those of X times a number for each row.
  private func put(_ part: Part, factor: (Int) -> Float) {
    for row in 0..<part.count {
      let to = valueGradient + (part.rows.lowerBound + row) * valueStride + part.head * valueSize
      let (from, factor) = (work.updateGradient + row * valueSize, factor(row))
      for column in 0..<valueSize { to[column] = factor * from[column] }
    }
  }
}

extension LinearAttentionPullback {
  /// The part of a head's way back that is the same with and without the delta rule: leaves dX and D, and dS for dS'.
  private func pullOutputs(
    _ part: Part, _ query: UnsafePointer<Float>, _ key: UnsafePointer<Float>, _ past: UnsafePointer<Float>, _ sums: inout [Double]
  ) {
    let (count, last) = (part.count, part.count - 1)
    let output = gradient + part.rows.lowerBound * valueStride + part.head * valueSize
    let (update, updateStride) = updates(part)
    let carried = work.carried + part.member * memory
    for row in 0..<count {
      let start = row * count
      let (left, faded, scores) = (work.left + start, work.faded + start, work.scores + start)
      for column in 0...row { left[column] = exp(part.sums[row] - part.sums[column]) }
      for column in 0...row { faded[column] = scores[column] * left[column] }
      (faded + row + 1).update(repeating: 0, count: last - row)
    }
    // dX.
    if part.hasFuture {
      BLAS.product(
        key, stride: keyStride, carried, stride: valueSize, rows: count, columns: valueSize, inner: keySize, into: work.updateGradient,
        stride: valueSize)
      for row in 0..<count {
        let (rest, elements) = (part.rests[row], work.updateGradient + row * valueSize)
        for column in 0..<valueSize { elements[column] *= rest }
      }
    }
    BLAS.product(
      work.faded, stride: count, leftTransposed: true, output, stride: valueStride, rows: count, columns: valueSize, inner: count,
      beta: part.hasFuture ? 1 : 0, into: work.updateGradient, stride: valueSize)
    // A and E.
    BLAS.product(
      output, stride: valueStride, update, stride: updateStride, rightTransposed: true, rows: count, columns: count, inner: valueSize,
      into: work.pulled, stride: count)
    for row in 0..<count {
      let start = row * count
      let (left, faded, pulled, below) = (work.left + start, work.faded + start, work.pulled + start, work.scoreGradient + start)
      for column in 0...row { below[column] += pulled[column] * left[column] }
      for column in 0..<row { pulled[column] *= faded[column] }
      addDifferences(pulled, row, &sums)
    }
    if part.hasFuture {
      // M.
      BLAS.product(
        update, stride: updateStride, carried, stride: valueSize, rightTransposed: true, rows: count, columns: keySize, inner: valueSize,
        into: work.wide, stride: keySize)
      for row in 0..<count {
        let faded = Double(part.rests[row] * spread(row, of: part, key, factor: part.rests[row], to: keyGradient))
        sums[row] -= faded
        sums[last] += faded
      }
      sums[last] += Double(part.fades[last] * scalarProduct(past, carried, count: memory))
    }
    guard part.hasPast else { return }
    // T.
    BLAS.product(
      output, stride: valueStride, past, stride: valueSize, rightTransposed: true, rows: count, columns: keySize, inner: valueSize,
      into: work.wide, stride: keySize)
    for row in 0..<count {
      sums[row] += Double(part.fades[row] * spread(row, of: part, query, factor: part.fades[row], to: queryGradient))
    }
    // dS.
    scale(output, stride: valueStride, by: part.fades)
    BLAS.product(
      query, stride: keyStride, leftTransposed: true, work.scaled, stride: valueSize, rows: keySize, columns: valueSize, inner: count,
      beta: part.fades[last], into: carried, stride: valueSize)
  }

  /// What the delta rule adds to it: takes dX and leaves the values' gradients.
  private func pullDelta(
    _ part: Part, _ key: UnsafePointer<Float>, _ past: UnsafePointer<Float>, _ strengths: Matrix, _ sums: inout [Double],
    _ strengthGradient: inout Matrix
  ) {
    let (count, first) = (part.count, part.rows.lowerBound)
    let strength = part.rows.map { strengths[$0, part.head] }
    let (update, updateStride) = updates(part)
    for row in 0..<count {
      let start = row * count
      let (left, faded, overlaps) = (work.left + start, work.faded + start, work.overlaps + start)
      for column in 0..<row { faded[column] = strength[row] * overlaps[column] * left[column] }
    }
    // Y.
    BLAS.solveUnitLower(work.faded, size: count, transposed: true, work.updateGradient, columns: valueSize)
    // B, and H.
    BLAS.product(
      work.updateGradient, stride: valueSize, update, stride: updateStride, rightTransposed: true, rows: count, columns: count,
      inner: valueSize, alpha: -1, into: work.pulled, stride: count)
    if part.hasPast {
      BLAS.product(
        work.updateGradient, stride: valueSize, past, stride: valueSize, rightTransposed: true, rows: count, columns: keySize,
        inner: valueSize, into: work.wide, stride: keySize)
    }
    for row in 0..<count {
      let start = row * count
      let (left, pulled, overlaps, below) = (work.left + start, work.pulled + start, work.overlaps + start, work.overlapGradient + start)
      for column in 0..<row { pulled[column] *= left[column] }
      let inside = scalarProduct(pulled, overlaps, count: row)
      for column in 0..<row { below[column] += strength[row] * pulled[column] }
      for column in 0..<row { pulled[column] *= strength[row] * overlaps[column] }
      addDifferences(pulled, row, &sums)
      let fade = part.fades[row]
      let held = !part.hasPast ? 0 : spread(row, of: part, key, factor: -fade * strength[row], to: keyGradient)
      sums[row] -= Double(fade * strength[row] * held)
      let value = values + (first + row) * valueStride + part.head * valueSize
      strengthGradient[first + row, part.head] =
        scalarProduct(work.updateGradient + row * valueSize, value, count: valueSize) - fade * held + inside
    }
    put(part) { strength[$0] }
    guard part.hasPast else { return }
    scale(work.updateGradient, stride: valueSize, by: zip(part.fades, strength).map { -$0 * $1 })
    BLAS.product(
      key, stride: keyStride, leftTransposed: true, work.scaled, stride: valueSize, rows: keySize, columns: valueSize, inner: count,
      beta: 1, into: work.carried + part.member * memory, stride: valueSize)
  }

  /// A row of gradients of Gᵢ − Gⱼ for j < i, to those of G.
  private func addDifferences(_ gradients: UnsafePointer<Float>, _ row: Int, _ sums: inout [Double]) {
    var sum = 0.0
    for column in 0..<row {
      let gradient = Double(gradients[column])
      sum += gradient
      sums[column] -= gradient
    }
    sums[row] += sum
  }

  /// Adds a row of `wide`, times a factor, to the gradient of queries or keys.
  ///
  /// - Returns: the scalar product of that row of `wide` with the query or key.
  private func spread(
    _ row: Int, of part: Part, _ states: UnsafePointer<Float>, factor: Float, to result: UnsafeMutablePointer<Float>
  ) -> Float {
    let keyHead = part.head / group
    let (from, to) = (work.wide + row * keySize, result + (part.rows.lowerBound + row) * keyStride + keyHead * keySize)
    for column in 0..<keySize { to[column] += factor * from[column] }
    return scalarProduct(from, states + row * keyStride, count: keySize)
  }
}
