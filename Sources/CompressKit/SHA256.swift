internal import CCrypto
internal import CheckpointIO
internal import Foundation

/// SHA-256 of bytes that come piece by piece (FIPS 180-4): what `sha256sum` prints of a file.
struct SHA256: ~Copyable {
  private let context: OpaquePointer

  init() {
    context = EVP_MD_CTX_new()!
    precondition(EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1, "libcrypto has no SHA-256")
  }

  deinit { EVP_MD_CTX_free(context) }

  mutating func add(_ bytes: Data) { bytes.withUnsafeBytes { _ = EVP_DigestUpdate(context, $0.baseAddress, $0.count) } }

  /// The digest of all that was added, in hexadecimal.
  consuming func text() -> String {
    var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
    var count: UInt32 = 0
    EVP_DigestFinal_ex(context, &digest, &count)
    return digest.prefix(Int(count)).map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
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
    return hash.text()
  }
}
