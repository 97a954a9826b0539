package import Tensors

extension Matrix {
  /// self · other, [rows × inner] by [inner × columns], on the calling thread.
  package func times(_ other: Matrix) -> Matrix {
    precondition(columns == other.rows, "inner dimensions differ")
    return Matrix(rows: rows, columns: other.columns) { out in
      guard let base = out.baseAddress else { return }
      withUnsafeElements { a in
        other.withUnsafeElements { b in
          BLAS.product(
            a, stride: columns, b, stride: other.columns, rows: rows, columns: other.columns, inner: columns, into: base,
            stride: other.columns)
        }
      }
    }
  }

  /// The matrices' columns, one matrix after the other.
  package init(joining parts: [Matrix]) {
    let rows = parts[0].rows
    let width = parts.reduce(0) { $0 + $1.columns }
    self.init(rows: rows, columns: width) { out in
      var start = 0
      for part in parts {
        part.withUnsafeElements { elements in
          for row in 0..<rows { (out.baseAddress! + row * width + start).update(from: elements + row * part.columns, count: part.columns) }
        }
        start += part.columns
      }
    }
  }

  /// Columns put back where `columns(in:)` took them from; the others stay.
  package mutating func set(_ part: Matrix, columns ranges: [Range<Int>]) {
    let (rows, width) = (rows, columns)
    withUnsafeMutableElements { elements in
      part.withUnsafeElements { part in
        var from = part
        for row in 0..<rows {
          for range in ranges {
            (elements + row * width + range.lowerBound).update(from: from, count: range.count)
            from += range.count
          }
        }
      }
    }
  }

  package func scaled(by factor: Float) -> Matrix { Matrix(rows: rows, columns: columns, elements: elements.map { $0 * factor }) }

  /// The scalar product of every row with the other's.
  func rowProducts(with other: Matrix) -> [Float] {
    precondition(rows == other.rows && columns == other.columns, "shapes differ")
    return withUnsafeElements { a in
      other.withUnsafeElements { b in
        (0..<rows).map { row in
          var sum: Float = 0
          for column in row * columns..<(row + 1) * columns { sum += a[column] * b[column] }
          return sum
        }
      }
    }
  }
}
