import StrictJSON
import Testing

struct ParserTests {
  private func reason(_ bytes: some Sequence<UInt8>) -> JSONError? {
    do throws(JSONError) {
      _ = try JSON(parsing: bytes)
      return nil
    } catch { return error }
  }

  @Test(arguments: [
    ("null", JSON.null), ("true", .bool(true)), ("false", .bool(false)), (" \t\r\n 0 \n", .number("0")), ("\"\"", .string("")),
    ("[]", .array([])),
    ("{}", .object([])), ("[ ]", .array([])), ("{ }", .object([])),
    ("[1,[2],{}]", .array([.number("1"), .array([.number("2")]), .object([])])),
    ("{\"a\":{\"b\":[null]}}", .object([.init("a", .object([.init("b", .array([.null]))]))])),
    ("{\"\":1}", .object([.init("", .number("1"))])), ("[\"\u{7F}\"]", .array([.string("\u{7F}")])),
  ])
  func acceptsTheGrammar(_ text: String, _ value: JSON) throws {
    #expect(try JSON(parsing: text) == value)
  }

  @Test(arguments: [
    "", " ", "nul", "True", "nullx", "tru", "[", "]", "{", "}", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{\"a\"", "{\"a\":", "{\"a\":1",
    "{\"a\":1,}",
    "{a:1}", "{1:1}", "{\"a\" 1}", "{,}", "'a'", "1 2", "01", "-", "-a", "+1", ".5", "1.", "1.e3", "1e", "1e+", "0x1", "NaN", "Infinity",
    "-Infinity", "\"", "\"a", "\"\\\"", "\"\\x\"", "\"\\u12\"", "\"\\u12g4\"", "\"\n\"", "\"\t\"", "\"\u{0}\"", "[]]", "{}\u{0}",
    "\u{FEFF}{}",
    "//\n1", "/**/1", "\u{A0}1", "[1;2]",
  ])
  func rejectsEverythingElse(_ text: String) {
    #expect(throws: JSONError.self) { try JSON(parsing: text) }
  }

  @Test func rejectsBytesThatAreNotUTF8() {
    #expect(reason([0x22, 0xFF, 0x22])?.reason == "the string is not UTF-8")
    // An overlong slash, a surrogate written as UTF-8, and a sequence that the quote cuts off.
    for bytes: [UInt8] in [[0x22, 0xC0, 0xAF, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22], [0x22, 0xE2, 0x82, 0x22], [0xFF], [0x31, 0xFF]] {
      #expect(reason(bytes) != nil, "\(bytes)")
    }
  }

  @Test func refusesARepeatedKeyUnlessAllowed() throws {
    let text = "{\"a\":1,\"b\":2,\"a\":3}"
    let error = try #require(reason(text.utf8))
    #expect(error.offset == 13)
    #expect(error.reason.contains("\"a\""))
    // Escapes do not hide a repetition; different objects do not repeat each other.
    #expect(throws: JSONError.self) { try JSON(parsing: "{\"a\":1,\"\\u0061\":2}") }
    #expect(throws: Never.self) { try JSON(parsing: "[{\"a\":1},{\"a\":{\"a\":1}}]") }
    let both = try JSON(parsing: text.utf8, allowsRepeatedKeys: true)
    #expect(both.members?.map(\.key) == ["a", "b"])
    #expect(both["a"]?.integer == 3)
  }

  @Test func keepsCanonicallyEquivalentKeysApart() throws {
    let (composed, decomposed) = ("\u{E9}", "e\u{301}")
    #expect(composed == decomposed, "Swift compares these as equal; that is the point")
    let json = try JSON(parsing: "{\"\(composed)\":1,\"\(decomposed)\":2}")
    #expect(json[composed]?.integer == 1)
    #expect(json[decomposed]?.integer == 2)
    #expect(json.members?.count == 2)
  }

  @Test(arguments: ["0", "-0", "1e-05", "1E+5", "3.140", "-12.5e3", "123456789012345678901234567890", "1e999"])
  func keepsTheSpellingOfNumbers(_ literal: String) throws {
    let json = try JSON(parsing: literal)
    #expect(json == .number(literal))
    #expect(json.text() == literal)
  }

  @Test func tellsIntegersFromFloats() throws {
    func value(_ text: String) throws -> JSON { try JSON(parsing: text) }
    #expect(try value("4").integer == 4)
    #expect(try value("-17").integer == -17)
    #expect(try value("9223372036854775807").integer == .max)
    for text in ["4.0", "4e0", "9223372036854775808", "\"4\"", "true", "null"] { #expect(try value(text).integer == nil, "\(text)") }
    #expect(try value("4.0").double == 4)
    #expect(try value("1e-05").double == 1e-5)
    #expect(try value("4").double == 4)
    #expect(try value("\"4\"").double == nil)
  }

  @Test(arguments: [
    ("\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\u{8}\u{C}\n\r\t"), ("\\u0041\\u00e9\\u20AC", "A\u{E9}\u{20AC}"), ("\\ud83d\\ude00", "\u{1F600}"),
    ("\\uD800\\uDC00", "\u{10000}"), ("\\uDBFF\\uDFFF", "\u{10FFFF}"), ("\\u0000", "\u{0}"), ("a\\u0062c", "abc"),
    ("\u{1F600}x", "\u{1F600}x"),
  ])
  func readsEscapes(_ written: String, _ meant: String) throws {
    let string = try #require(try JSON(parsing: "\"\(written)\"").string)
    #expect(Array(string.unicodeScalars) == Array(meant.unicodeScalars))
  }

  @Test(arguments: ["\\ud83d", "\\ud83dx", "\\ud83d\\n", "\\ud83d\\u0041", "\\ud83d\\ud83d", "\\ude00", "\\ude00\\ud83d"])
  func refusesLoneSurrogates(_ written: String) throws {
    let error = try #require(reason("\"\(written)\"".utf8))
    #expect(error.reason.contains("surrogate"))
  }

  @Test func nestsTo256AndNoDeeper() throws {
    func nested(_ depth: Int) -> String { String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
    #expect(throws: Never.self) { try JSON(parsing: nested(256)) }
    let error = try #require(reason(nested(257).utf8))
    #expect(error.offset == 256)
    // Depth, not the number of containers.
    #expect(throws: Never.self) { try JSON(parsing: "[" + Array(repeating: "[]", count: 1000).joined(separator: ",") + "]") }
    #expect(throws: JSONError.self) { try JSON(parsing: String(repeating: "{\"a\":", count: 100_000)) }
  }

  @Test(arguments: [
    ("{\n  \"a\": tru\n}", 9, 2, 8), ("[1,\n2,\n\n x]", 9, 4, 2), ("", 0, 1, 1), ("[1,2", 4, 1, 5), ("\"\u{E9}\" x", 5, 1, 6),
    ("1.x", 1, 1, 2),
    ("{\"a\":1,\n\"a\":2}", 8, 2, 1),
  ])
  func saysWhere(_ text: String, _ offset: Int, _ line: Int, _ column: Int) throws {
    let error = try #require(reason(text.utf8))
    #expect(error.offset == offset)
    #expect(error.line == line)
    #expect(error.column == column)
    #expect(error.description == "line \(line), column \(column): \(error.reason)")
  }
}
