import StrictJSON
import Testing

struct WriterTests {
  @Test func writesWithoutWhiteSpace() throws {
    let json = JSON.object([
      .init("b", .array([.integer(1), .double(0.5), .null, .bool(true)])), .init("a", .object([])), .init("c", .array([])),
      .init("d", .string("x")),
    ])
    #expect(json.text() == "{\"b\":[1,0.5,null,true],\"a\":{},\"c\":[],\"d\":\"x\"}")
  }

  @Test func indents() throws {
    let json = try JSON(parsing: "{\"b\":[1,{\"x\":null}],\"a\":{},\"c\":[]}")
    let expected = """
      {
        "b": [
          1,
          {
            "x": null
          }
        ],
        "a": {},
        "c": []
      }
      """
    #expect(json.text(indent: 2) == expected)
  }

  @Test func escapesAsTheReferenceWriterDoes() {
    #expect(
      JSON.string("\"\\/\u{8}\u{C}\n\r\t\u{0}\u{1F}\u{7F}\u{E9}\u{1F600}").text()
        == "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\u{7F}\u{E9}\u{1F600}\"")
    #expect(JSON.object([.init("a\"", .null)]).text() == "{\"a\\\"\":null}")
  }

  @Test func sortsByTheBytesOfTheKeys() throws {
    let json = try JSON(parsing: "{\"b\":{\"z\":1,\"y\":[{\"q\":1,\"p\":2}]},\"a\":0,\"Z\":0,\"\u{E9}\":0,\"aa\":0}")
    #expect(json.sorted().text() == "{\"Z\":0,\"a\":0,\"aa\":0,\"b\":{\"y\":[{\"p\":2,\"q\":1}],\"z\":1},\"\u{E9}\":0}")
    #expect(try JSON(parsing: "[3,1,2]").sorted().text() == "[3,1,2]")
  }

  @Test func numbersThatJSONCannotSpellAreNull() {
    #expect(JSON.double(.nan) == .null)
    #expect(JSON.double(-.infinity) == .null)
    #expect(JSON.double(1e-7).double == 1e-7)
    #expect(JSON.integer(.min).integer == .min)
  }

  @Test func membersAreReplacedAppendedAndRemoved() throws {
    var json = try JSON(parsing: "{\"a\":1,\"b\":2}")
    json["a"] = .integer(3)
    json["c"] = .integer(4)
    #expect(json.text() == "{\"a\":3,\"b\":2,\"c\":4}")
    json["b"] = nil
    json["absent"] = nil
    #expect(json.text() == "{\"a\":3,\"c\":4}")
    var list = JSON.array([])
    list["a"] = .null
    #expect(list == .array([]))
    #expect(list["a"] == nil)
  }

  /// Numbers from a fixed seed (SplitMix64).
  private struct Randomness: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var z = state
      z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
      z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
      return z ^ (z >> 31)
    }
  }

  private func value(_ depth: Int, _ random: inout Randomness) -> JSON {
    func text() -> String {
      let alphabet: [Unicode.Scalar] = ["a", "\"", "\\", "/", "\n", "\u{1}", "\u{E9}", "\u{301}", "\u{1F600}", " ", "{"]
      var string = ""
      for _ in 0..<Int.random(in: 0..<6, using: &random) { string.unicodeScalars.append(alphabet.randomElement(using: &random)!) }
      return string
    }
    switch Int.random(in: 0..<(depth > 4 ? 5 : 8), using: &random) {
    case 0: return .null
    case 1: return .bool(Bool.random(using: &random))
    case 2: return .integer(Int.random(in: -1000...1000, using: &random))
    case 3: return .double(Double.random(in: -1...1, using: &random))
    case 4: return .string(text())
    case 5: return .array((0..<Int.random(in: 0..<5, using: &random)).map { _ in value(depth + 1, &random) })
    default:
      return .object((0..<Int.random(in: 0..<5, using: &random)).map { .init("\($0)" + text(), value(depth + 1, &random)) })
    }
  }

  @Test func whatIsWrittenReadsBackTheSame() throws {
    var random = Randomness(state: 5)
    for _ in 0..<300 {
      let json = value(0, &random)
      #expect(try JSON(parsing: json.text()) == json)
      #expect(try JSON(parsing: json.text(indent: 3)) == json)
      #expect(try JSON(parsing: json.sorted().text()) == json.sorted())
      #expect(json.sorted().sorted() == json.sorted())
    }
  }
}
