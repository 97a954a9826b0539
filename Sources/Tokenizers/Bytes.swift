/// Text as UTF-8.
///
/// `String` compares by canonical equivalence, under which tokens of one vocabulary may be equal; bytes keep them apart.
typealias Bytes = [UInt8]

/// Positions are those of code points in text that is known to be UTF-8.
extension Span<UInt8> {
  /// The code point at `position` and the number of bytes it takes.
  func scalar(at position: Int) -> (scalar: Unicode.Scalar, width: Int) {
    let first = self[position]
    guard first >= 0x80 else { return (Unicode.Scalar(first), 1) }
    let width = Unicode.Scalar.width(leading: first)
    var value = UInt32(first) & (0x7F >> UInt32(width))
    for offset in 1..<width { value = value << 6 | UInt32(self[position + offset] & 0x3F) }
    return (Unicode.Scalar(value) ?? "\u{FFFD}", width)
  }

  /// The code point that ends before `position`, which must not be the start.
  func scalar(before position: Int) -> (scalar: Unicode.Scalar, width: Int) {
    var start = position - 1
    while start > 0, self[start] & 0xC0 == 0x80 { start -= 1 }
    return scalar(at: start)
  }

  /// The end of the run of white space that begins at `position`.
  func endOfWhitespace(from position: Int) -> Int {
    var end = position
    while end < count {
      let (scalar, width) = scalar(at: end)
      guard scalar.properties.isWhitespace else { break }
      end += width
    }
    return end
  }

  /// The start of the run of white space that ends at `position`.
  func startOfWhitespace(to position: Int) -> Int {
    var start = position
    while start > 0 {
      let (scalar, width) = scalar(before: start)
      guard scalar.properties.isWhitespace else { break }
      start -= width
    }
    return start
  }

  func equals(_ other: Span<UInt8>) -> Bool {
    guard count == other.count else { return false }
    for index in 0..<count where self[index] != other[index] { return false }
    return true
  }

  func starts(with prefix: Bytes, at position: Int) -> Bool {
    guard position + prefix.count <= count else { return false }
    for index in 0..<prefix.count where self[position + index] != prefix[index] { return false }
    return true
  }
}

extension Unicode.Scalar {
  /// The length of a UTF-8 sequence, told by its first byte.
  static func width(leading byte: UInt8) -> Int { byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4 }

  /// Unicode's `Nd`, `Nl` and `No`.
  var isNumber: Bool {
    switch properties.generalCategory {
    case .decimalNumber, .letterNumber, .otherNumber: true
    default: false
    }
  }

  /// Unicode's `Mn`, `Mc` and `Me`.
  var isMark: Bool {
    switch properties.generalCategory {
    case .nonspacingMark, .spacingMark, .enclosingMark: true
    default: false
    }
  }

  /// What `\w` matches (UTS 18, annex C).
  var isWord: Bool {
    switch properties.generalCategory {
    case .decimalNumber, .connectorPunctuation: true
    default: properties.isAlphabetic || properties.isJoinControl || isMark
    }
  }
}
