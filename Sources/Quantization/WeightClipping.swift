import Models
import Tensors

/// The clip search of AWQ: limits the weights of every group to the fraction of their largest magnitude that leaves the smallest error of the
/// group's output, e · G · eᵀ with the second moment G of the group's inputs.
struct WeightClipping {
  /// [tokens × inputs].
  let inputs: Matrix
  /// Fractions that are tried: 1, 0.95, … 0.55.
  private static let fractions: [Float] = (0..<10).map { 1 - Float($0) * 0.05 }

  /// - Parameters:
  ///   - weight: [outputs × inputs].
  ///   - rounded: what a limited weight is rounded to.
  /// - Returns: the limited weight, and the share of its elements that changed.
  func limited(_ weight: Matrix, groupSize: Int, rounded: (Matrix) throws -> QuantizedMatrix) rethrows -> (weight: Matrix, share: Double) {
    let moments = moments(groupSize: groupSize)
    let groups = moments.count
    let limits = Self.largest(in: weight, groupSize: groupSize)
    var best = [Float](repeating: 1, count: limits.count)
    var losses = [Float](repeating: .infinity, count: limits.count)
    for fraction in Self.fractions {
      let candidate = Self.limited(weight, to: limits, fractions: Array(repeating: fraction, count: limits.count), groupSize: groupSize)
      let quantized = try rounded(candidate)
      let found = Self.losses(of: quantized, against: weight, moments, groupSize: groupSize)
      for index in 0..<weight.rows * groups where found[index] < losses[index] { (losses[index], best[index]) = (found[index], fraction) }
    }
    let result = Self.limited(weight, to: limits, fractions: best, groupSize: groupSize)
    let changed = zip(result.elements, weight.elements).reduce(0) { $0 + ($1.0 == $1.1 ? 0 : 1) }
    return (result, Double(changed) / Double(max(1, weight.elements.count)))
  }

  /// The second moments of each group's inputs, [size × size].
  private func moments(groupSize: Int) -> [Matrix] {
    let groups = (inputs.columns + groupSize - 1) / groupSize
    return Parallel.map(groups) { group in
      let size = min(groupSize, inputs.columns - group * groupSize)
      return Matrix(rows: size, columns: size) { out in
        inputs.withUnsafeElements { x in
          BLAS.product(
            x + group * groupSize, stride: inputs.columns, leftTransposed: true, x + group * groupSize, stride: inputs.columns, rows: size,
            columns: size, inner: inputs.rows, into: out.baseAddress!, stride: size)
        }
      }
    }
  }

  /// The largest magnitude of every group, [rows × groups].
  private static func largest(in weight: Matrix, groupSize: Int) -> [Float] {
    weight.withUnsafeElements { elements in
      (0..<weight.rows).flatMap { row in
        stride(from: 0, to: weight.columns, by: groupSize).map { start in
          let range = Kernel.range(
            UnsafeBufferPointer(start: elements + row * weight.columns + start, count: min(groupSize, weight.columns - start)))
          return max(-range.lowerBound, range.upperBound)
        }
      }
    }
  }

  private static func limited(_ weight: Matrix, to limits: [Float], fractions: [Float], groupSize: Int) -> Matrix {
    var result = weight
    let groups = (weight.columns + groupSize - 1) / groupSize
    result.withUnsafeMutableElements { elements in
      for row in 0..<weight.rows {
        for group in 0..<groups where fractions[row * groups + group] < 1 {
          let limit = limits[row * groups + group] * fractions[row * groups + group]
          for column in group * groupSize..<min((group + 1) * groupSize, weight.columns) {
            let element = elements[row * weight.columns + column]
            elements[row * weight.columns + column] = min(max(element, -limit), limit)
          }
        }
      }
    }
    return result
  }

  /// e · G · eᵀ of every group of every row, [rows × groups].
  private static func losses(of quantized: QuantizedMatrix, against weight: Matrix, _ moments: [Matrix], groupSize: Int) -> [Float] {
    let strip = 64
    let parts = Parallel.map((weight.rows + strip - 1) / strip) { index in
      let rows = index * strip..<min((index + 1) * strip, weight.rows)
      var errors = weight.rows(rows)
      errors.withUnsafeMutableElements { errors in
        for row in rows {
          let part = quantized.dense(row: row)
          let start = (row - rows.lowerBound) * weight.columns
          for column in part.indices { errors[start + column] -= part[column] }
        }
      }
      var losses = [Float](repeating: 0, count: rows.count * moments.count)
      errors.withUnsafeElements { errors in
        for (group, moment) in moments.enumerated() {
          let first = errors + group * groupSize
          let product = Matrix(rows: rows.count, columns: moment.rows) { out in
            moment.withUnsafeElements { moment in
              BLAS.product(
                first, stride: weight.columns, moment, stride: moments[group].rows, rows: rows.count, columns: moments[group].rows,
                inner: moments[group].rows, into: out.baseAddress!, stride: moments[group].rows)
            }
          }
          product.withUnsafeElements { product in
            for row in 0..<rows.count {
              var sum: Float = 0
              for column in 0..<moment.rows { sum += product[row * moment.rows + column] * first[row * weight.columns + column] }
              losses[row * moments.count + group] = sum
            }
          }
        }
      }
      return losses
    }
    return parts.flatMap { $0 }
  }
}
