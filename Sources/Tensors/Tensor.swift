public import Foundation

/// A tensor as a checkpoint stores it: little-endian bytes, a dtype, a shape. Immutable and contiguous, row-major.
public struct Tensor: Sendable {
  public let dtype: DType
  public let shape: [Int]
  /// Possibly a slice of a mapped file, of any alignment.
  public let bytes: Data

  public init(dtype: DType, shape: [Int], bytes: Data) {
    precondition(bytes.count * 8 == shape.reduce(dtype.bitCount, *), "bytes do not fill the shape")
    self.dtype = dtype
    self.shape = shape
    self.bytes = bytes
  }

  public var elementCount: Int { shape.reduce(1, *) }
}

extension Tensor {
  /// Integers as they lie in memory on a little-endian machine.
  public init<Element: FixedWidthInteger>(dtype: DType, shape: [Int], integers: [Element]) {
    self.init(dtype: dtype, shape: shape, bytes: integers.withUnsafeBytes { Data($0) })
  }

  /// The elements of an integer tensor, read as `Element` whatever the alignment of the bytes.
  package func integers<Element: FixedWidthInteger>(_: Element.Type) -> [Element] {
    precondition(dtype.bitCount == Element.bitWidth, "\(dtype.rawValue) is not made of \(Element.bitWidth)-bit integers")
    return bytes.withUnsafeBytes { source in
      [Element](unsafeUninitializedCapacity: elementCount) { buffer, count in
        UnsafeMutableRawBufferPointer(buffer).copyMemory(from: source)
        count = elementCount
      }
    }
  }
}
