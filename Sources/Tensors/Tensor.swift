public import Foundation

/// A tensor as a checkpoint stores it: little-endian bytes, a dtype, a shape. Immutable and contiguous, row-major.
public struct Tensor: Sendable {
  public let dtype: DType
  public let shape: [Int]
  /// Possibly a slice of a mapped file, of any alignment.
  public let bytes: Data
  /// Whether the bytes are a private, read-only mapping of a file.
  private let isMapped: Bool

  public init(dtype: DType, shape: [Int], bytes: Data) { self.init(dtype: dtype, shape: shape, bytes: bytes, isMapped: false) }

  /// - Parameter isMapped: whether `bytes` lie in a private, read-only mapping of a file, whose pages may be given back at any time.
  package init(dtype: DType, shape: [Int], bytes: Data, isMapped: Bool) {
    precondition(bytes.count * 8 == shape.reduce(dtype.bitCount, *), "bytes do not fill the shape")
    self.dtype = dtype
    self.shape = shape
    self.bytes = bytes
    self.isMapped = isMapped
  }

  /// Takes the pages of a mapped tensor off this process's account. They stay in the system's cache, and touching them brings them back.
  package func releasePages() {
    guard isMapped else { return }
    bytes.withUnsafeBytes { buffer in
      guard let base = buffer.baseAddress else { return }
      let page = Int(sysconf(Int32(_SC_PAGESIZE)))
      let (start, end) = (Int(bitPattern: base), Int(bitPattern: base) + buffer.count)
      let (first, last) = ((start + page - 1) / page * page, end / page * page)
      if first < last { madvise(UnsafeMutableRawPointer(bitPattern: first), last - first, Int32(MADV_DONTNEED)) }
    }
  }

  public var elementCount: Int { shape.reduce(1, *) }

  /// One entry of the first dimension; a view where this is one.
  package func entry(_ index: Int) -> Tensor {
    let size = shape[0] == 0 ? 0 : bytes.count / shape[0]
    let start = bytes.startIndex + index * size
    return Tensor(dtype: dtype, shape: Array(shape.dropFirst()), bytes: bytes[start..<start + size], isMapped: isMapped)
  }

  /// Some entries of the first dimension, one after the other; a view where this is one.
  package func entries(_ range: Range<Int>) -> Tensor {
    let size = shape[0] == 0 ? 0 : bytes.count / shape[0]
    let start = bytes.startIndex + range.lowerBound * size
    return Tensor(
      dtype: dtype, shape: [range.count] + shape.dropFirst(), bytes: bytes[start..<start + range.count * size], isMapped: isMapped)
  }

  /// Whether the bytes are the same in the same place, so that nobody has changed a copy.
  package func isSame(as other: Tensor) -> Bool {
    dtype == other.dtype && shape == other.shape
      && bytes.withUnsafeBytes { own in other.bytes.withUnsafeBytes { own.baseAddress == $0.baseAddress } }
  }

  /// The tensor with its first dimension in another order: row i of the result is row `order[i]` of this.
  package func rows(inOrder order: [Int]) -> Tensor {
    precondition(order.count == shape.first, "an order of all rows is needed")
    let size = order.isEmpty ? 0 : bytes.count / order.count
    var moved = Data(capacity: bytes.count)
    for row in order {
      let start = bytes.startIndex + row * size
      moved += bytes[start..<start + size]
    }
    return Tensor(dtype: dtype, shape: shape, bytes: moved)
  }
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
