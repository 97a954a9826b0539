/// A step from tokens back to text; the results of the last step are joined.
protocol TokenDecoder: Sendable {
  /// - Throws: `TokenizerError.endlessPattern`, or `endlessText` for a token that becomes too long.
  func decode(_ tokens: [Bytes]) throws(TokenizerError) -> [Bytes]
}

enum Decoders {
  /// The steps that `decoder` stands for, with sequences laid flat; without one, tokens are joined by spaces as in the reference.
  static func steps(of field: Field?) throws(TokenizerError) -> [any TokenDecoder] {
    guard let field else { return [SpaceJoiner()] }
    switch try field.string("type") {
    case "Sequence":
      var steps: [any TokenDecoder] = []
      for step in try field.list("decoders") { steps += try self.steps(of: step) }
      return steps
    case "Replace":
      let pattern = try TextPattern(try field.required("pattern", .pattern))
      return [ReplaceDecoder(pattern: pattern, content: Bytes(try field.string("content").utf8))]
    case "ByteFallback": return [ByteFallbackDecoder()]
    case "Fuse": return [Fuse()]
    case "Strip":
      let content = try field.required("content", .character).character()
      let start = try field.required("start", .count).count()
      return [StripDecoder(content: content, start: start, stop: try field.required("stop", .count).count())]
    case "ByteLevel": return [ByteLevelDecoder()]
    case "Metaspace": return [MetaspaceDecoder(metaspace: try Metaspace(field))]
    case "WordPiece":
      return [
        WordPieceDecoder(
          prefix: Bytes(try (field["prefix"]?.string() ?? "##").utf8), cleansUp: try field.bool("cleanup", else: true))
      ]
    case let type: throw .unsupportedComponent(field: field.path, type: type)
    }
  }
}

/// Words with spaces between them, without those that English spelling does not have.
private struct WordPieceDecoder: TokenDecoder {
  let prefix: Bytes
  let cleansUp: Bool

  /// What the reference replaces, in its order.
  private static let replacements = [
    (" .", "."), (" ?", "?"), (" !", "!"), (" ,", ","), (" ' ", "'"), (" n't", "n't"), (" 'm", "'m"), (" do not", " don't"),
    (" 's", "'s"), (" 've", "'ve"), (" 're", "'re"),
  ].map { (TextPattern.literal(Bytes($0.0.utf8)), Bytes($0.1.utf8)) }

  func decode(_ tokens: [Bytes]) throws(TokenizerError) -> [Bytes] {
    try tokens.enumerated().map { index, token throws(TokenizerError) in
      var text = token
      if index > 0 { text = token.starts(with: prefix) ? Bytes(token.dropFirst(prefix.count)) : [UInt8(ascii: " ")] + token }
      guard cleansUp else { return text }
      for (pattern, content) in Self.replacements {
        text = try pattern.replacing(in: text, with: content, limit: TextGrowth.limit(of: text.count)).text
      }
      return text
    }
  }
}

private struct SpaceJoiner: TokenDecoder {
  func decode(_ tokens: [Bytes]) -> [Bytes] { [Bytes(tokens.joined(separator: [UInt8(ascii: " ")]))] }
}

struct Fuse: TokenDecoder {
  func decode(_ tokens: [Bytes]) -> [Bytes] { [Bytes(tokens.joined())] }
}

struct ReplaceDecoder: TokenDecoder {
  let pattern: TextPattern
  let content: Bytes

  func decode(_ tokens: [Bytes]) throws(TokenizerError) -> [Bytes] {
    try tokens.map { token throws(TokenizerError) in
      try pattern.replacing(in: token, with: content, limit: TextGrowth.limit(of: token.count)).text
    }
  }
}

struct ByteFallbackDecoder: TokenDecoder {
  func decode(_ tokens: [Bytes]) -> [Bytes] {
    var result: [Bytes] = []
    var run: Bytes = []
    func flush() {
      if String(validating: run, as: UTF8.self) != nil {
        result.append(run)
      } else {
        for _ in run { result.append(Bytes("\u{FFFD}".utf8)) }
      }
      run.removeAll()
    }
    for token in tokens {
      if let byte = Self.byte(token) {
        run.append(byte)
      } else {
        flush()
        result.append(token)
      }
    }
    flush()
    return result
  }

  /// The byte that `<0xHH>` names.
  private static func byte(_ token: Bytes) -> UInt8? {
    guard token.count == 6, token.starts(with: "<0x".utf8), token[5] == UInt8(ascii: ">") else { return nil }
    return UInt8(String(decoding: token[3..<5], as: UTF8.self), radix: 16)
  }
}

struct StripDecoder: TokenDecoder {
  let content: Bytes
  let start: Int
  let stop: Int

  func decode(_ tokens: [Bytes]) -> [Bytes] {
    tokens.map { token in
      var rest = token[...]
      for _ in 0..<start {
        guard rest.starts(with: content) else { break }
        rest.removeFirst(content.count)
      }
      for _ in 0..<stop {
        guard rest.count >= content.count, rest.suffix(content.count).elementsEqual(content) else { break }
        rest.removeLast(content.count)
      }
      return Bytes(rest)
    }
  }
}

private struct ByteLevelDecoder: TokenDecoder {
  func decode(_ tokens: [Bytes]) -> [Bytes] {
    // A character may be spread over tokens, so only the whole can be made valid.
    let bytes = tokens.flatMap { ByteAlphabet.decoding($0) ?? $0 }
    return [Bytes(String(decoding: bytes, as: UTF8.self).utf8)]
  }
}

private struct MetaspaceDecoder: TokenDecoder {
  let metaspace: Metaspace

  func decode(_ tokens: [Bytes]) throws(TokenizerError) -> [Bytes] {
    let pattern = TextPattern.literal(metaspace.replacement)
    return try tokens.enumerated().map { index, token throws(TokenizerError) in
      let drops = index == 0 && metaspace.scheme != .never
      let space: Bytes = drops ? [] : [UInt8(ascii: " ")]
      return try pattern.replacing(in: token, with: space, limit: TextGrowth.limit(of: token.count)).text
    }
  }
}
