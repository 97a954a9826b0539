public import Foundation

/// A ZIP archive put together here, so that what is wrong in it is known.
public enum StoredArchive {
  public static func bytes(_ files: KeyValuePairs<String, Data>) -> Data {
    func little(_ value: Int, _ size: Int) -> [UInt8] { (0..<size).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    var (body, directory): ([UInt8], [UInt8]) = ([], [])
    for (name, data) in files {
      var sizes = little(Int(checksum(data)), 4)
      sizes += little(data.count, 4)
      sizes += little(data.count, 4)
      sizes += little(name.utf8.count, 2)
      directory += [0x50, 0x4B, 1, 2, 20, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0] as [UInt8]
      directory += sizes
      directory += little(0, 12)
      directory += little(body.count, 4)
      directory += Array(name.utf8)
      body += [0x50, 0x4B, 3, 4, 20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0] as [UInt8]
      body += sizes
      body += [0, 0] as [UInt8]
      body += Array(name.utf8)
      body += data
    }
    var end: [UInt8] = [0x50, 0x4B, 5, 6, 0, 0, 0, 0]
    let fields: [(Int, Int)] = [(files.count, 2), (files.count, 2), (directory.count, 4), (body.count, 4), (0, 2)]
    for (value, size) in fields { end += little(value, size) }
    return Data(body) + Data(directory) + Data(end)
  }

  private static func checksum(_ data: Data) -> UInt32 {
    var sum = ~UInt32(0)
    for byte in data {
      sum ^= UInt32(byte)
      for _ in 0..<8 { sum = sum & 1 == 1 ? sum >> 1 ^ 0xEDB8_8320 : sum >> 1 }
    }
    return ~sum
  }
}
