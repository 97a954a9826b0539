/// GPT-2's alphabet: every byte is written as a printable character.
enum ByteAlphabet {
  /// The character of each byte. Source: `bytes_to_unicode` of openai/gpt-2, `src/encoder.py`.
  static let characters: [Unicode.Scalar] = {
    var characters: [Unicode.Scalar] = []
    var substitutes: UInt16 = 0x100
    for byte in UInt8.min...UInt8.max {
      switch byte {
      case 0x21...0x7E, 0xA1...0xAC, 0xAE...0xFF: characters.append(Unicode.Scalar(byte))
      default:
        if let scalar = Unicode.Scalar(substitutes) { characters.append(scalar) }
        substitutes += 1
      }
    }
    return characters
  }()

  private static let bytes: [UInt8?] = {
    var bytes = [UInt8?](repeating: nil, count: 0x144)
    for (byte, character) in characters.enumerated() { bytes[Int(character.value)] = UInt8(byte) }
    return bytes
  }()

  static func encoding(_ piece: Span<UInt8>) -> Bytes {
    var text = String.UnicodeScalarView()
    for index in 0..<piece.count { text.append(characters[Int(piece[index])]) }
    return Bytes(String(text).utf8)
  }

  /// The bytes that a token stands for; `nil` where it has a character from outside the alphabet.
  static func decoding(_ token: Bytes) -> Bytes? {
    var result: Bytes = []
    result.reserveCapacity(token.count)
    var position = 0
    while position < token.count {
      let (scalar, width) = token.span.scalar(at: position)
      guard scalar.value < 0x144, let byte = bytes[Int(scalar.value)] else { return nil }
      result.append(byte)
      position += width
    }
    return result
  }
}

struct ByteLevel: PreTokenizer {
  private let addsPrefixSpace: Bool
  private let splitter: Split?
  /// Off in the last step of all: the model then reads bytes, and the characters need not be written.
  private var writesAlphabet = true

  init(_ field: Field) throws(TokenizerError) {
    addsPrefixSpace = try field.bool("add_prefix_space", else: true)
    guard try field.bool("use_regex", else: true) else {
      splitter = nil
      return
    }
    splitter = WordPattern(WordPattern.gpt2).map { Split(pattern: .words($0), behavior: .isolated, isInverted: false) }
  }

  func leavingBytes() -> ByteLevel {
    var copy = self
    copy.writesAlphabet = false
    return copy
  }

  func split(_ pieces: inout PieceList) throws(TokenizerError) {
    if addsPrefixSpace {
      pieces.rewrite { piece, _, text in
        if piece[0] != UInt8(ascii: " ") { text.append(UInt8(ascii: " ")) }
        for index in 0..<piece.count { text.append(piece[index]) }
      }
    }
    try splitter?.split(&pieces)
    if writesAlphabet { pieces.rewrite { piece, _, text in text += ByteAlphabet.encoding(piece) } }
  }
}
