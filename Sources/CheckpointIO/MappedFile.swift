internal import Foundation

/// What readers share: files as mapped bytes, and numbers read without leaving them.
enum MappedFile {
  /// - Throws: `CheckpointError` for a file that is missing, no file, or cannot be mapped.
  static func open(_ url: URL) throws(CheckpointError) -> Data {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isDirectory) else { throw .missingFile(path: url.path) }
    guard !isDirectory.boolValue else { throw .unreadable(path: url.path, reason: "a file is needed, this is a directory") }
    do { return try Data(contentsOf: url, options: .alwaysMapped) } catch {
      throw .unreadable(path: url.path, reason: error.localizedDescription)
    }
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
