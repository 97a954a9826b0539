internal import Foundation

extension Array where Element: BitwiseCopyable {
  /// An array whose elements `fill` writes, all of them.
  package init(filling size: Int, _ fill: (UnsafeMutableBufferPointer<Element>) throws -> Void) rethrows {
    try self.init(unsafeUninitializedCapacity: size) { buffer, count in
      let buffer = UnsafeMutableBufferPointer(rebasing: buffer[..<size])
      UnsafeMutableRawBufferPointer(buffer).adviseLargePages()
      try fill(buffer)
      count = size
    }
  }
}

extension Tensor {
  /// A tensor whose bytes `fill` writes, all of them.
  package init(dtype: DType, shape: [Int], filling fill: (UnsafeMutableRawBufferPointer) -> Void) {
    let size = shape.reduce(dtype.bitCount, *) / 8
    // A wider alignment would go another way through the allocator, which does not find freed buffers again.
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 16)
    buffer.adviseLargePages()
    fill(buffer)
    let bytes = buffer.baseAddress.map { Data(bytesNoCopy: $0, count: size, deallocator: .custom { base, _ in base.deallocate() }) }
    self.init(dtype: dtype, shape: shape, bytes: bytes ?? Data())
  }
}

extension UnsafeMutableRawBufferPointer {
  /// Asks for pages of 2 MiB where a buffer is large: passes touch most of their memory once, and for that the first touch of a small page
  /// costs more than what is then done in it.
  fileprivate func adviseLargePages() {
    #if os(Linux)
      guard let base = baseAddress, count >= 1 << 22 else { return }
      let page = 1 << 21
      let (start, end) = (Int(bitPattern: base), Int(bitPattern: base) + count)
      let (first, last) = ((start + page - 1) / page * page, end / page * page)
      // A machine without such pages ignores it.
      if first < last { madvise(UnsafeMutableRawPointer(bitPattern: first), last - first, Int32(MADV_HUGEPAGE)) }
    #endif
  }
}
