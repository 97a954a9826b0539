import StrictJSON
import Testing

@testable import Tokenizers

/// Ids and texts of the Hugging Face library for small tokenizers that between them use every component.
@Suite struct GoldenTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let name: String
    let tokenizer: JSON
    let texts: [String]
    let ids: [[Int32]]
    let decoded: [String?]

    var testDescription: String { name }

    init?(_ json: JSON, models: JSON, texts: [String]) {
      guard let name = json["name"]?.string, let model = json["model"]?.string, let content = models[model] else { return nil }
      guard let ids = json["ids"]?.elements, let decoded = json["decoded"]?.elements else { return nil }
      self.name = name
      tokenizer = .object([JSON.Member("model", content)] + (json["parts"]?.members ?? []))
      self.texts = json["texts"]?.elements?.compactMap(\.string) ?? texts
      self.ids = ids.map { ($0.elements ?? []).compactMap { $0.integer.map { Int32($0) } } }
      self.decoded = decoded.map(\.string)
    }
  }

  static let cases: [Case] = {
    guard let fixture = try? JSON(parsing: GoldenFixture.json), let models = fixture["models"] else { return [] }
    let texts = fixture["texts"]?.elements?.compactMap(\.string) ?? []
    return fixture["cases"]?.elements?.compactMap { Case($0, models: models, texts: texts) } ?? []
  }()

  @Test func fixtureIsRead() {
    #expect(Self.cases.count == 57)
    #expect(Self.cases.allSatisfy { $0.ids.count == $0.texts.count && $0.decoded.count == $0.texts.count })
  }

  @Test(arguments: cases)
  func encodes(_ golden: Case) throws {
    let tokenizer = try Tokenizer(json: golden.tokenizer, configuration: nil)
    for (text, ids) in zip(golden.texts, golden.ids) {
      #expect(try tokenizer.encode(text, addingSpecialTokens: true) == ids, "\(text.debugDescription)")
      let inner = ids.dropFirst(tokenizer.prefix.count).dropLast(tokenizer.suffix.count)
      #expect(try tokenizer.encode(text, addingSpecialTokens: false) == Array(inner), "\(text.debugDescription)")
    }
  }

  @Test(arguments: cases)
  func decodes(_ golden: Case) throws {
    let tokenizer = try Tokenizer(json: golden.tokenizer, configuration: nil)
    for (index, ids) in golden.ids.enumerated() {
      let expected = golden.decoded[index] ?? golden.texts[index]
      let text = try tokenizer.decode(ids, skippingSpecialTokens: false)
      #expect(text.unicodeScalars.elementsEqual(expected.unicodeScalars), "\(text.debugDescription)")
    }
  }
}
