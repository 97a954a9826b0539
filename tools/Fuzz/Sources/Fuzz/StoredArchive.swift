import Foundation

/// A ZIP archive around bytes, with checksums that are right.
enum StoredArchive {
  private static let table: [UInt32] = (0..<256).map { byte in
    (0..<8).reduce(UInt32(byte)) { sum, _ in sum & 1 == 1 ? sum >> 1 ^ 0xEDB8_8320 : sum >> 1 }
  }

  static func bytes(_ files: [(name: String, data: Data)]) -> Data {
    var (body, directory): ([UInt8], [UInt8]) = ([], [])
    func append(_ value: Int, _ size: Int, to bytes: inout [UInt8]) {
      for index in 0..<size { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * index))) }
    }
    for (name, data) in files {
      let content = [UInt8](data)
      var sum = ~UInt32(0)
      for byte in content { sum = sum >> 8 ^ table[Int(UInt8(truncatingIfNeeded: sum) ^ byte)] }
      let place = body.count
      func header(_ signature: Int, _ versions: Int, to bytes: inout [UInt8]) {
        append(signature, 4, to: &bytes)
        for _ in 0..<versions { append(20, 2, to: &bytes) }
        append(0x21 << 48, 8, to: &bytes)
        append(Int(~sum), 4, to: &bytes)
        for _ in 0..<2 { append(content.count, 4, to: &bytes) }
        append(name.utf8.count, 2, to: &bytes)
      }
      header(0x0403_4B50, 1, to: &body)
      append(0, 2, to: &body)
      body += name.utf8
      body += content
      header(0x0201_4B50, 2, to: &directory)
      append(0, 12, to: &directory)
      append(place, 4, to: &directory)
      directory += name.utf8
    }
    let start = body.count
    body += directory
    append(0x0605_4B50, 8, to: &body)
    for _ in 0..<2 { append(files.count, 2, to: &body) }
    append(directory.count, 4, to: &body)
    append(start, 4, to: &body)
    append(0, 2, to: &body)
    return Data(body)
  }
}
