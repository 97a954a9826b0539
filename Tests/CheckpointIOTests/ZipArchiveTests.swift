import CheckpointIO
import Foundation
import TestSupport
import Testing

/// The ZIP reader, by way of the two readers on top of it.
struct ZipArchiveTests {
  private static let array = Data(
    [0x93] + Array("NUMPY".utf8) + [1, 0, 55, 0] + Array("{'descr':'|u1','fortran_order':False,'shape':(2,)}   \n\n".utf8) + [1, 2])

  private func complaint(_ bytes: Data) throws -> String? {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "x.npz")
      try bytes.write(to: url)
      return ForeignFiles.complaint {
        let source = try NumpyArchive(url)
        for name in source.names { _ = try source.tensor(name) }
        return source
      }
    }
  }

  private let sound = StoredArchive.bytes(["a.npy": array, "b.npy": array])

  @Test func theSampleIsSound() throws { #expect(try complaint(sound) == nil) }

  @Test func aCommentMayFollow() throws {
    var bytes = sound
    bytes[bytes.count - 2] = 3
    #expect(try complaint(bytes + Data([1, 2, 3])) == nil)
    #expect(try complaint(sound + Data([0]))?.contains("no ZIP directory") == true)
  }

  /// Each entry could be what it says; all of them together are no weights.
  @Test func refusesWhatInflatesBeyondMeasure() throws {
    let name = "a.npy"
    var bytes = StoredArchive.bytes(["a.npy": Data(count: 300_000)])
    let directory = try #require(bytes.range(of: Data([0x50, 0x4B, 1, 2]))).lowerBound
    (bytes[8], bytes[directory + 10]) = (8, 8)
    func claim(_ size: UInt32) {
      for index in 0..<4 { bytes[directory + 24 + index] = UInt8(truncatingIfNeeded: size >> (8 * UInt32(index))) }
    }
    claim(300_000_000)
    #expect(try complaint(bytes)?.contains("made to fill the memory") == true)
    claim(3_000_000)
    #expect(try complaint(bytes)?.contains(name) == true, "that much may be, and is damaged here")
  }

  @Test func refusesDamage() throws {
    let directory = try #require(sound.range(of: Data([0x50, 0x4B, 1, 2]))).lowerBound
    func changed(_ offset: Int, _ value: UInt8) throws -> String { try #require(try complaint(sound.with(directory + offset, value))) }
    #expect(try changed(8, 1).contains("encrypted"))
    #expect(try changed(10, 12).contains("method 12"))
    #expect(try changed(16, sound[directory + 16] ^ 1).contains("checksum"))
    #expect(try changed(20, 1).contains("two sizes"))
    #expect(try changed(26, 1).contains("two sizes"))
    #expect(try changed(28, 200).contains("cut off"))
    #expect(try changed(42, 1).contains("header of its own"))
    #expect(try changed(0, 0).contains("no directory entry"))
    #expect(try changed(46, 0xFF).contains("UTF-8"))
    // Both entries name the first one's bytes.
    #expect(try #require(try complaint(StoredArchive.bytes(["a.npy": Self.array, "a.npy": Self.array]))).contains("occurs twice"))
  }

  @Test func aBombIsRefusedByItsSizes() throws {
    var bytes = try Data(contentsOf: ForeignFiles.url("compressed.npz"))
    let directory = try #require(bytes.range(of: Data([0x50, 0x4B, 1, 2]))).lowerBound
    for (offset, value) in zip(24..<28, [0, 0, 0, 0x7F] as [UInt8]) { bytes[directory + offset] = value }
    #expect(try complaint(bytes)?.contains("more than") == true)
  }
}

extension Data {
  func with(_ offset: Int, _ value: UInt8) -> Data {
    var copy = self
    copy[offset] = value
    return copy
  }
}
