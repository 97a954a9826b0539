/// A dense row-major matrix of `Float`: the one type that arithmetic happens in.
public struct Matrix: Sendable, Equatable {
  public let rows: Int
  public let columns: Int
  /// Row by row, without gaps.
  public internal(set) var elements: [Float]

  public init(rows: Int, columns: Int, repeating value: Float = 0) {
    self.rows = rows
    self.columns = columns
    elements = Array(repeating: value, count: rows * columns)
  }

  public init(rows: Int, columns: Int, elements: [Float]) {
    precondition(elements.count == rows * columns, "elements do not fill the shape")
    self.rows = rows
    self.columns = columns
    self.elements = elements
  }

  /// A matrix whose elements `fill` writes, all of them.
  package init(rows: Int, columns: Int, filling fill: (UnsafeMutableBufferPointer<Float>) -> Void) {
    self.rows = rows
    self.columns = columns
    elements = [Float](filling: rows * columns, fill)
  }

  public subscript(row: Int, column: Int) -> Float {
    get { elements[row * columns + column] }
    set { elements[row * columns + column] = newValue }
  }

  /// A copy of some rows.
  public func rows(_ range: Range<Int>) -> Matrix {
    Matrix(rows: range.count, columns: columns, elements: Array(elements[range.lowerBound * columns..<range.upperBound * columns]))
  }

  public func transposed() -> Matrix {
    Matrix(rows: columns, columns: rows) { out in
      // Tiles keep both sides in the cache.
      let tile = 32
      for top in stride(from: 0, to: rows, by: tile) {
        for left in stride(from: 0, to: columns, by: tile) {
          for r in top..<min(top + tile, rows) {
            for c in left..<min(left + tile, columns) { out[c * rows + r] = elements[r * columns + c] }
          }
        }
      }
    }
  }

  /// The matrices' rows, one matrix after the other.
  public init(stacking matrices: [Matrix]) {
    precondition(Set(matrices.map(\.columns)).count <= 1, "stacked matrices differ in width")
    var elements: [Float] = []
    elements.reserveCapacity(matrices.reduce(0) { $0 + $1.elements.count })
    for matrix in matrices { elements += matrix.elements }
    self.init(rows: matrices.reduce(0) { $0 + $1.rows }, columns: matrices.first?.columns ?? 0, elements: elements)
  }
}

extension Matrix {
  package func withUnsafeElements<Result>(_ body: (UnsafePointer<Float>) throws -> Result) rethrows -> Result {
    try elements.withUnsafeBufferPointer { try body($0.baseAddress ?? UnsafePointer(bitPattern: 16)!) }
  }

  package mutating func withUnsafeMutableElements<Result>(_ body: (UnsafeMutablePointer<Float>) throws -> Result) rethrows -> Result {
    try elements.withUnsafeMutableBufferPointer { try body($0.baseAddress ?? UnsafeMutablePointer(bitPattern: 16)!) }
  }

  /// The share of elements that are exactly zero.
  package var zeroShare: Double {
    let (piece, total) = (1 << 18, rows * columns)
    let counts = withUnsafeElements { elements in
      nonisolated(unsafe) let elements = elements
      return Parallel.map((total + piece - 1) / piece) { index in
        Kernel.countZeros(UnsafeBufferPointer(start: elements + index * piece, count: min(piece, total - index * piece)))
      }
    }
    return Double(counts.reduce(0, +)) / Double(max(1, total))
  }
}
