internal import CZlib
internal import Foundation

/// The bytes of a file in pieces, inflated where the file is gzipped (RFC 1952); members of such a file follow each other.
final class ByteStream {
  private let handle: FileHandle
  private let name: String
  /// In one place: zlib's state points back at it.
  private var stream: UnsafeMutablePointer<z_stream>?
  private var input: [UInt8] = []
  private var hasStarted = false
  /// Whether a member of a gzipped file has begun that has not ended.
  private var isInsideMember = false
  private static let pieceSize = 1 << 20
  /// Bytes of the file, and what they were inflated to.
  private var read = 0
  private var made = 0
  /// No text is deflated to less than a part in so many; what claims to be is made to fill a memory.
  private static let largestRatio = 200
  /// Below this nothing is filled by it.
  private static let harmless = 1 << 26

  init(_ handle: FileHandle, name: String) {
    self.handle = handle
    self.name = name
  }

  deinit {
    guard let stream else { return }
    inflateEnd(stream)
    stream.deallocate()
  }

  private func unreadable(_ reason: String) -> CheckpointError { .unreadable(path: name, reason: reason) }

  private func readPiece() throws(CheckpointError) -> [UInt8] {
    do {
      let piece = [UInt8](try handle.read(upToCount: Self.pieceSize) ?? Data())
      read += piece.count
      return piece
    } catch { throw unreadable(SystemError.reason(error)) }
  }

  /// The next bytes; empty at the end.
  func next() throws(CheckpointError) -> [UInt8] {
    if !hasStarted {
      hasStarted = true
      input = try readPiece()
      if input.starts(with: [0x1F, 0x8B]) {
        let fresh = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        fresh.initialize(to: z_stream())
        guard zlib_begin_inflate(fresh, 15 + 16) == Z_OK else {
          fresh.deallocate()
          throw unreadable("zlib has no memory")
        }
        stream = fresh
        isInsideMember = true
      } else {
        return input
      }
    }
    guard let stream else { return try readPiece() }
    return try inflatedPiece(stream)
  }

  private func inflatedPiece(_ stream: UnsafeMutablePointer<z_stream>) throws(CheckpointError) -> [UInt8] {
    var output = [UInt8](repeating: 0, count: Self.pieceSize)
    while true {
      if input.isEmpty {
        input = try readPiece()
        if input.isEmpty {
          guard !isInsideMember else { throw unreadable("the gzipped data is cut off") }
          return []
        }
      }
      if !isInsideMember {
        inflateReset(stream)
        isInsideMember = true
      }
      let (consumed, produced, status) = inflate(stream, into: &output)
      guard status == Z_OK || status == Z_STREAM_END, consumed + produced > 0 else { throw unreadable("the gzipped data is damaged") }
      input.removeFirst(consumed)
      if status == Z_STREAM_END { isInsideMember = false }
      made += produced
      guard made < Self.harmless || made / Self.largestRatio <= read else {
        throw unreadable("\(read) bytes inflate to more than \(Self.largestRatio) times as many, which no text does")
      }
      if produced > 0 {
        output.removeLast(output.count - produced)
        return output
      }
    }
  }

  private func inflate(
    _ stream: UnsafeMutablePointer<z_stream>, into output: inout [UInt8]
  ) -> (consumed: Int, produced: Int, status: Int32) {
    let (inputCount, outputCount) = (input.count, output.count)
    return input.withUnsafeMutableBufferPointer { source in
      output.withUnsafeMutableBufferPointer { target in
        stream.pointee.next_in = source.baseAddress
        stream.pointee.avail_in = UInt32(inputCount)
        stream.pointee.next_out = target.baseAddress
        stream.pointee.avail_out = UInt32(outputCount)
        let status = CZlib.inflate(stream, Z_NO_FLUSH)
        return (inputCount - Int(stream.pointee.avail_in), outputCount - Int(stream.pointee.avail_out), status)
      }
    }
  }
}
