import CheckpointIO
import Foundation
import StrictJSON
import Tokenizers

/// Reads a tokenizer back from the keys that were made of it, as llama.cpp will, and compares what both make of many texts.
///
/// A vocabulary in a GGUF file has no words for most of what `tokenizer.json` can say: other normalizers, the flags of added tokens, merges
/// that skip tokens. Rather than a list of those, the texts decide.
struct GGUFTokenizerCheck {
  private let source: TokenizerSource
  private let original: Tokenizer
  private let written: TokenizerSource
  private let writtenTokenizer: Tokenizer
  /// Whether texts in other Unicode forms are left out, because llama.cpp normalizes none.
  private let composes: Bool

  init(_ source: TokenizerSource, _ original: Tokenizer, _ metadata: GGUFMetadata) throws(GGUFTokenizer.Unsupported) {
    (self.source, self.original) = (source, original)
    let normalizer = source.document["normalizer"] ?? .null
    let normalizers = normalizer["normalizers"]?.elements ?? [normalizer]
    composes = !normalizers.isEmpty && normalizers.allSatisfy { $0["type"]?.string == "NFC" }
    do {
      guard var written = try metadata.tokenizerSource() else { throw GGUFTokenizer.Unsupported(reason: "its vocabulary cannot be read") }
      // Readers add Qwen's normalizer, which its name stands for and llama.cpp does not have.
      if case .json(var document, let configuration) = written, normalizer.isNull || composes {
        document["normalizer"] = .null
        written = .json(document, configuration: configuration)
      }
      self.written = written
      writtenTokenizer = try Tokenizer(written)
    } catch let error as GGUFTokenizer.Unsupported { throw error } catch {
      throw GGUFTokenizer.Unsupported(reason: "its vocabulary reads back wrongly: \(error)")
    }
  }

  /// What llama.cpp does otherwise that no file can change, and that concerns few texts.
  ///
  /// - Throws: for the first text that it cuts otherwise in any other respect.
  func remarks() throws(GGUFTokenizer.Unsupported) -> [String] {
    let around = (try encode("a", original, addingSpecialTokens: true), try encode("a", writtenTokenizer, addingSpecialTokens: true))
    guard around.0 == around.1 else { throw difference("a", around.0, around.1) }
    var found: [String] = []
    var looser: [Relaxation: (Tokenizer, Tokenizer)] = [:]
    for text in Self.texts + vocabularyTexts + addedTokenTexts where !composes || isComposed(text) {
      let (expected, result) = (try encode(text, original), try encode(text, writtenTokenizer))
      if expected == result { continue }
      var excuse: String?
      for relaxation in Relaxation.all where excuse == nil {
        if looser[relaxation] == nil { looser[relaxation] = relax(relaxation) }
        guard let (ours, theirs) = looser[relaxation] else { continue }
        if try encode(text, ours) == encode(text, theirs) { excuse = relaxation.remark(text) }
      }
      guard let excuse else { throw difference(text, expected, result) }
      if !found.contains(where: { $0.prefix(60) == excuse.prefix(60) }) { found.append(excuse) }
    }
    if composes {
      found.append("llama.cpp does not bring text into the form NFC, as tokenizer.json does: text in other forms gets other tokens")
    }
    return found
  }

  /// Strings are equal in Swift whatever their form is; their bytes are not.
  private func isComposed(_ text: String) -> Bool { text.utf8.elementsEqual(text.precomposedStringWithCanonicalMapping.utf8) }

  private func encode(
    _ text: String, _ tokenizer: Tokenizer, addingSpecialTokens adds: Bool = false
  ) throws(GGUFTokenizer.Unsupported) -> [Int32] {
    do { return try tokenizer.encode(text, addingSpecialTokens: adds) } catch {
      throw .init(reason: "its tokenizer fails on a text: \(error)")
    }
  }

  private func difference(_ text: String, _ expected: [Int32], _ found: [Int32]) -> GGUFTokenizer.Unsupported {
    // From just before the first token that differs.
    let same = max(0, zip(expected, found).prefix { $0 == $1 }.count - 1)
    func list(_ ids: [Int32]) -> String {
      let shown = ids.dropFirst(same).prefix(12).map { "\($0)" }.joined(separator: ", ")
      return "[" + (same > 0 ? "…, " : "") + shown + (ids.count > same + 12 ? ", …" : "") + "]"
    }
    return .init(
      reason: "llama.cpp would make other tokens than its tokenizer of \(JSON.string(text).text()): \(list(found)) instead of "
        + "\(list(expected)), because a GGUF vocabulary has no word for one of its normalizers, merges or flags of added tokens; without "
        + "tokenizer.json beside the model its weights are written alone")
  }
}

// MARK: - What concerns few texts

extension GGUFTokenizerCheck {
  /// What may be looked at otherwise on either side before texts are called different.
  private struct Relaxation: Hashable {
    /// Special tokens are looked for in the text as it stands.
    var findsSpecials = false
    /// A space goes where the tokenizer's own rule puts one.
    var placesSpaces = false

    static let all = [
      Relaxation(placesSpaces: true), Relaxation(findsSpecials: true), Relaxation(findsSpecials: true, placesSpaces: true),
    ]

    func remark(_ text: String) -> String {
      let example = "such as \(JSON.string(text).text()), get other tokens than by tokenizer.json"
      let spaces = "llama.cpp puts a space before every text and after every special token in it, even before a space: texts"
      let specials = "llama.cpp finds special tokens wherever a text spells them out: texts"
      switch (findsSpecials, placesSpaces) {
      case (_, false): return "\(specials) \(example)"
      case (false, true): return "\(spaces) \(example)"
      case (true, true): return "\(specials) and \(spaces) \(example)"
      }
    }
  }

  private func relax(_ relaxation: Relaxation) -> (Tokenizer, Tokenizer)? {
    var (ours, theirs) = (original, writtenTokenizer)
    if relaxation.findsSpecials {
      guard case .json(var document, let configuration) = source, let added = document["added_tokens"]?.elements else { return nil }
      document["added_tokens"] = .array(
        added.map { token in
          guard token["special"]?.bool == true else { return token }
          var token = token
          token["normalized"] = .bool(false)
          return token
        })
      guard let tokenizer = try? Tokenizer(.json(document, configuration: configuration)) else { return nil }
      ours = tokenizer
    }
    if relaxation.placesSpaces {
      let steps = source.document["pre_tokenizer"].map { $0["pretokenizers"]?.elements ?? [$0] } ?? []
      guard var metaspace = steps.first(where: { $0["type"]?.string == "Metaspace" }), case .sentencePiece = written else { return nil }
      var document = written.document
      metaspace["split"] = .bool(false)
      document["pre_tokenizer"] = metaspace
      document["normalizer"] = .null
      guard let tokenizer = try? Tokenizer(.json(document, configuration: written.configuration)) else { return nil }
      theirs = tokenizer
    }
    return (ours, theirs)
  }
}

// MARK: - Texts

extension GGUFTokenizerCheck {
  private static let texts = [
    "", "a", " ", "   ", "Hello world", "hello  world", "  two before", "two after  ", "a  b ", " a\n\n b\t\tc\r\n  ", "\n", "\t",
    "UPPER Case iPhone HTTPServer", "\u{C0}\u{C9} na\u{EF}ve caf\u{E9} Stra\u{DF}e \u{130}I", "e\u{301} A\u{30A} \u{212B}",
    "\u{FB01} \u{FF21} \u{BD} \u{2460}\u{B2}",
    "\u{1F600} \u{1D518}\u{20000} \u{1F44D}\u{1F3FD}", "12345 3.14 1,000 \u{663}", "don't I'LL they've x'\u{17F} y",
    "x=1;y[2]={'k':\"v\"} // <b>&amp;</b>",
    "\u{65E5}\u{672C}\u{8A9E} \u{D55C}\u{AD6D} \u{939}\u{93F} \u{E44}\u{E17}\u{E22} \u{627}\u{644}", "a\u{A0}b\u{3000}c\u{2028}d\u{85}e",
    "\u{1}\u{7F}\u{AD}\u{200B}\u{FEFF}", "\u{E000}\u{10FFFF}\u{378}", "\u{2581}a \u{2581}\u{2581}", "-a--b---ab- __init__ ...",
    "``quoted'' \u{201C}text\u{201D} \u{2014} \u{2026}",
  ]

  /// Texts of tokens spread over the vocabulary, and what lies across the border of two.
  private var vocabularyTexts: [String] {
    let count = original.vocabularySize
    let step = max(1, count / 1024)
    var texts: [String] = []
    var last = ""
    for id in stride(from: 0, to: count, by: step) {
      guard let text = try? original.decode([Int32(id)], skippingSpecialTokens: true), !text.isEmpty, !text.contains("\u{FFFD}") else {
        continue
      }
      texts += [text, last + text, String((last + text).dropFirst(2).dropLast())]
      last = text
    }
    return texts
  }

  /// Every added token alone, between letters, between spaces, and twice.
  private var addedTokenTexts: [String] {
    let added = (source.document["added_tokens"]?.elements ?? []).compactMap { $0["content"]?.string }.filter { !$0.isEmpty }
    let some = added.count <= 256 ? added : Array(added.prefix(128) + added.suffix(128))
    return some.flatMap { [$0, "a\($0)b", "a \($0) b", " \($0)  ", $0 + $0, $0.uppercased(), $0.lowercased()] }
  }
}
