internal import CKernels
internal import Foundation

/// The types of ggml's tensors: runs of weights that share their scales, or plain floats. Raw values are the ids in GGUF files.
public enum BlockType: UInt32, Sendable, Hashable, CaseIterable {
  case f32 = 0
  case f16 = 1
  case q4_0 = 2
  case q4_1 = 3
  case q5_0 = 6
  case q5_1 = 7
  case q8_0 = 8
  case q2_k = 10
  case q3_k = 11
  case q4_k = 12
  case q5_k = 13
  case q6_k = 14
  case iq4_nl = 20
  case iq4_xs = 23
  case bf16 = 30
  case mxfp4 = 39
  case nvfp4 = 40
  // Read, never written: blocks that index codebooks, ternary and binary ones, and plain numbers that are no weights.
  case iq2_xxs = 16
  case iq2_xs = 17
  case iq3_xxs = 18
  case iq1_s = 19
  case iq3_s = 21
  case iq2_s = 22
  case iq1_m = 29
  case tq1_0 = 34
  case tq2_0 = 35
  case q1_0 = 41
  case q2_0 = 42
  case i8 = 24
  case i16 = 25
  case i32 = 26
  case i64 = 27
  case f64 = 28

  /// Whether `quantize` has such blocks.
  public var isWritten: Bool {
    switch self {
    case .iq2_xxs, .iq2_xs, .iq3_xxs, .iq1_s, .iq3_s, .iq2_s, .iq1_m, .tq1_0, .tq2_0, .q1_0, .q2_0, .i8, .i16, .i32, .i64, .f64: false
    default: true
    }
  }

  /// As ggml prints it, such as `Q4_K`.
  public var name: String { "\(self)".uppercased() }

  /// Reads a name in any case, such as `q4_k`.
  public init?(name: String) {
    guard let type = Self.allCases.first(where: { "\($0)" == name.lowercased() }) else { return nil }
    self = type
  }

  /// Weights in a block; rows are whole blocks.
  public var blockLength: Int {
    switch self {
    case .f32, .f16, .bf16, .i8, .i16, .i32, .i64, .f64: 1
    case .q4_0, .q4_1, .q5_0, .q5_1, .q8_0, .iq4_nl, .mxfp4: 32
    case .nvfp4, .q2_0: 64
    case .q1_0: 128
    case .q2_k, .q3_k, .q4_k, .q5_k, .q6_k, .iq4_xs: 256
    case .iq2_xxs, .iq2_xs, .iq3_xxs, .iq1_s, .iq3_s, .iq2_s, .iq1_m, .tq1_0, .tq2_0: 256
    }
  }

  public var bytesPerBlock: Int {
    switch self {
    case .f32: 4
    case .f16, .bf16: 2
    case .q4_0, .iq4_nl: 18
    case .q4_1: 20
    case .q5_0: 22
    case .q5_1: 24
    case .q8_0: 34
    case .q2_k: 84
    case .q3_k: 110
    case .q4_k: 144
    case .q5_k: 176
    case .q6_k: 210
    case .iq4_xs: 136
    case .mxfp4: 17
    case .nvfp4: 36
    case .iq2_xxs, .tq2_0: 66
    case .iq2_xs: 74
    case .iq3_xxs: 98
    case .iq1_s: 50
    case .iq3_s: 110
    case .iq2_s: 82
    case .iq1_m: 56
    case .tq1_0: 54
    case .q1_0, .q2_0: 18
    case .i8: 1
    case .i16: 2
    case .i32: 4
    case .i64, .f64: 8
    }
  }

  public var bitsPerWeight: Double { Double(bytesPerBlock * 8) / Double(blockLength) }

  /// The plain type of the same bytes; `nil` for real blocks.
  public var dtype: DType? {
    switch self {
    case .f32: .float32
    case .f16: .float16
    case .bf16: .bfloat16
    case .i8: .int8
    case .i16: .int16
    case .i32: .int32
    case .i64: .int64
    case .f64: .float64
    default: nil
    }
  }

  /// The block type of plain floats; `nil` for types ggml has no use for here.
  public init?(_ dtype: DType) {
    switch dtype {
    case .float32: self = .f32
    case .float16: self = .f16
    case .bfloat16: self = .bf16
    default: return nil
    }
  }

  /// Bytes of a row.
  ///
  /// - Precondition: blocks divide `columns`.
  public func byteCount(columns: Int) -> Int {
    precondition(columns % blockLength == 0, "blocks of \(blockLength) do not divide \(columns) columns")
    return columns / blockLength * bytesPerBlock
  }
}

// MARK: - Rows of blocks

extension BlockType {
  private typealias Quantize = @Sendable (UnsafePointer<Float>, UnsafePointer<Float>?, Int, UnsafeMutablePointer<UInt8>) -> Void
  private typealias Dequantize = @Sendable (UnsafePointer<UInt8>, UnsafeMutablePointer<Float>, Int) -> Void

  private var kernels: (quantize: Quantize?, dequantize: Dequantize)? {
    switch self {
    case .f32, .f16, .bf16, .i8, .i16, .i32, .i64, .f64: nil
    case .iq2_xxs: (nil, { compress_dequantize_iq2_xxs($0, $1, $2) })
    case .iq2_xs: (nil, { compress_dequantize_iq2_xs($0, $1, $2) })
    case .iq2_s: (nil, { compress_dequantize_iq2_s($0, $1, $2) })
    case .iq3_xxs: (nil, { compress_dequantize_iq3_xxs($0, $1, $2) })
    case .iq3_s: (nil, { compress_dequantize_iq3_s($0, $1, $2) })
    case .iq1_s: (nil, { compress_dequantize_iq1_s($0, $1, $2) })
    case .iq1_m: (nil, { compress_dequantize_iq1_m($0, $1, $2) })
    case .tq1_0: (nil, { compress_dequantize_tq1_0($0, $1, $2) })
    case .tq2_0: (nil, { compress_dequantize_tq2_0($0, $1, $2) })
    case .q1_0: (nil, { compress_dequantize_q1_0($0, $1, $2) })
    case .q2_0: (nil, { compress_dequantize_q2_0($0, $1, $2) })
    case .q4_0: ({ compress_quantize_q4_0($0, $1, $2, $3) }, { compress_dequantize_q4_0($0, $1, $2) })
    case .q4_1: ({ compress_quantize_q4_1($0, $1, $2, $3) }, { compress_dequantize_q4_1($0, $1, $2) })
    case .q5_0: ({ compress_quantize_q5_0($0, $1, $2, $3) }, { compress_dequantize_q5_0($0, $1, $2) })
    case .q5_1: ({ compress_quantize_q5_1($0, $1, $2, $3) }, { compress_dequantize_q5_1($0, $1, $2) })
    case .q8_0: ({ compress_quantize_q8_0($0, $1, $2, $3) }, { compress_dequantize_q8_0($0, $1, $2) })
    case .q2_k: ({ compress_quantize_q2_k($0, $1, $2, $3) }, { compress_dequantize_q2_k($0, $1, $2) })
    case .q3_k: ({ compress_quantize_q3_k($0, $1, $2, $3) }, { compress_dequantize_q3_k($0, $1, $2) })
    case .q4_k: ({ compress_quantize_q4_k($0, $1, $2, $3) }, { compress_dequantize_q4_k($0, $1, $2) })
    case .q5_k: ({ compress_quantize_q5_k($0, $1, $2, $3) }, { compress_dequantize_q5_k($0, $1, $2) })
    case .q6_k: ({ compress_quantize_q6_k($0, $1, $2, $3) }, { compress_dequantize_q6_k($0, $1, $2) })
    case .iq4_nl: ({ compress_quantize_iq4_nl($0, $1, $2, $3) }, { compress_dequantize_iq4_nl($0, $1, $2) })
    case .iq4_xs: ({ compress_quantize_iq4_xs($0, $1, $2, $3) }, { compress_dequantize_iq4_xs($0, $1, $2) })
    case .mxfp4: ({ compress_quantize_mxfp4($0, $1, $2, $3) }, { compress_dequantize_mxfp4($0, $1, $2) })
    case .nvfp4: ({ compress_quantize_nvfp4($0, $1, $2, $3) }, { compress_dequantize_nvfp4($0, $1, $2) })
    }
  }

  /// The rows of a matrix as blocks: the bytes ggml's quantizers write.
  ///
  /// - Parameter importance: a factor per column for its squared error; types with nothing to choose ignore it.
  /// - Returns: bytes, [rows × bytes of a row].
  /// - Precondition: the type `isWritten`; blocks divide the columns; the weights are finite.
  public func quantize(_ weight: Matrix, importance: [Float]? = nil) -> Tensor {
    precondition(isWritten, "\(name) is read, not written")
    precondition(importance.map { $0.count == weight.columns } ?? true, "one importance per column is needed")
    let (rows, columns, rowBytes) = (weight.rows, weight.columns, byteCount(columns: weight.columns))
    guard let quantize = kernels?.quantize else {
      return Tensor(dtype: .uint8, shape: [rows, rowBytes], bytes: Tensor(weight.elements, shape: [rows, columns], dtype: dtype!).bytes)
    }
    var bytes = Data(count: rows * rowBytes)
    bytes.withUnsafeMutableBytes { out in
      guard let target = out.baseAddress?.assumingMemoryBound(to: UInt8.self) else { return }
      weight.withUnsafeElements { first in
        nonisolated(unsafe) let (base, elements) = (target, first)
        // Strips of about 2¹⁶ weights: worth a thread's attention, small enough to balance.
        let strip = max(1, (1 << 16) / max(columns, 1))
        Parallel.forEach((rows + strip - 1) / strip) { index in
          for row in index * strip..<min((index + 1) * strip, rows) {
            if let importance {
              quantize(elements + row * columns, importance, columns, base + row * rowBytes)
            } else {
              quantize(elements + row * columns, nil, columns, base + row * rowBytes)
            }
          }
        }
      }
    }
    return Tensor(dtype: .uint8, shape: [rows, rowBytes], bytes: bytes)
  }

  /// The numbers of some rows of blocks.
  ///
  /// - Parameters:
  ///   - blocks: bytes, [rows × bytes of a row].
  ///   - out: as many floats as the rows hold weights.
  package func dequantize(_ blocks: Tensor, rows: Range<Int>, into out: UnsafeMutableBufferPointer<Float>) {
    let rowBytes = blocks.shape[1]
    let columns = rowBytes / bytesPerBlock * blockLength
    precondition(out.count == rows.count * columns, "the rows hold \(rows.count * columns) weights")
    guard let dequantize = kernels?.dequantize else {
      Tensor(dtype: dtype!, shape: [blocks.shape[0], columns], bytes: blocks.bytes).copyFloats(from: rows.lowerBound * columns, into: out)
      return
    }
    blocks.bytes.withUnsafeBytes { raw in
      guard let first = raw.baseAddress?.assumingMemoryBound(to: UInt8.self), let target = out.baseAddress else { return }
      nonisolated(unsafe) let (base, out) = (first, target)
      let strip = max(1, (1 << 16) / max(columns, 1))
      Parallel.forEach((rows.count + strip - 1) / strip) { index in
        for row in index * strip..<min((index + 1) * strip, rows.count) {
          dequantize(base + (rows.lowerBound + row) * rowBytes, out + row * columns, columns)
        }
      }
    }
  }
}
