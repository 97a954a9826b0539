public import Tensors

/// A weight in one of ggml's block types: bytes that a GGUF file holds as they are.
public struct BlockQuantizedMatrix: Weight {
  public let type: BlockType
  public let rows: Int
  public let columns: Int
  /// Bytes, [rows × bytes of a row]; possibly still in their file.
  public let blocks: Tensor

  /// - Parameter blocks: bytes, [rows × bytes of a row], a whole number of blocks each.
  public init(_ type: BlockType, blocks: Tensor) {
    precondition(
      blocks.dtype == .uint8 && blocks.shape.count == 2 && blocks.shape[1] % type.bytesPerBlock == 0, "rows of whole blocks are needed")
    self.type = type
    self.blocks = blocks
    rows = blocks.shape[0]
    columns = blocks.shape[1] / type.bytesPerBlock * type.blockLength
  }

  /// - Parameter importance: a factor per column for its squared error.
  /// - Precondition: blocks divide the columns.
  public init(_ weight: Matrix, as type: BlockType, importance: [Float]? = nil) {
    self.init(type, blocks: type.quantize(weight, importance: importance))
  }

  public var storedBits: Int { blocks.bytes.count * 8 }

  public func dense() -> Matrix { dense(rows: 0..<rows) }

  /// Some rows only: what an embedding looks up.
  package func dense(rows range: Range<Int>) -> Matrix {
    Matrix(rows: range.count, columns: columns) { type.dequantize(blocks, rows: range, into: $0) }
  }

  /// Whether some block stands for what is not finite, as one does whose scale was too large for half precision.
  var holdsNonfinite: Bool {
    let strip = max(1, (1 << 18) / max(1, columns))
    return Parallel.map((rows + strip - 1) / strip) { index in
      !dense(rows: index * strip..<min((index + 1) * strip, rows)).isFinite
    }.contains(true)
  }

  /// The rows in another order: row i of the result is row `order[i]` of this.
  package func rows(inOrder order: [Int]) -> BlockQuantizedMatrix { BlockQuantizedMatrix(type, blocks: blocks.rows(inOrder: order)) }
}

extension BlockQuantizedMatrix: Equatable {
  public static func == (a: Self, b: Self) -> Bool {
    a.type == b.type && a.blocks.shape == b.blocks.shape && a.blocks.bytes == b.blocks.bytes
  }
}
