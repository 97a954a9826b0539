/// What the patterns of tokenizers ask of a code point.
struct CharacterClass: OptionSet, Sendable {
  let rawValue: UInt8

  /// Unicode's `White_Space`; the two line ends among them have a bit of their own.
  static let space = CharacterClass(rawValue: 1)
  static let lineEnd = CharacterClass(rawValue: 2)
  /// `Lu` and `Lt`, `Ll`, and the letters without case, `Lm` and `Lo`.
  static let upper = CharacterClass(rawValue: 4)
  static let lower = CharacterClass(rawValue: 8)
  static let caseless = CharacterClass(rawValue: 16)
  static let mark = CharacterClass(rawValue: 32)
  static let number = CharacterClass(rawValue: 64)

  static let letter: CharacterClass = [.upper, .lower, .caseless]

  func intersects(_ other: CharacterClass) -> Bool { rawValue & other.rawValue != 0 }

  init(rawValue: UInt8) { self.rawValue = rawValue }

  /// Unicode 16, which is that of the reference's Oniguruma, whatever this program's standard library knows.
  init(_ scalar: Unicode.Scalar) {
    guard let age = scalar.properties.age, age.major <= 16 else {
      self = []
      return
    }
    switch scalar.properties.generalCategory {
    case .uppercaseLetter, .titlecaseLetter: self = .upper
    case .lowercaseLetter: self = .lower
    // A letter without case as of Unicode 17.
    case .otherLetter: self = scalar == "\u{295}" ? .lower : .caseless
    case .modifierLetter: self = .caseless
    case .nonspacingMark, .spacingMark, .enclosingMark: self = .mark
    case .decimalNumber, .letterNumber, .otherNumber: self = .number
    default: self = !scalar.properties.isWhitespace ? [] : scalar == "\r" || scalar == "\n" ? [.space, .lineEnd] : .space
    }
  }
}

/// The classes of all code points.
struct CharacterClasses: Sendable {
  static let shared = CharacterClasses()

  /// Up to the last ideograph; what lies above are variation selectors, and nothing else that has a class.
  private static let tableEnd = 0x32400
  private let table: [CharacterClass]

  private init() {
    table = (0..<UInt32(Self.tableEnd)).map { value in Unicode.Scalar(value).map { CharacterClass($0) } ?? [] }
  }

  /// The class of the code point at `position` of UTF-8 text, and its width.
  @inline(__always)
  func look(_ text: Span<UInt8>, _ position: Int) -> (is: CharacterClass, width: Int) {
    let first = text[position]
    guard first >= 0x80 else { return (table[Int(first)], 1) }
    let (scalar, width) = text.scalar(at: position)
    let value = Int(scalar.value)
    return (value < Self.tableEnd ? table[value] : (0xE0100...0xE01EF).contains(value) ? .mark : [], width)
  }
}
