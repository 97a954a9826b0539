import Models
import Tensors

extension GPTQStrip {
  /// Moves codes, one at a time, to where the whole loss is smallest with all others as they are.
  ///
  /// The solve fixes each code before the columns after it are known; afterwards a few of them have better neighbours. With the scales moved in
  /// between, this is coordinate descent on codes and scales. The loss never grows.
  ///
  /// - Parameter hessian: the damped H in the order of the solve.
  mutating func descend(_ hessian: Matrix, blockSize: Int) {
    let (count, columns, top) = (rows.count, columns, search.scheme.top)
    var gradient = self.gradient()
    var moves = [Float](repeating: 0, count: columns * count)
    let (scales, zeros) = parameters()
    for start in stride(from: 0, to: columns, by: blockSize) {
      let end = min(start + blockSize, columns)
      let from = start * count
      gradient.withUnsafeMutableBufferPointer { gradient in
        moves.withUnsafeMutableBufferPointer { moves in
          hessian.withUnsafeElements { hessian in
            levels.withUnsafeMutableBufferPointer { levels in
              Kernel.descendBlock(
                gradient: gradient.baseAddress! + from, hessian: hessian + start * columns + start, hessianStride: columns,
                scales: Array(scales[from..<end * count]), zeros: Array(zeros[from..<end * count]), top: top,
                levels: levels.baseAddress! + from, moves: moves.baseAddress! + from, columns: end - start, rows: count)
            }
            // Only columns still to come need to know.
            guard end < columns else { return }
            BLAS.product(
              hessian + start * columns + end, stride: columns, leftTransposed: true, moves.baseAddress! + from, stride: count,
              rows: columns - end, columns: count, inner: end - start, beta: 1, into: gradient.baseAddress! + end * count, stride: count)
          }
        }
      }
    }
    take(moves, zeros: zeros)
  }

  /// (W − Q)·H = (W − Q)·U·D·Uᵀ, from what remains of the targets.
  private func gradient() -> [Float] {
    let (count, columns) = (rows.count, columns)
    var weighted = remaining
    for position in 0..<columns {
      let pivot = Float(factor.pivots[position])
      for at in position * count..<(position + 1) * count { weighted[at] *= pivot }
    }
    return [Float](filling: columns * count) { out in
      factor.unitUpper.withUnsafeElements { upper in
        weighted.withUnsafeBufferPointer { weighted in
          // U is upper triangular: left of the diagonal its rows are zero.
          for tile in Self.tiles(of: columns) {
            BLAS.product(
              upper + tile.lowerBound * columns + tile.lowerBound, stride: columns, weighted.baseAddress! + tile.lowerBound * count,
              stride: count, rows: tile.count, columns: count, inner: columns - tile.lowerBound,
              into: out.baseAddress! + tile.lowerBound * count, stride: count)
          }
        }
      }
    }
  }

  private static func tiles(of count: Int) -> [Range<Int>] { stride(from: 0, to: count, by: 256).map { $0..<min($0 + 256, count) } }

  /// The scales and zero points of every weight; a scale of 0 where the weight has to stay zero.
  private func parameters() -> (scales: [Float], zeros: [Float]) {
    let count = rows.count
    var (scales, zeros) = ([Float](repeating: 0, count: columns * count), [Float](repeating: 0, count: columns * count))
    for position in 0..<columns {
      let first = group(ofPosition: position) * count
      for row in 0..<count {
        let at = position * count + row
        zeros[at] = groupZeros[first + row]
        if isZero.isEmpty || !isZero[at] { scales[at] = search.effective(groupScales[first + row]) }
      }
    }
    return (scales, zeros)
  }

  /// Takes what was moved into the codes and the remaining targets: (W − Q)·U grows by moves · U.
  private mutating func take(_ moves: [Float], zeros: [Float]) {
    let (count, columns) = (rows.count, columns)
    for at in levels.indices { codes[at] = UInt8(levels[at] + zeros[at]) }
    factor.unitUpper.withUnsafeElements { upper in
      remaining.withUnsafeMutableBufferPointer { remaining in
        for tile in Self.tiles(of: columns) {
          BLAS.product(
            upper + tile.lowerBound, stride: columns, leftTransposed: true, moves, stride: count, rows: tile.count, columns: count,
            inner: tile.upperBound, beta: 1, into: remaining.baseAddress! + tile.lowerBound * count, stride: count)
        }
      }
    }
  }
}
