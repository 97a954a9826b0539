public import Tensors

/// How real numbers become codes: the grid, which numbers share a scale, and what scales are stored as.
public struct QuantizationScheme: Sendable, Codable, Hashable {
  /// The points that codes stand for.
  public enum Grid: String, Sendable, Codable, Hashable {
    /// Equally spaced.
    case integer
    /// E2M1 at 4 bits, E4M3 at 8.
    case float
  }

  /// The elements that share a scale and a zero point.
  public enum Granularity: Sendable, Codable, Hashable {
    /// All of the matrix.
    case tensor
    /// All of a row.
    case channel
    /// Runs of this many columns of a row.
    case group(Int)
    /// Tiles; the last ones may be cut off.
    case block(rows: Int, columns: Int)
  }

  /// What is subtracted from a code before it is scaled.
  public enum ZeroPoint: String, Sendable, Codable, Hashable {
    /// The middle of the grid, which is not stored.
    case none
    /// A code, stored beside the scale.
    case integer
    /// A bias of the scale's type is added after scaling, so that zero need not be a point of the grid.
    case real
  }

  /// Bits of a code, 1 to 8.
  public var bits: Int
  public var grid: Grid
  public var granularity: Granularity
  public var zeroPoint: ZeroPoint
  /// What scales are rounded to before anything is quantized with them. E4M3 scales come with one more scale of the whole tensor.
  public var scaleType: DType

  public init(
    bits: Int = 4, grid: Grid = .integer, granularity: Granularity = .group(128), zeroPoint: ZeroPoint = .none,
    scaleType: DType = .bfloat16
  ) {
    self.bits = bits
    self.grid = grid
    self.granularity = granularity
    self.zeroPoint = zeroPoint
    self.scaleType = scaleType
  }

  /// An integer grid, with zero points where it is not symmetric.
  public init(bits: Int = 4, granularity: Granularity = .group(128), symmetric: Bool, scaleType: DType = .bfloat16) {
    self.init(bits: bits, granularity: granularity, zeroPoint: symmetric ? .none : .integer, scaleType: scaleType)
  }

  /// Microscaling with powers of two (OCP MX): E2M1 or E4M3 elements in groups of 32.
  public static func mx(bits: Int) -> QuantizationScheme {
    QuantizationScheme(bits: bits, grid: .float, granularity: .group(32), scaleType: .float8E8M0)
  }

  /// NVIDIA's: E2M1 elements in groups of 16, with E4M3 scales under a scale of the tensor.
  public static let nvfp4 = QuantizationScheme(bits: 4, grid: .float, granularity: .group(16), scaleType: .float8E4M3)

  /// Whether no zero point is stored.
  public var symmetric: Bool { zeroPoint == .none }

  /// Columns that share a scale in a row of `columns`.
  public func groupSize(columns: Int) -> Int {
    switch granularity {
    case .tensor, .channel: columns
    case .group(let size), .block(_, let size): size
    }
  }

  /// Rows that share a scale in a matrix of `rows`.
  public func groupHeight(rows: Int) -> Int {
    switch granularity {
    case .tensor: rows
    case .channel, .group: 1
    case .block(let height, _): height
    }
  }

  /// Rows and columns of the matrix of scales of a weight.
  public func scaleShape(rows: Int, columns: Int) -> (rows: Int, columns: Int) {
    let (height, size) = (max(1, groupHeight(rows: rows)), max(1, groupSize(columns: columns)))
    return ((rows + height - 1) / height, (columns + size - 1) / size)
  }

  /// Whether the groups fill a row: only tiles may be cut off.
  public func fits(columns: Int) -> Bool {
    if case .block = granularity { return true }
    let size = groupSize(columns: columns)
    return size > 0 && columns % size == 0
  }

  /// Bits of a weight of this shape as stored, scales and zero points included.
  public func storedBits(rows: Int, columns: Int) -> Int {
    let shape = scaleShape(rows: rows, columns: columns)
    let zeroBits =
      switch zeroPoint {
      case .none: 0
      case .integer: bits
      case .real: scaleType.bitCount
      }
    return rows * columns * bits + shape.rows * shape.columns * (scaleType.bitCount + zeroBits) + (hasGlobalScale ? 32 : 0)
  }

  /// Whether the scales themselves are scaled by one number for the whole matrix.
  public var hasGlobalScale: Bool { scaleType == .float8E4M3 }

  /// The largest code of an integer grid.
  public var top: Float { Float((1 << bits) - 1) }
  /// The code of zero on a symmetric integer grid.
  public var middle: Float { Float(1 << (bits - 1)) }
  /// The element format of a float grid.
  public var miniFloat: MiniFloat { bits == 4 ? .e2m1 : .e4m3 }
}

extension QuantizationScheme: CustomStringConvertible {
  /// In words, such as `int4 g128`, `int8 channel asym`, `fp8 block 128x128` or `nvfp4`.
  public var description: String {
    if self == .nvfp4 { return "nvfp4" }
    if self == .mx(bits: bits) { return "mxfp\(bits)" }
    let size =
      switch granularity {
      case .tensor: "tensor"
      case .channel: "channel"
      case .group(let count): "g\(count)"
      case .block(let rows, let columns): "block \(rows)x\(columns)"
      }
    let zero =
      switch zeroPoint {
      case .none: ""
      case .integer: " asym"
      case .real: " bias"
      }
    return "\(grid == .integer ? "int" : "fp")\(bits) \(size)\(zero)"
  }
}
