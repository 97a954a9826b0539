extension Matrix {
  /// Every column multiplied by its factor.
  public mutating func scaleColumns(by factors: [Float]) {
    precondition(factors.count == columns, "\(factors.count) factors for \(columns) columns")
    eachRow { _, elements in for column in factors.indices { elements[column] *= factors[column] } }
  }

  /// Every row multiplied by its factor.
  public mutating func scaleRows(by factors: [Float]) {
    precondition(factors.count == rows, "\(factors.count) factors for \(rows) rows")
    let columns = columns
    eachRow { row, elements in
      let factor = factors[row]
      for column in 0..<columns { elements[column] *= factor }
    }
  }

  private mutating func eachRow(_ body: @Sendable (Int, UnsafeMutablePointer<Float>) -> Void) {
    let (rows, columns) = (rows, columns)
    let step = max(1, (1 << 16) / max(columns, 1))
    withUnsafeMutableElements { elements in
      nonisolated(unsafe) let elements = elements
      Parallel.forEach((rows + step - 1) / step) { strip in
        for row in strip * step..<min((strip + 1) * step, rows) { body(row, elements + row * columns) }
      }
    }
  }
}
