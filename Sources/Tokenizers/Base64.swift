import Foundation

enum Base64 {
  /// `nil` for anything but base64 with its padding.
  static func decoding(_ text: ArraySlice<UInt8>) -> Bytes? { Data(base64Encoded: Data(text)).map { Bytes($0) } }

  static func encoding(_ bytes: Bytes) -> String { Data(bytes).base64EncodedString() }
}
