internal import CMappedPages
internal import Foundation

/// What readers share: files as mapped bytes, and numbers read without leaving them.
package enum MappedFile {
  /// - Throws: `CheckpointError` for a file that is missing, no file, or cannot be mapped.
  static func open(_ url: URL) throws(CheckpointError) -> Data {
    let path = url.path
    var information = stat()
    guard stat(path, &information) == 0 else {
      guard errno == ENOENT || errno == ENOTDIR else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
      throw .missingFile(path: path)
    }
    switch information.st_mode & S_IFMT {
    case S_IFREG: break
    case S_IFDIR: throw .unreadable(path: path, reason: "a file is needed, this is a directory")
    default: throw .unreadable(path: path, reason: "a file is needed, this is a pipe or a device")
    }
    let descriptor = Foundation.open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
    defer { close(descriptor) }
    guard fstat(descriptor, &information) == 0 else { throw .unreadable(path: path, reason: String(cString: strerror(errno))) }
    let count = Int(information.st_size)
    guard count > 0 else { return Data() }
    guard let base = mmap(nil, count, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else {
      throw .unreadable(path: path, reason: String(cString: strerror(errno)))
    }
    guard compress_watch_mapping(base, count, path) != 0 else {
      munmap(base, count)
      throw .unreadable(path: path, reason: String(cString: strerror(ENOMEM)))
    }
    return Data(
      bytesNoCopy: base, count: count,
      deallocator: .custom { base, count in
        compress_forget_mapping(base)
        munmap(base, count)
      })
  }

  /// To be asked before anything is made of what was read.
  ///
  /// - Throws: `CheckpointError.cutShort` where a file has lost its end since it was mapped, so that zeros were read in its place.
  package static func checkIntact() throws(CheckpointError) {
    let path: String? = withUnsafeTemporaryAllocation(of: CChar.self, capacity: 4096) { buffer in
      compress_take_cut_file(buffer.baseAddress, buffer.count) == 0 ? nil : String(cString: buffer.baseAddress!)
    }
    if let path { throw .cutShort(path: path) }
  }
}

extension Data {
  /// Runs a parser over the bytes and carries its typed error out.
  func parse<Value>(_ body: (UnsafeRawBufferPointer) throws(CheckpointError) -> Value) throws(CheckpointError) -> Value {
    let result: Result<Value, CheckpointError> = withUnsafeBytes { bytes in
      do throws(CheckpointError) { return .success(try body(bytes)) } catch { return .failure(error) }
    }
    return try result.get()
  }

  /// The slice of so many bytes that begins at an offset from the start.
  ///
  /// - Precondition: it lies within the data.
  func slice(at offset: Int, count: Int) -> Data { self[startIndex + offset..<startIndex + offset + count] }
}

extension UnsafeRawBufferPointer {
  /// A little-endian integer, or `nil` where it would not lie within the bytes.
  func little<Value: FixedWidthInteger>(_: Value.Type, at offset: Int) -> Value? {
    guard offset >= 0, offset <= count, Value.bitWidth / 8 <= count - offset else { return nil }
    return Value(littleEndian: loadUnaligned(fromByteOffset: offset, as: Value.self))
  }

  /// Whether these very bytes lie at an offset.
  func holds(_ bytes: [UInt8], at offset: Int) -> Bool {
    offset >= 0 && offset <= count && bytes.count <= count - offset && self[offset..<offset + bytes.count].elementsEqual(bytes)
  }
}

extension [Int] {
  /// Bytes of a shape of elements of so many bits, multiplied left to right; `nil` where that overflows, is negative, or is no whole byte.
  func byteCount(bits: Int) -> Int? {
    var product = 1
    for factor in self + [bits] {
      let (next, overflow) = product.multipliedReportingOverflow(by: factor)
      guard !overflow, factor >= 0 else { return nil }
      product = next
    }
    return product % 8 == 0 ? product / 8 : nil
  }
}
