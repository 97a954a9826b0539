import StrictJSON
import Testing

@testable import Tokenizers

@Suite struct PreTokenizerTests {
  static let llama3 =
    #"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"#
  static let qwen = llama3.replacing(#"\p{N}{1,3}"#, with: #"\p{N}"#)

  static func pieces(of text: String, _ steps: [any PreTokenizer]) throws -> [String] {
    var list = PieceList(NormalizedText(bytes: Bytes(text.utf8), startsAtOrigin: true))
    for step in steps { try step.split(&list) }
    return list.ranges.map { String(decoding: list.text[$0], as: UTF8.self) }
  }

  static func pieces(of text: String, expression: String) throws -> [String] {
    let pattern = TextPattern.expression(try RegularExpression(expression, field: "test"))
    return try pieces(of: text, [Split(pattern: pattern, behavior: .isolated, isInverted: false)])
  }

  static func gpt2Pieces(of text: String) throws -> [String] {
    let field = Field(path: "", json: try JSON(parsing: #"{"add_prefix_space": false}"#))
    return try pieces(of: text, [try ByteLevel(field).leavingBytes()])
  }

  /// `String` would find canonically equivalent pieces equal.
  static func expect(_ pieces: [String], _ expected: [String], _ location: SourceLocation = #_sourceLocation) {
    #expect(pieces.map { Array($0.utf8) } == expected.map { Array($0.utf8) }, "\(pieces)", sourceLocation: location)
  }

  /// Pieces of one text under three families; `nil` stands for what the column before says.
  struct Row: Sendable {
    let text: String
    let gpt2: [String]
    var llama3: [String]?
    var qwen: [String]?
  }

  /// Made with tokenizers 0.23.3.
  static let rows = [
    Row(
      text: "Hello world  I'm 12345 years\n\n old!! d\u{E9}j\u{E0}  ",
      gpt2: ["Hello", " world", " ", " I", "'m", " 12345", " years", "\n\n", " old", "!!", " d\u{E9}j\u{E0}", "  "],
      llama3: ["Hello", " world", " ", " I", "'m", " ", "123", "45", " years", "\n\n", " old", "!!", " d\u{E9}j\u{E0}", "  "],
      qwen: ["Hello", " world", " ", " I", "'m", " ", "1", "2", "3", "4", "5", " years", "\n\n", " old", "!!", " d\u{E9}j\u{E0}", "  "]),
    Row(
      text: "I'LL it's THEY'RE a'lL",
      gpt2: ["I", "'", "LL", " it", "'s", " THEY", "'", "RE", " a", "'", "lL"],
      llama3: ["I", "'LL", " it", "'s", " THEY", "'RE", " a", "'lL"]),
    Row(
      text: "x=1+2;\r\n\tfoo_bar  \n",
      gpt2: ["x", "=", "1", "+", "2", ";", "\r\n", "\t", "foo", "_", "bar", "  \n"],
      llama3: ["x", "=", "1", "+", "2", ";\r\n", "\tfoo", "_bar", "  \n"]),
    Row(
      text: "日本語テキスト 😀👍🏽 3.14",
      gpt2: ["日本語テキスト", " 😀👍🏽", " 3", ".", "14"],
      llama3: ["日本語テキスト", " 😀👍🏽", " ", "3", ".", "14"],
      qwen: ["日本語テキスト", " 😀👍🏽", " ", "3", ".", "1", "4"]),
    Row(text: "   leading", gpt2: ["  ", " leading"]),
    Row(
      text: "a\u{A0}b \u{FB01} e\u{301}", gpt2: ["a", "\u{A0}", "b", " \u{FB01}", " e", "\u{301}"],
      llama3: ["a", "\u{A0}b", " \u{FB01}", " e", "\u{301}"]),
  ]

  @Test(arguments: rows)
  func families(_ row: Row) throws {
    let llama3 = row.llama3 ?? row.gpt2
    Self.expect(try Self.gpt2Pieces(of: row.text), row.gpt2)
    Self.expect(try Self.pieces(of: row.text, expression: Self.llama3), llama3)
    Self.expect(try Self.pieces(of: row.text, expression: Self.qwen), row.qwen ?? llama3)
  }

  /// Made with tokenizers 0.23.3.
  @Test(arguments: [
    ("x'\u{17F} y", ["x", "'\u{17F}", " y"]),
    ("a\u{B}b\u{B} c", ["a", "\u{B}b", "\u{B}", " c"]),
    ("a\u{85}b \u{85}!", ["a", "\u{85}b", " ", "\u{85}", "!"]),
    ("a\u{3000}\u{3000}b", ["a", "\u{3000}", "\u{3000}b"]),
    ("\u{200B}\u{200B}x", ["\u{200B}\u{200B}", "x"]),
    ("½ⅷ٣", ["½ⅷ٣"]),
    ("a\u{2028} b", ["a", "\u{2028}", " b"]),
    ("e\u{301}te", ["e", "\u{301}te"]),
    ("\u{E01}\u{E34}\u{E19}", ["\u{E01}", "\u{E34}\u{E19}"]),
  ])
  func cornersOfLlama3(_ text: String, _ pieces: [String]) throws {
    Self.expect(try Self.pieces(of: text, expression: Self.llama3), pieces)
  }

  @Test func byteLevelWritesPrintableCharacters() throws {
    let field = Field(path: "", json: try JSON(parsing: #"{"add_prefix_space": false}"#))
    try Self.expect(Self.pieces(of: " é\n\u{0}\u{7F}\u{AD}", [try ByteLevel(field)]), ["ĠÃ©", "Ċ", "ĀġÂŃ"])
  }

  @Test func byteAlphabet() {
    let characters = ByteAlphabet.characters
    #expect(Set(characters).count == 256)
    #expect(characters[0x0A] == "Ċ" && characters[0x20] == "\u{120}" && characters[0x7F] == "\u{121}")
    #expect(characters[0x80] == "Ģ" && characters[0xAD] == "\u{143}" && characters[0xFF] == "ÿ" && characters[0x21] == "!")
    let bytes = Bytes(UInt8.min...UInt8.max)
    #expect(ByteAlphabet.decoding(ByteAlphabet.encoding(bytes.span)) == bytes)
    #expect(ByteAlphabet.decoding(Bytes("a b".utf8)) == nil)
  }
}
