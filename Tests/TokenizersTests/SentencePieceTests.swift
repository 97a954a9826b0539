import Foundation
import StrictJSON
import Testing

@testable import Tokenizers

@Suite struct SentencePieceTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let name: String
    let model: Bytes
    let texts: [String]
    let ids: [[Int32]]

    var testDescription: String { name }
  }

  static let cases: [Case] = ((try? JSON(parsing: SentencePieceFixture.json))?["cases"]?.elements ?? []).map { json in
    Case(
      name: json["name"]?.string ?? "", model: Base64.decoding(Bytes((json["model"]?.string ?? "").utf8)[...]) ?? [],
      texts: json["texts"]?.elements?.compactMap(\.string) ?? [],
      ids: json["ids"]?.elements?.map { ($0.elements ?? []).compactMap { $0.integer.map { Int32($0) } } } ?? [])
  }

  @Test func fixtureIsRead() {
    #expect(Self.cases.count == 6 && Self.cases.allSatisfy { $0.texts.count > 20 && $0.ids.count == $0.texts.count && !$0.model.isEmpty })
  }

  @Test(arguments: cases)
  func encodesAsSentencePieceDoes(_ golden: Case) throws {
    let tokenizer = try Tokenizer(try SentencePieceModel(golden.model, path: "m"), configuration: nil)
    for (text, ids) in zip(golden.texts, golden.ids) {
      #expect(try tokenizer.encode(text, addingSpecialTokens: false) == ids, "\(text.debugDescription)")
    }
  }

  /// Where no character map is in the way, `tokenizer.json` can say all that the model does.
  @Test(arguments: cases.filter { !$0.name.contains("map") })
  func itsDocumentIsTheSameTokenizer(_ golden: Case) throws {
    let model = try SentencePieceModel(golden.model, path: "m")
    let document = TokenizerSource.sentencePiece(model, configuration: nil).document
    let tokenizer = try Tokenizer(json: document, configuration: nil)
    #expect(tokenizer.prefix == (model.beginning.map { [Int32($0)] } ?? []))
    // The mark itself in a text is a space to the one and a character to the other where spaces are removed.
    for (text, ids) in zip(golden.texts, golden.ids) where !text.contains("\u{2581}") {
      #expect(try tokenizer.encode(text, addingSpecialTokens: false) == ids, "\(text.debugDescription)")
    }
  }

  @Test func specialTokensAreCutOutAndPutAround() throws {
    var model = SentencePieceModel()
    model.kind = .bytePairs
    model.removesExtraSpaces = false
    model.pieces = ["<unk>", "<s>", "</s>", "\u{2581}", "a", "b", "\u{2581}a", "ab", "<t>"].enumerated().map { id, text in
      .init(text: text, score: -Float(id), role: id == 0 ? .unknown : id < 3 ? .control : id == 8 ? .userDefined : .normal)
    }
    let configuration = try JSON(parsing: #"{"add_bos_token": true, "add_eos_token": true}"#)
    let tokenizer = try Tokenizer(model, configuration: configuration)
    #expect(try tokenizer.encode("ab</s>a<t>b", addingSpecialTokens: true) == [1, 6, 5, 2, 6, 8, 5, 2])
    #expect(try tokenizer.decode([1, 6, 5, 2], skippingSpecialTokens: true) == "ab")
    #expect(try tokenizer.encode("\u{E9}\u{E9}", addingSpecialTokens: false) == [3, 0])
  }

  static func piece(_ text: String, _ score: Float, _ role: UInt8? = nil) -> Bytes {
    var message: Bytes = [0x0A, UInt8(text.utf8.count)] + Bytes(text.utf8) + [0x15]
    withUnsafeBytes(of: score.bitPattern.littleEndian) { message += $0 }
    if let role { message += [0x18, role] }
    return [0x0A, UInt8(message.count)] + message
  }

  @Test func fieldsAndDefaults() throws {
    // A double and a field of an unknown number are passed over; the missing id of the end is −1, in ten bytes.
    let minusOne = Bytes(repeating: 0xFF, count: 9) + [1]
    let trainer: Bytes = [0x18, 2, 0x98, 2, 1, 0xC0, 2, 1, 0xC8, 2, 0, 0xD0, 2] + minusOne + [0x39, 0, 0, 0, 0, 0, 0, 0, 0]
    let data =
      Self.piece("<s>", 0, 3) + Self.piece("<unk>", 0, 2) + Self.piece("a", -1.5) + [0x12, UInt8(trainer.count)] + trainer
      + [0x1A, 4, 0x18, 0, 0x20, 0]
    let model = try SentencePieceModel(data, path: "m")
    #expect(model.kind == .bytePairs && model.fallsBackOnBytes && model.unknown == 1 && model.beginning == 0 && model.end == nil)
    #expect(!model.addsSpaceBefore && !model.removesExtraSpaces && model.characterMap.isEmpty)
    #expect(model.pieces[2] == .init(text: "a", score: -1.5))
  }

  @Test(
    arguments: [
      ([], "no pieces"), ([0x0A, 5, 1], "byte 2"), ([0x0B], "byte 0"), ([0xFF], "byte 1"), ([0x00, 0x00], "byte 0"),
      (piece("\u{41}", .nan) + piece("<unk>", 0, 2), "piece 0"), (piece("a", 0, 9), "piece 0"), ([0x0A, 3, 0x0A, 1, 0xC3], "piece 0"),
      (piece("a", 0) + [0x12, 3, 0xC0, 2, 7], "unknown token 7"), (piece("a", 0) + [0x12, 2, 0x18, 4], "model_type is character"),
      (piece("a", 0) + [0x1A, 6, 0x12, 4, 1, 0, 0, 0], "precompiled_charsmap"),
    ] as [(Bytes, String)])
  func damagedModelsAreRefused(_ data: Bytes, _ reason: String) {
    #expect {
      _ = try Tokenizer(try SentencePieceModel(data, path: "m"), configuration: nil)
    } throws: {
      ($0 as? TokenizerError)?.description.contains(reason) == true
    }
  }
}
