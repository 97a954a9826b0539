internal import CheckpointIO
internal import Foundation

/// SHA-256 of bytes that come piece by piece (FIPS 180-4): what `sha256sum` prints of a file.
struct SHA256 {
  /// The first 32 bits behind the point of the square roots of the first eight primes.
  private var state: [UInt32] = [
    0x6A09_E667, 0xBB67_AE85, 0x3C6E_F372, 0xA54F_F53A,
    0x510E_527F, 0x9B05_688C, 0x1F83_D9AB, 0x5BE0_CD19,
  ]
  private var pending: [UInt8] = []
  private var length: UInt64 = 0

  /// The same of the cube roots of the first 64 primes.
  private static let constants: [UInt32] = [
    0x428A_2F98, 0x7137_4491, 0xB5C0_FBCF, 0xE9B5_DBA5, 0x3956_C25B, 0x59F1_11F1, 0x923F_82A4, 0xAB1C_5ED5,
    0xD807_AA98, 0x1283_5B01, 0x2431_85BE, 0x550C_7DC3, 0x72BE_5D74, 0x80DE_B1FE, 0x9BDC_06A7, 0xC19B_F174,
    0xE49B_69C1, 0xEFBE_4786, 0x0FC1_9DC6, 0x240C_A1CC, 0x2DE9_2C6F, 0x4A74_84AA, 0x5CB0_A9DC, 0x76F9_88DA,
    0x983E_5152, 0xA831_C66D, 0xB003_27C8, 0xBF59_7FC7, 0xC6E0_0BF3, 0xD5A7_9147, 0x06CA_6351, 0x1429_2967,
    0x27B7_0A85, 0x2E1B_2138, 0x4D2C_6DFC, 0x5338_0D13, 0x650A_7354, 0x766A_0ABB, 0x81C2_C92E, 0x9272_2C85,
    0xA2BF_E8A1, 0xA81A_664B, 0xC24B_8B70, 0xC76C_51A3, 0xD192_E819, 0xD699_0624, 0xF40E_3585, 0x106A_A070,
    0x19A4_C116, 0x1E37_6C08, 0x2748_774C, 0x34B0_BCB5, 0x391C_0CB3, 0x4ED8_AA4A, 0x5B9C_CA4F, 0x682E_6FF3,
    0x748F_82EE, 0x78A5_636F, 0x84C8_7814, 0x8CC7_0208, 0x90BE_FFFA, 0xA450_6CEB, 0xBEF9_A3F7, 0xC671_78F2,
  ]
  private static let blockSize = 64

  mutating func add(_ bytes: some Collection<UInt8>) {
    length += UInt64(bytes.count)
    pending += bytes
    let whole = pending.count / Self.blockSize * Self.blockSize
    guard whole > 0 else { return }
    pending.withUnsafeBytes { buffer in
      state.withUnsafeMutableBufferPointer { state in
        for start in stride(from: 0, to: whole, by: Self.blockSize) {
          Self.mix(UnsafeRawBufferPointer(rebasing: buffer[start..<start + Self.blockSize]), into: state)
        }
      }
    }
    pending.removeFirst(whole)
  }

  /// The digest of all that was added, in hexadecimal.
  var text: String {
    var copy = self
    // A one, zeros up to eight bytes before the end of a block, and the length in bits.
    var end: [UInt8] = [0x80]
    end += Array(repeating: 0, count: (2 * Self.blockSize - 9 - pending.count) % Self.blockSize)
    end += (0..<8).reversed().map { UInt8(truncatingIfNeeded: (length &* 8) >> (8 * UInt64($0))) }
    copy.add(end)
    return copy.state.map { word in
      let digits = String(word, radix: 16)
      return String(repeating: "0", count: 8 - digits.count) + digits
    }.joined()
  }

  private static func mix(_ block: UnsafeRawBufferPointer, into state: UnsafeMutableBufferPointer<UInt32>) {
    func turned(_ x: UInt32, _ by: UInt32) -> UInt32 { x >> by | x << (32 - by) }
    withUnsafeTemporaryAllocation(of: UInt32.self, capacity: 64) { schedule in
      for index in 0..<16 { schedule[index] = UInt32(bigEndian: block.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)) }
      for index in 16..<64 {
        let (early, late) = (schedule[index - 15], schedule[index - 2])
        let first = turned(early, 7) ^ turned(early, 18) ^ early >> 3
        let second = turned(late, 17) ^ turned(late, 19) ^ late >> 10
        schedule[index] = schedule[index - 16] &+ first &+ schedule[index - 7] &+ second
      }
      var (a, b, c, d) = (state[0], state[1], state[2], state[3])
      var (e, f, g, h) = (state[4], state[5], state[6], state[7])
      for index in 0..<64 {
        let choice = (e & f) ^ (~e & g)
        let majority = (a & b) ^ (a & c) ^ (b & c)
        let one = h &+ (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) &+ choice &+ constants[index] &+ schedule[index]
        let two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) &+ majority
        (h, g, f, e) = (g, f, e, d &+ one)
        (d, c, b, a) = (c, b, a, one &+ two)
      }
      for (index, word) in [a, b, c, d, e, f, g, h].enumerated() { state[index] &+= word }
    }
  }
}

extension SHA256 {
  /// Of a whole file, which is read piece by piece.
  ///
  /// - Throws: `CheckpointError` for a file that cannot be read; `CancellationError` when the task is cancelled.
  static func of(_ file: URL) throws -> String {
    var hash = SHA256()
    do {
      let handle = try FileHandle(forReadingFrom: file)
      while let piece = try handle.read(upToCount: 1 << 20), !piece.isEmpty {
        try Task.checkCancellation()
        hash.add(piece)
      }
    } catch let error as CancellationError { throw error } catch {
      throw CheckpointError.unreadable(path: file.path, reason: SystemError.reason(error))
    }
    return hash.text
  }
}
