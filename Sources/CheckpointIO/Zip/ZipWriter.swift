internal import Foundation

/// Writes a ZIP file of stored entries, one after the other; their bytes begin at multiples of 64. The same entries make the same file.
struct ZipWriter {
  private let file: FileHandle
  private var offset = 0
  private var directory: [UInt8] = []
  private var count = 0

  init(to file: FileHandle) { self.file = file }

  /// - Parameter parts: the bytes of the entry, in pieces.
  mutating func append(_ name: String, _ parts: [Data]) throws {
    let size = parts.reduce(0) { $0 + $1.count }
    let checksum = parts.reduce(UInt32(0)) { $1.crc32(after: $0) }
    let isWide = size >= 0xFFFF_FFFF || offset >= 0xFFFF_FFFF
    var extra: [UInt8] = []
    if isWide {
      extra.append(UInt16(1), UInt16(16))
      extra.append(UInt64(size), UInt64(size))
    }
    // What pads is a field of its own; it takes four bytes at least.
    let bare = offset + 30 + name.utf8.count + extra.count + 4
    let padding = (64 - bare % 64) % 64
    extra.append(UInt16(0x4246), UInt16(padding))
    extra += [UInt8](repeating: 0, count: padding)
    let version: UInt16 = isWide ? 45 : 20
    let narrow = isWide ? UInt32.max : UInt32(size)
    var header: [UInt8] = ZipArchive.signature
    // Names are UTF-8; the date is the first there is.
    header.append(version, UInt16(0x800), UInt16(0), UInt16(0), UInt16(0x21))
    header.append(checksum, narrow, narrow)
    header.append(UInt16(name.utf8.count), UInt16(extra.count))
    try file.write(contentsOf: Data(header + Array(name.utf8) + extra))
    for part in parts { try file.write(contentsOf: part) }
    var wide: [UInt8] = []
    if isWide {
      wide.append(UInt16(1), UInt16(24))
      wide.append(UInt64(size), UInt64(size), UInt64(offset))
    }
    directory += [0x50, 0x4B, 1, 2]
    directory.append(version, version, UInt16(0x800), UInt16(0), UInt16(0), UInt16(0x21))
    directory.append(checksum, narrow, narrow)
    directory.append(UInt16(name.utf8.count), UInt16(wide.count), UInt16(0), UInt16(0), UInt16(0))
    directory.append(UInt32(0), isWide ? UInt32.max : UInt32(offset))
    directory += Array(name.utf8) + wide
    offset += header.count + name.utf8.count + extra.count + size
    count += 1
  }

  /// The directory; nothing may be appended after it.
  mutating func finish() throws {
    var end: [UInt8] = []
    let (start, size) = (offset, directory.count)
    if count >= 0xFFFF || start >= 0xFFFF_FFFF {
      end += [0x50, 0x4B, 6, 6]
      end.append(UInt64(44))
      end.append(UInt16(45), UInt16(45))
      end.append(UInt32(0), UInt32(0))
      end.append(UInt64(count), UInt64(count), UInt64(size), UInt64(start))
      end += [0x50, 0x4B, 6, 7]
      end.append(UInt32(0))
      end.append(UInt64(start + size))
      end.append(UInt32(1))
    }
    let few = UInt16(min(count, 0xFFFF))
    end += [0x50, 0x4B, 5, 6]
    end.append(UInt16(0), UInt16(0), few, few)
    end.append(UInt32(min(size, 0xFFFF_FFFF)), UInt32(min(start, 0xFFFF_FFFF)))
    end.append(UInt16(0))
    try file.write(contentsOf: Data(directory + end))
  }
}

extension [UInt8] {
  fileprivate mutating func append<each Value: FixedWidthInteger>(_ values: repeat each Value) {
    func add(_ value: some FixedWidthInteger) { Swift.withUnsafeBytes(of: value.littleEndian) { self += $0 } }
    repeat add(each values)
  }
}
