public import Foundation

/// Token ids from a NumPy file, one-dimensional or [sequences × length], of int32 or int64; or from a `.bin` file, as llm.c writes them behind
/// its header (16 or 32 bits each) and nanoGPT without any (16 bits), little-endian.
public struct TokenFile: Sendable, Equatable {
  public let tokens: [Int32]
  /// How many the file holds.
  public let count: Int
  /// Length of a row where the array has two dimensions.
  public let rowLength: Int?

  /// - Parameter limit: no more ids than these are read, from the start.
  /// - Throws: `CheckpointError` for anything but a C-ordered little-endian integer array of one or two dimensions.
  public init(contentsOf url: URL, limit: Int = .max) throws(CheckpointError) {
    let data = try MappedFile.open(url)
    let isRaw = url.pathExtension == "bin"
    self = try data.parse { bytes throws(CheckpointError) in
      try isRaw ? Self.raw(bytes, path: url.path, limit: limit) : Self(numpy: bytes, path: url.path, limit: limit)
    }
  }

  private init(tokens: [Int32], count: Int, rowLength: Int?) { (self.tokens, self.count, self.rowLength) = (tokens, count, rowLength) }

  private init(numpy bytes: UnsafeRawBufferPointer, path: String, limit: Int) throws(CheckpointError) {
    func malformed(_ reason: String) -> CheckpointError { .unreadable(path: path, reason: reason) }
    guard bytes.count >= 10, bytes[..<6].elementsEqual([0x93] + Array("NUMPY".utf8)) else { throw malformed("not a NumPy .npy file") }
    let lengthSize = bytes[6] >= 2 ? 4 : 2
    guard bytes.count >= 8 + lengthSize else { throw malformed("the header is cut off") }
    let headerLength = (0..<lengthSize).reduce(0) { $0 | Int(bytes[8 + $1]) << (8 * $1) }
    let start = 8 + lengthSize + headerLength
    guard start <= bytes.count else { throw malformed("the header is cut off") }
    let header = String(decoding: bytes[(8 + lengthSize)..<start], as: UTF8.self)
    guard !header.contains("'fortran_order': True") else { throw malformed("Fortran order is not supported") }
    guard let type = ["<i4", "<i8", "<u4", "<u2"].first(where: { header.contains("'\($0)'") }) else {
      throw malformed("the array must hold int32, int64, uint32 or uint16; its header says \(header.prefix(80))")
    }
    guard let open = header.firstIndex(of: "("), let close = header[open...].firstIndex(of: ")") else { throw malformed("no shape") }
    let shape = header[header.index(after: open)..<close].split(separator: ",").compactMap {
      Int($0.trimmingCharacters(in: .whitespaces))
    }
    guard (1...2).contains(shape.count) else { throw malformed("one or two dimensions are needed, the array has \(shape.count)") }
    guard shape.allSatisfy({ (0...bytes.count).contains($0) }) else { throw malformed("the shape \(shape) does not fit the file") }
    let size = Int(String(type.last!))!
    let count = shape.reduce(1, *)
    guard bytes.count - start >= count * size else { throw malformed("\(count) elements are declared, the file is shorter") }
    var tokens: [Int32] = []
    tokens.reserveCapacity(min(count, limit))
    for index in 0..<min(count, limit) {
      let at = start + index * size
      let value = (0..<size).reduce(UInt64(0)) { $0 | UInt64(bytes[at + $1]) << UInt64(8 * $1) }
      guard value <= UInt64(Int32.max) else { throw malformed("element \(index) is not a token id") }
      tokens.append(Int32(value))
    }
    self.init(tokens: tokens, count: count, rowLength: shape.count == 2 ? shape[1] : nil)
  }
}

extension TokenFile {
  /// Sources: `dataloader.h` of karpathy/llm.c, `prepare.py` of karpathy/nanoGPT.
  private static func raw(_ bytes: UnsafeRawBufferPointer, path: String, limit: Int) throws(CheckpointError) -> Self {
    func number(_ offset: Int, size: Int) -> UInt64 { (0..<size).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) } }
    var (start, size) = (0, 2)
    if bytes.count >= 1024, [20_240_520, 20_240_801].contains(number(0, size: 4)) {
      (start, size) = (1024, number(0, size: 4) == 20_240_801 ? 4 : 2)
      let count = number(8, size: 4)
      guard count * UInt64(size) == UInt64(bytes.count - start) else {
        throw .unreadable(path: path, reason: "its header announces \(count) tokens, \(bytes.count - start) bytes follow")
      }
    }
    guard (bytes.count - start) % size == 0 else { throw .unreadable(path: path, reason: "\(bytes.count) bytes are no row of 16-bit ids") }
    let held = (bytes.count - start) / size
    var tokens: [Int32] = []
    tokens.reserveCapacity(min(held, limit))
    for offset in stride(from: start, to: bytes.count, by: size).prefix(limit) {
      guard let id = Int32(exactly: number(offset, size: size)) else {
        throw .unreadable(path: path, reason: "the number at byte \(offset) is no token id")
      }
      tokens.append(id)
    }
    return Self(tokens: tokens, count: held, rowLength: nil)
  }
}
