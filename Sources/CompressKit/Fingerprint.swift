internal import CheckpointIO
internal import Foundation
internal import Tensors

/// Tells whether two files are of the same model, or two lists of the same tokens: 64 bits of FNV-1a, in hexadecimal. Against accidents, not
/// against forgery.
enum Fingerprint {
  /// Of the tensors' names, types and shapes, and of 64 stretches of 64 bytes of each: a large model is not read as a whole.
  static func of(_ tensors: any TensorSource) throws(CheckpointError) -> String {
    var hash = FNV()
    for name in tensors.names.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
      guard let info = tensors.info(name) else { continue }
      hash.add("\(name) \(info.typeName) \(info.shape)".utf8)
      let bytes = try tensors.tensor(name).bytes
      let (pieces, length) = (64, 64)
      for piece in 0..<pieces {
        let start = bytes.startIndex + max(0, bytes.count - length) / (pieces - 1) * piece
        hash.add(bytes[start..<min(start + length, bytes.endIndex)])
      }
    }
    return hash.text
  }

  /// Of a checkpoint's tensors and configuration.
  static func of(_ checkpoint: Checkpoint) throws(CheckpointError) -> String {
    "\(try of(checkpoint.tensors)) \(of(checkpoint.config.json.text()))"
  }

  /// Of a file's length and of 64 stretches of 4096 bytes of it; `nil` where it cannot be read.
  static func of(file: URL) -> String? {
    guard let bytes = try? Data(contentsOf: file, options: .alwaysMapped) else { return nil }
    var hash = FNV()
    hash.add("\(bytes.count)".utf8)
    let (pieces, length) = (64, 4096)
    for piece in 0..<pieces {
      let start = bytes.startIndex + max(0, bytes.count - length) / (pieces - 1) * piece
      hash.add(bytes[start..<min(start + length, bytes.endIndex)])
    }
    return hash.text
  }

  static func of(_ text: String) -> String {
    var hash = FNV()
    hash.add(text.utf8)
    return hash.text
  }

  static func of(_ sequences: [[Int32]]) -> String {
    var hash = FNV()
    for sequence in sequences {
      hash.add("\(sequence.count)".utf8)
      sequence.withUnsafeBytes { hash.add($0) }
    }
    return hash.text
  }

  private struct FNV {
    private var state: UInt64 = 0xCBF2_9CE4_8422_2325

    mutating func add(_ bytes: some Sequence<UInt8>) { for byte in bytes { state = (state ^ UInt64(byte)) &* 0x100_0000_01B3 } }

    var text: String {
      let digits = String(state, radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }
  }
}
