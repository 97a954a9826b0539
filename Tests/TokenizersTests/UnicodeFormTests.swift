import Foundation
import StrictJSON
import Testing

@testable import Tokenizers

@Suite struct UnicodeFormTests {
  private func normalized(_ text: String, _ form: UnicodeForm) -> [UInt32] {
    var result = NormalizedText(bytes: Bytes(text.utf8), startsAtOrigin: true)
    form.normalize(&result)
    return String(decoding: result.bytes, as: UTF8.self).unicodeScalars.map(\.value)
  }

  /// What tokenizers 0.23.3 makes of them.
  @Test(
    arguments: [
      // A sign that came with Unicode 12 has no decomposition yet, a mark that came with 11 no class.
      ("\u{1F16C}", .nfkc, [0x1F16C]), ("\u{7FD}\u{334}", .nfd, [0x7FD, 0x334]),
      // The low bits of a code point of another plane are no letter.
      ("\u{100041}\u{301}", .nfc, [0x100041, 0x301]), ("\u{10041}\u{301}", .nfc, [0x10041, 0x301]),
      ("\u{11099}\u{110BA}", .nfc, [0x1109A]),
      // Marks that a decomposition brings are ordered with those that follow.
      ("\u{385}\u{334}", .nfkd, [0x20, 0x334, 0x308, 0x301]), ("\u{385}\u{334}", .nfkc, [0x20, 0x334, 0x308, 0x301]),
      ("\u{F73}\u{334}", .nfd, [0x334, 0xF71, 0xF72]), ("\u{F77}\u{334}", .nfkd, [0xFB2, 0x334, 0xF71, 0xF80]),
      ("a\u{323}\u{307}", .nfc, [0x1EA1, 0x307]), ("a\u{307}\u{323}", .nfc, [0x1EA1, 0x307]),
      ("q\u{307}\u{323}", .nfc, [0x71, 0x323, 0x307]),
      ("e\u{301}\u{302}", .nfc, [0xE9, 0x302]), ("\u{1EC7}", .nfd, [0x65, 0x323, 0x302]),
      // Excluded from composition.
      ("\u{958}", .nfc, [0x915, 0x93C]), ("\u{344}", .nfc, [0x308, 0x301]),
      ("\u{D55C}", .nfd, [0x1112, 0x1161, 0x11AB]), ("\u{1112}\u{1161}\u{11AB}", .nfc, [0xD55C]),
      ("\u{D558}\u{11AB}x", .nfc, [0xD55C, 0x78]),
      ("\u{AC01}\u{11A8}", .nfc, [0xAC01, 0x11A8]), ("\u{FB01}\u{2460}", .nfkc, [0x66, 0x69, 0x31]),
      ("\u{FB01}\u{E9}", .nfc, [0xFB01, 0xE9]),
    ] as [(String, UnicodeForm, [UInt32])])
  func agreesWithTheReference(_ text: String, _ form: UnicodeForm, _ expected: [UInt32]) {
    #expect(normalized(text, form) == expected)
  }

  @Test func tablesReachAllThatDecomposes() {
    for value in 0..<UInt32(0x110000) {
      guard let scalar = Unicode.Scalar(value), let age = scalar.properties.age, age.major <= 9 else { continue }
      let text = String(scalar)
      for (form, other) in [
        (UnicodeForm.nfd, text.decomposedStringWithCanonicalMapping), (.nfkd, text.decomposedStringWithCompatibilityMapping),
      ] {
        guard normalized(text, form) == other.unicodeScalars.map(\.value) else {
          Issue.record("U+\(String(value, radix: 16)) \(form)")
          return
        }
      }
    }
  }

  /// Every pair is out of order.
  @Test func manyMarksTakeNoLonger() {
    let text = String(repeating: "\u{301}\u{334}", count: 100_000)
    #expect(normalized(text, .nfc) == Array(repeating: 0x334, count: 100_000) + Array(repeating: 0x301, count: 100_000))
  }

  /// What tokenizers 0.23.3 removes as accents, by the categories of its edition of Unicode.
  @Test(
    arguments: [
      (0x301, true), (0x1734, true), (0x1171E, true), (0x1885, false), (0x1886, false), (0xA9BD, false), (0x111C9, false),
    ] as [(UInt32, Bool)])
  func accentsOfBERT(_ value: UInt32, _ isRemoved: Bool) throws {
    let field = Field(path: "", json: .object([.init("type", .string("BertNormalizer"))]))
    let mark = try #require(Unicode.Scalar(value))
    var text = NormalizedText(bytes: Bytes("a\(mark)b".utf8), startsAtOrigin: true)
    for step in try Normalizers.steps(of: field) { try step.normalize(&text) }
    #expect(text.bytes == Bytes((isRemoved ? "ab" : "a\(mark)b").utf8))
  }
}
