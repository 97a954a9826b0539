internal import CZlib
internal import Foundation

/// Undoes deflate (RFC 1951), by zlib.
enum Inflate {
  /// No stream of deflate stands for more than this many times its own bytes.
  static let largestRatio = 1032

  /// - Parameters:
  ///   - compressed: a bare deflate stream.
  ///   - count: how many bytes it stands for, or how many of them are wanted.
  ///   - isPrefix: whether more may follow.
  /// - Returns: `nil` for a damaged stream, or one of another length.
  static func bytes(of compressed: Data, count: Int, isPrefix: Bool = false) -> Data? {
    guard count / largestRatio <= compressed.count else { return nil }
    var stream = z_stream()
    guard zlib_begin_inflate(&stream, -15) == Z_OK else { return nil }
    defer { inflateEnd(&stream) }
    var result = Data(count: count)
    let status = result.withUnsafeMutableBytes { out in
      compressed.withUnsafeBytes { source -> Int32 in
        // zlib counts in 32 bits.
        let piece = 1 << 30
        var (read, written, status) = (0, 0, Z_OK)
        while status == Z_OK {
          let (input, room) = (min(piece, source.count - read), min(piece, out.count - written))
          stream.next_in = source.baseAddress.map { UnsafeMutablePointer(mutating: ($0 + read).assumingMemoryBound(to: UInt8.self)) }
          stream.avail_in = UInt32(input)
          stream.next_out = out.baseAddress.map { ($0 + written).assumingMemoryBound(to: UInt8.self) }
          stream.avail_out = UInt32(room)
          status = inflate(&stream, Z_NO_FLUSH)
          let (taken, made) = (input - Int(stream.avail_in), room - Int(stream.avail_out))
          read += taken
          written += made
          if isPrefix, written == out.count { return Z_STREAM_END }
          if status == Z_OK, taken == 0, made == 0 { return Z_BUF_ERROR }
        }
        return status == Z_STREAM_END && written == out.count ? Z_STREAM_END : Z_DATA_ERROR
      }
    }
    return status == Z_STREAM_END ? result : nil
  }
}

extension Data {
  /// The CRC-32 that ZIP files store.
  ///
  /// - Parameter sum: that of the bytes before these.
  func crc32(after sum: UInt32 = 0) -> UInt32 {
    withUnsafeBytes { bytes in
      var (sum, done) = (UInt(sum), 0)
      while done < bytes.count {
        let piece = Swift.min(1 << 30, bytes.count - done)
        sum = CZlib.crc32(sum, (bytes.baseAddress! + done).assumingMemoryBound(to: UInt8.self), UInt32(piece))
        done += piece
      }
      return UInt32(truncatingIfNeeded: sum)
    }
  }
}
