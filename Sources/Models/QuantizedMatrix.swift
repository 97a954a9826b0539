public import Tensors

/// Codes with their scales: ŵ = scale · (code − zero point), or scale · code + bias, or scale · value of a float code.
public struct QuantizedMatrix: Weight, Equatable {
  public let scheme: QuantizationScheme
  public let rows: Int
  public let columns: Int
  /// One unsigned code per element, row-major and never packed: packing is the business of a format.
  public let codes: [UInt8]
  /// One per group, [`scheme.scaleShape`], already rounded to `scheme.scaleType`.
  public let scales: Matrix
  /// Like `scales`: whole numbers between 0 and `scheme.top`, or biases where the zero point is real; `nil` where symmetric.
  public let zeroPoints: Matrix?
  /// What scales are divided by before they are used; `nil` where the scheme has no such number.
  public let globalScale: Float?
  /// The group of every column where groups are not runs of columns, as GPTQ's activation order without static groups leaves them.
  public let columnGroups: [Int32]?

  public init(
    scheme: QuantizationScheme, rows: Int, columns: Int, codes: [UInt8], scales: Matrix, zeroPoints: Matrix?, globalScale: Float? = nil,
    columnGroups: [Int32]? = nil
  ) {
    let shape = scheme.scaleShape(rows: rows, columns: columns)
    precondition(scheme.fits(columns: columns), "groups of \(scheme.groupSize(columns: columns)) do not divide \(columns) columns")
    precondition(codes.count == rows * columns, "codes do not fill the shape")
    precondition(scales.rows == shape.rows && scales.columns == shape.columns, "one scale per group is needed")
    precondition(scheme.symmetric == (zeroPoints == nil), "zero points belong to asymmetric schemes")
    precondition(scheme.hasGlobalScale == (globalScale != nil), "a global scale belongs to E4M3 scales")
    self.scheme = scheme
    self.rows = rows
    self.columns = columns
    self.codes = codes
    self.scales = scales
    self.zeroPoints = zeroPoints
    self.globalScale = globalScale
    self.columnGroups = columnGroups
  }

  public var groupSize: Int { scheme.groupSize(columns: columns) }

  public var storedBits: Int { scheme.storedBits(rows: rows, columns: columns) + (columnGroups?.count ?? 0) * 32 }

  public func dense() -> Matrix {
    Matrix(rows: rows, columns: columns) { out in
      nonisolated(unsafe) let out = out
      Parallel.forEach(rows) { row in copy(row: row, into: out.baseAddress! + row * columns) }
    }
  }

  /// One row of `dense()`.
  package func dense(row: Int) -> [Float] {
    [Float](unsafeUninitializedCapacity: columns) { out, count in
      copy(row: row, into: out.baseAddress!)
      count = columns
    }
  }

  private func copy(row: Int, into out: UnsafeMutablePointer<Float>) {
    let scaleRow = row / max(1, scheme.groupHeight(rows: rows))
    if let columnGroups {
      for column in 0..<columns {
        let group = Int(columnGroups[column])
        out[column] = scales[scaleRow, group] * (Float(codes[row * columns + column]) - (zeroPoints?[scaleRow, group] ?? scheme.middle))
      }
      return
    }
    let size = groupSize
    codes.withUnsafeBufferPointer { codes in
      for group in 0..<scales.columns {
        let start = row * columns + group * size
        let part = UnsafeBufferPointer(rebasing: codes[start..<min(start + size, (row + 1) * columns)])
        let (scale, to) = (scales[scaleRow, group], out + group * size)
        switch (scheme.grid, scheme.zeroPoint) {
        case (.float, _): scheme.miniFloat.decode(part, scale: globalScale.map { scale / $0 } ?? scale, into: to)
        case (.integer, .real): Kernel.dequantize(part, scale: scale, bias: zeroPoints![scaleRow, group], into: to)
        case (.integer, _): Kernel.dequantize(part, scale: scale, zero: zeroPoints?[scaleRow, group] ?? scheme.middle, into: to)
        }
      }
    }
  }

  /// Whether a code or a scale stands for no finite number.
  package var holdsNonfinite: Bool {
    if scales.elements.withUnsafeBufferPointer(Kernel.hasNonfinite) { return true }
    if let zeroPoints, zeroPoints.elements.withUnsafeBufferPointer(Kernel.hasNonfinite) { return true }
    if let globalScale, !globalScale.isFinite || globalScale == 0 { return true }
    return scheme.grid == .float && scheme.bits == 8 && codes.contains { $0 & 0x7F == 0x7F }
  }
}
