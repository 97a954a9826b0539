import Models
import Tensors

/// Moves codes and scales of a quantized weight to where tr(H_O · E · H_I · Eᵀ) is smallest, E = W − Ŵ: how much the predictions of the whole
/// model change, with their curvature taken as a product of what enters the linear and what its output is worth (Tseng et al. 2025, "YAQA").
///
/// GPTQ has chosen codes by H_I alone, row by row. H_O couples the rows: the error of one output is made up for by others whose effect on the
/// predictions is alike. This is coordinate descent, one column after the other and in it one row after the other, with the scales of a group
/// following its codes; the loss never grows.
struct TwoSidedDescent {
  /// H_I, damped, [inputs × inputs].
  let input: Matrix
  /// H_O, damped, [outputs × outputs].
  let output: Matrix
  /// W.
  let weight: Matrix
  /// Whether scales follow.
  let refits: Bool

  private var rows: Int { weight.rows }
  private var columns: Int { weight.columns }

  /// - Parameters:
  ///   - quantized: integers with whole zero points or none, in groups that are runs of columns of one row.
  ///   - zeros: which weights stay zero.
  /// - Returns: the weight that was found, and its loss as a share of that of `quantized`.
  func refined(_ quantized: QuantizedMatrix, rounds: Int, zeros: SparsityMask?) -> (quantized: QuantizedMatrix, share: Double) {
    var state = State(quantized, weight: weight, output: output, zeros: zeros)
    let before = loss(state)
    for _ in 0..<rounds {
      for group in 0..<state.groups {
        let columns = group * state.groupSize..<min((group + 1) * state.groupSize, columns)
        var gradient = self.gradient(state, columns)
        descend(&state, &gradient, columns, group)
        if refits { refit(&state, gradient, columns, group) }
      }
    }
    let after = loss(state)
    guard before > 0, after < before else { return (quantized, 1) }
    return (state.quantized(like: quantized), after / before)
  }

  /// What moves, column by column where rows are visited one after the other.
  private struct State {
    /// Codes less zero points, [columns × rows].
    var levels: [Float]
    /// [columns × rows]; 1 where a weight may move.
    var free: [Bool]
    /// [groups × rows].
    var scales: [Float]
    /// [groups × rows].
    let zeroPoints: [Float]
    /// H_O · E, [rows × columns].
    var weighted: Matrix
    /// E, [rows × columns].
    var error: Matrix
    let top: Float
    let scaleType: DType
    let groups: Int
    let groupSize: Int

    init(_ quantized: QuantizedMatrix, weight: Matrix, output: Matrix, zeros: SparsityMask?) {
      let (rows, columns) = (quantized.rows, quantized.columns)
      (groups, groupSize) = (quantized.scales.columns, quantized.groupSize)
      top = quantized.scheme.top
      scaleType = quantized.scheme.scaleType
      let middle = quantized.scheme.middle
      scales = quantized.scales.transposed().elements
      zeroPoints = quantized.zeroPoints?.transposed().elements ?? Array(repeating: middle, count: scales.count)
      var (levels, free) = ([Float](repeating: 0, count: rows * columns), [Bool](repeating: true, count: rows * columns))
      for row in 0..<rows {
        for column in 0..<columns {
          let place = column * rows + row
          levels[place] = Float(quantized.codes[row * columns + column]) - zeroPoints[column / groupSize * rows + row]
          if let zeros { free[place] = !zeros.isPruned[row * columns + column] }
        }
      }
      (self.levels, self.free) = (levels, free)
      error = weight
      error.subtract(quantized.dense())
      weighted = output.spreadTimes(error)
    }

    func quantized(like old: QuantizedMatrix) -> QuantizedMatrix {
      let (rows, columns) = (old.rows, old.columns)
      var codes = old.codes
      for row in 0..<rows {
        for column in 0..<columns {
          codes[row * columns + column] = UInt8(levels[column * rows + row] + zeroPoints[column / groupSize * rows + row])
        }
      }
      return QuantizedMatrix(
        scheme: old.scheme, rows: rows, columns: columns, codes: codes,
        scales: Matrix(rows: groups, columns: rows, elements: scales).transposed(), zeroPoints: old.zeroPoints)
    }
  }

  private func loss(_ state: State) -> Double {
    let product = state.weighted.spreadTimes(input)
    return product.withUnsafeElements { product in
      state.error.withUnsafeElements { error in
        (0..<rows).reduce(0.0) { sum, row in
          var part: Float = 0
          for place in row * columns..<(row + 1) * columns { part += product[place] * error[place] }
          return sum + Double(part)
        }
      }
    }
  }

  /// (H_O · E · H_I) of some columns, column by column, [columns × rows].
  private func gradient(_ state: State, _ range: Range<Int>) -> Matrix {
    let (rows, columns, width) = (rows, columns, range.count)
    let strip = 128
    return Matrix(rows: width, columns: rows) { out in
      input.withUnsafeElements { input in
        state.weighted.withUnsafeElements { weighted in
          nonisolated(unsafe) let (out, input, weighted) = (out.baseAddress!, input, weighted)
          Parallel.forEach((rows + strip - 1) / strip) { index in
            let (first, count) = (index * strip, min(strip, rows - index * strip))
            BLAS.product(
              input + range.lowerBound * columns, stride: columns, weighted + first * columns, stride: columns, rightTransposed: true,
              rows: width, columns: count, inner: columns, into: out + first, stride: rows)
          }
        }
      }
    }
  }

  /// Codes of a group's columns.
  private func descend(_ state: inout State, _ gradient: inout Matrix, _ range: Range<Int>, _ group: Int) {
    let (rows, columns, width) = (rows, columns, range.count)
    // By column, what every row moved by, and H_O times that.
    var (moves, pulled) = (Matrix(rows: width, columns: rows), Matrix(rows: width, columns: rows))
    let (top, first) = (state.top, group * rows)
    gradient.withUnsafeMutableElements { gradient in
      moves.withUnsafeMutableElements { moves in
        pulled.withUnsafeMutableElements { pulled in
          output.withUnsafeElements { output in
            input.withUnsafeElements { input in
              state.levels.withUnsafeMutableBufferPointer { levels in
                state.scales.withUnsafeBufferPointer { scales in
                  for (place, column) in range.enumerated() {
                    let (g, own, v) = (gradient + place * rows, moves + place * rows, pulled + place * rows)
                    let curvature = input[column * columns + column]
                    var moved = false
                    for row in 0..<rows where state.free[column * rows + row] {
                      let scale = scales[first + row]
                      guard scale != 0 else { continue }
                      let (at, zero) = (column * rows + row, state.zeroPoints[first + row])
                      let best = (g[row] - curvature * v[row]) / (output[row * rows + row] * curvature * scale)
                      let level = max(-zero, min((levels[at] + best).rounded(.toNearestOrEven), top - zero))
                      guard level != levels[at] else { continue }
                      let step = scale * (level - levels[at])
                      (levels[at], own[row], moved) = (level, step, true)
                      let pull = output + row * rows
                      for other in 0..<rows { v[other] += step * pull[other] }
                    }
                    guard moved else { continue }
                    // All columns of the group see what has changed, those behind too: scales follow from their gradients.
                    for other in 0..<width {
                      let (factor, to) = (input[column * columns + range.lowerBound + other], gradient + other * rows)
                      for row in 0..<rows { to[row] -= factor * v[row] }
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
    state.error.subtract(columnsOf: moves, at: range.lowerBound)
    state.weighted.subtract(columnsOf: pulled, at: range.lowerBound)
  }

  /// Scales of a group, one row after the other.
  private func refit(_ state: inout State, _ gradient: Matrix, _ range: Range<Int>, _ group: Int) {
    let (rows, columns, width) = (rows, columns, range.count)
    let levels = Matrix(
      rows: width, columns: rows, elements: Array(state.levels[range.lowerBound * rows..<range.upperBound * rows])
    ).transposed()
    let own = Matrix(
      rows: width, columns: width,
      elements: range.flatMap { row in range.map { input.elements[row * columns + $0] } })
    // Lᵢ · H · Lⱼᵀ of all pairs of rows.
    let coupling = levels.spreadTimes(own).spreadTimes(levels.transposed())
    var slopes = (0..<rows).map { row in (0..<width).reduce(Float(0)) { $0 + levels[row, $1] * gradient[$1, row] } }
    var steps = [Float](repeating: 0, count: rows)
    output.withUnsafeElements { output in
      coupling.withUnsafeElements { coupling in
        slopes.withUnsafeMutableBufferPointer { slopes in
          for row in 0..<rows {
            let curvature = output[row * rows + row] * coupling[row * rows + row]
            let old = state.scales[group * rows + row]
            guard curvature > 0, old != 0 else { continue }
            let new = state.scaleType.rounded(old + slopes[row] / curvature)
            guard new != 0, new.isFinite, new != old else { continue }
            steps[row] = new - old
            state.scales[group * rows + row] = new
            for other in row + 1..<max(rows, row + 1) {
              slopes[other] -= steps[row] * output[row * rows + other] * coupling[row * rows + other]
            }
          }
        }
      }
    }
    guard steps.contains(where: { $0 != 0 }) else { return }
    var moves = levels
    moves.withUnsafeMutableElements { moves in
      for row in 0..<rows { for place in row * width..<(row + 1) * width { moves[place] *= steps[row] } }
    }
    let pulled = output.spreadTimes(moves)
    state.error.subtract(columnsOf: moves.transposed(), at: range.lowerBound)
    state.weighted.subtract(columnsOf: pulled.transposed(), at: range.lowerBound)
  }
}

extension Matrix {
  /// A second moment with the mean of its diagonal 1, and so much added to the diagonal; `nil` where it is all zero.
  func damped(by damping: Double) -> Matrix? {
    let mean = (0..<rows).reduce(0.0) { $0 + Double(self[$1, $1]) } / Double(max(1, rows))
    guard mean > 0 else { return nil }
    var scaled = scaled(by: Float(1 / mean))
    for row in 0..<rows { scaled[row, row] += Float(damping) }
    return scaled
  }

  /// self · other, rows spread over the threads.
  fileprivate func spreadTimes(_ other: Matrix) -> Matrix {
    precondition(columns == other.rows, "inner dimensions differ")
    let strip = 64
    return Matrix(rows: rows, columns: other.columns) { out in
      withUnsafeElements { own in
        other.withUnsafeElements { factor in
          nonisolated(unsafe) let (out, own, factor) = (out.baseAddress!, own, factor)
          Parallel.forEach((rows + strip - 1) / strip) { index in
            let (first, count) = (index * strip, min(strip, rows - index * strip))
            BLAS.product(
              own + first * columns, stride: columns, factor, stride: other.columns, rows: count, columns: other.columns, inner: columns,
              into: out + first * other.columns, stride: other.columns)
          }
        }
      }
    }
  }

  /// Takes columns, which come as rows, off those from `first` on.
  fileprivate mutating func subtract(columnsOf part: Matrix, at first: Int) {
    let (rows, columns, width) = (rows, columns, part.rows)
    withUnsafeMutableElements { elements in
      part.withUnsafeElements { part in
        for row in 0..<rows {
          let to = elements + row * columns + first
          for column in 0..<width { to[column] -= part[column * rows + row] }
        }
      }
    }
  }
}
