public import Tensors

/// How real numbers become codes: the grid, and which numbers share a scale.
public struct QuantizationScheme: Sendable, Codable, Hashable {
  /// The elements of a row that share a scale and a zero point.
  public enum Granularity: Sendable, Codable, Hashable {
    /// All of the row.
    case channel
    /// Runs of this many columns.
    case group(Int)
  }

  /// Bits of a code, 2 to 8.
  public var bits: Int
  public var granularity: Granularity
  /// Whether the zero point is fixed at 2^(bits − 1) and not stored.
  public var symmetric: Bool
  /// What scales are rounded to before anything is quantized with them.
  public var scaleType: DType

  public init(bits: Int = 4, granularity: Granularity = .group(128), symmetric: Bool = true, scaleType: DType = .bfloat16) {
    self.bits = bits
    self.granularity = granularity
    self.symmetric = symmetric
    self.scaleType = scaleType
  }

  /// Columns that share a scale in a row of `columns`.
  public func groupSize(columns: Int) -> Int {
    switch granularity {
    case .channel: columns
    case .group(let size): size
    }
  }

  /// The largest code.
  public var top: Float { Float((1 << bits) - 1) }
  /// The code of zero where `symmetric`.
  public var middle: Float { Float(1 << (bits - 1)) }
}

/// Codes with their scales: ŵ = scale · (code − zero point).
public struct QuantizedMatrix: Weight, Equatable {
  public let scheme: QuantizationScheme
  public let rows: Int
  public let columns: Int
  /// One unsigned code per element, row-major and never packed: packing is the business of a format.
  public let codes: [UInt8]
  /// [rows × groups], already rounded to `scheme.scaleType`.
  public let scales: Matrix
  /// [rows × groups] of whole numbers between 0 and `scheme.top`; `nil` where symmetric.
  public let zeroPoints: Matrix?

  public init(scheme: QuantizationScheme, rows: Int, columns: Int, codes: [UInt8], scales: Matrix, zeroPoints: Matrix?) {
    let size = scheme.groupSize(columns: columns)
    precondition(size > 0 && columns % size == 0, "groups of \(size) do not divide \(columns) columns")
    precondition(codes.count == rows * columns, "codes do not fill the shape")
    precondition(scales.rows == rows && scales.columns == columns / size, "one scale per row and group is needed")
    precondition(scheme.symmetric == (zeroPoints == nil), "zero points belong to asymmetric schemes")
    self.scheme = scheme
    self.rows = rows
    self.columns = columns
    self.codes = codes
    self.scales = scales
    self.zeroPoints = zeroPoints
  }

  public var groupSize: Int { scheme.groupSize(columns: columns) }

  public var storedBits: Int {
    let groups = rows * scales.columns
    return rows * columns * scheme.bits + groups * scheme.scaleType.bitCount + (scheme.symmetric ? 0 : groups * scheme.bits)
  }

  public func dense() -> Matrix {
    var matrix = Matrix(rows: rows, columns: columns)
    let (size, groups, columns) = (groupSize, scales.columns, columns)
    matrix.updateRows { row, elements in
      elements.withUnsafeMutableBufferPointer { out in
        codes.withUnsafeBufferPointer { codes in
          for group in 0..<groups {
            let start = row * columns + group * size
            Kernel.dequantize(
              UnsafeBufferPointer(rebasing: codes[start..<start + size]), scale: scales[row, group],
              zero: zeroPoints?[row, group] ?? scheme.middle, into: out.baseAddress! + group * size)
          }
        }
      }
    }
    return matrix
  }
}
