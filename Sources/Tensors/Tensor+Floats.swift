internal import CKernels
internal import Foundation

extension Tensor {
  /// The elements as `Float`; F64 is rounded, narrower types are exact.
  ///
  /// - Precondition: `dtype.isReadableAsFloat`.
  public func floats() -> [Float] {
    [Float](filling: elementCount) { copyFloats(from: 0, into: $0) }
  }

  /// The elements of rows `rows` of a matrix-shaped tensor.
  package func floats(rows: Range<Int>) -> [Float] {
    let width = shape.dropFirst().reduce(1, *)
    return [Float](filling: rows.count * width) { copyFloats(from: rows.lowerBound * width, into: $0) }
  }

  /// Reads `out.count` elements from element `first` on, in parallel pieces.
  package func copyFloats(from first: Int, into out: UnsafeMutableBufferPointer<Float>) {
    precondition(dtype.isReadableAsFloat, "\(dtype.rawValue) does not hold floats")
    let size = dtype.bitCount / 8
    let piece = 1 << 18
    bytes.withUnsafeBytes { raw in
      nonisolated(unsafe) let (source, out) = (raw, out)
      Parallel.forEach((out.count + piece - 1) / piece) { index in
        let range = index * piece..<min((index + 1) * piece, out.count)
        let from = UnsafeRawBufferPointer(rebasing: source[(first + range.lowerBound) * size..<(first + range.upperBound) * size])
        Self.widen(from, dtype, into: UnsafeMutableBufferPointer(rebasing: out[range]))
      }
    }
  }

  /// Whether an element is infinite or not a number, as `Float`.
  ///
  /// - Precondition: `dtype.isReadableAsFloat`.
  package var holdsNonfinite: Bool {
    precondition(dtype.isReadableAsFloat, "\(dtype.rawValue) does not hold floats")
    let piece = 1 << 16
    let found = bytes.withUnsafeBytes { raw in
      nonisolated(unsafe) let source = raw
      return Parallel.map((elementCount + piece - 1) / piece) { index in
        let range = index * piece..<min((index + 1) * piece, elementCount)
        let exponent: UInt16? = dtype == .bfloat16 ? 0x7F80 : dtype == .float16 ? 0x7C00 : nil
        if let exponent, let start = source.baseAddress, Int(bitPattern: start) % 2 == 0 {
          return compress_has_nonfinite16(start.assumingMemoryBound(to: UInt16.self) + range.lowerBound, exponent, range.count) != 0
        }
        let size = dtype.bitCount / 8
        let part = UnsafeRawBufferPointer(rebasing: source[range.lowerBound * size..<range.upperBound * size])
        return [Float](filling: range.count) { Self.widen(part, dtype, into: $0) }.withUnsafeBufferPointer(Kernel.hasNonfinite)
      }
    }
    return found.contains(true)
  }

  private static func widen(_ source: UnsafeRawBufferPointer, _ dtype: DType, into out: UnsafeMutableBufferPointer<Float>) {
    guard let to = out.baseAddress, let from = source.baseAddress else { return }
    switch dtype {
    case .float32: UnsafeMutableRawBufferPointer(out).copyMemory(from: source)
    case .float64:
      for i in out.indices { out[i] = Float(source.loadUnaligned(fromByteOffset: i * 8, as: Double.self)) }
    case .bfloat16, .float16:
      let convert = dtype == .bfloat16 ? compress_bf16_to_f32 : compress_f16_to_f32
      if Int(bitPattern: from) % 2 == 0 {
        convert(from.assumingMemoryBound(to: UInt16.self), to, out.count)
      } else {
        // A safetensors file may place a tensor at an odd offset.
        let aligned = [UInt16](unsafeUninitializedCapacity: out.count) { buffer, count in
          UnsafeMutableRawBufferPointer(buffer).copyMemory(from: source)
          count = out.count
        }
        convert(aligned, to, out.count)
      }
    default: preconditionFailure("\(dtype.rawValue) does not hold floats")
    }
  }

  /// Stores floats as `dtype`, rounding to nearest even.
  ///
  /// - Precondition: `dtype` is F32, BF16 or F16.
  public init(_ floats: [Float], shape: [Int], dtype: DType) {
    switch dtype {
    case .float32: self.init(dtype: dtype, shape: shape, bytes: floats.withUnsafeBytes { Data($0) })
    case .bfloat16, .float16:
      let convert = dtype == .bfloat16 ? compress_f32_to_bf16 : compress_f32_to_f16
      let narrow = [UInt16](unsafeUninitializedCapacity: floats.count) { buffer, count in
        if let out = buffer.baseAddress { convert(floats, out, floats.count) }
        count = floats.count
      }
      self.init(dtype: dtype, shape: shape, integers: narrow)
    default: preconditionFailure("floats are not stored as \(dtype.rawValue)")
    }
  }
}

extension DType {
  /// `value` rounded to what a tensor of this type can hold: BF16 and F16 to nearest even, all others as they are.
  public func rounded(_ value: Float) -> Float {
    var (wide, narrow) = (value, UInt16(0))
    switch self {
    case .bfloat16:
      compress_f32_to_bf16(&wide, &narrow, 1)
      compress_bf16_to_f32(&narrow, &wide, 1)
    case .float16:
      compress_f32_to_f16(&wide, &narrow, 1)
      compress_f16_to_f32(&narrow, &wide, 1)
    default: break
    }
    return wide
  }
}
