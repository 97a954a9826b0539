import Foundation
import StrictJSON

/// Llama 3's `tokenizer.model`: lines of a token's bytes in base64 and its rank, which is also its id.
///
/// The pattern that cuts text and the special tokens are not in the file: they are those of Llama 3 (3.1's names where
/// `tokenizer_config.json` has none). Source: `llama_models/llama3/tokenizer.py` of meta-llama/llama-models.
public struct TiktokenModel: Sendable {
  /// By rank.
  private let tokens: [Bytes]

  /// Whether the first line is a token and a rank.
  static func wrote(_ data: Bytes) -> Bool {
    guard let line = data.prefix(1024).split(separator: UInt8(ascii: "\n"), maxSplits: 1).first else { return false }
    return entry(line) != nil
  }

  private static func entry(_ line: ArraySlice<UInt8>) -> (token: Bytes, rank: Int)? {
    let parts = line.split(separator: UInt8(ascii: " "))
    guard parts.count == 2, let token = Base64.decoding(parts[0]), !token.isEmpty,
      let rank = Int(String(decoding: parts[1], as: UTF8.self).trimmingCharacters(in: .whitespaces)), rank >= 0
    else { return nil }
    return (token, rank)
  }

  /// - Parameter isLlama: whether the model is known to be a Llama; else the number of tokens must be Llama 3's.
  /// - Throws: `TokenizerError.malformedModel` for a line of another form, or ranks that do not count up from 0.
  init(_ data: Bytes, path: String, isLlama: Bool) throws(TokenizerError) {
    var tokens: [Bytes] = []
    for (number, line) in data.split(separator: UInt8(ascii: "\n")).enumerated() {
      guard let (token, rank) = Self.entry(line), rank == tokens.count else {
        throw .malformedModel(path: path, reason: "line \(number + 1) is not a token in base64 and the rank \(tokens.count)")
      }
      tokens.append(token)
    }
    guard isLlama || tokens.count == Self.llama3Count else {
      throw .unsupportedOption(field: "\(path): the number of tokens", value: "\(tokens.count), which is not Llama 3's")
    }
    self.tokens = tokens
  }

  private static let llama3Count = 128_000

  /// Any two neighbours whose bytes together are a token merge, lowest rank first.
  var bytePairEncoding: BytePairEncoding {
    let vocabulary = Vocabulary(tokens.map { ByteAlphabet.encoding($0.span) })
    return BytePairEncoding(vocabulary, MergeTable(rules) { UInt32($0) }, .init(readsBytes: true, ignoresMerges: true))
  }

  private var rules: [MergeRule] {
    MergeRule.all(making: tokens.enumerated().map { ($1, Int32($0)) })
  }

  /// The model as `tokenizer.json` would say it.
  func document(_ configuration: JSON?, withMerges: Bool) -> JSON {
    let texts = tokens.map { String(decoding: ByteAlphabet.encoding($0.span), as: UTF8.self) }
    var added = VocabularyFamily.declared(configuration)
    if added.isEmpty {
      added = Self.specialTokens.enumerated().map { DocumentParts.added($1, id: tokens.count + $0, isSpecial: true) }
    }
    let start = DocumentParts.text(configuration?["bos_token"]) ?? Self.specialTokens[0]
    let id = added.first { $0["content"]?.string == start }?["id"]?.integer
    let bytes = DocumentParts.byteLevel(addsSpace: false, cuts: false)
    return DocumentParts.document(
      added: added, normalizer: .null,
      preTokenizer: DocumentParts.sequence("pretokenizers", [DocumentParts.split(WordPattern.llama3), bytes]),
      postProcessor: id.map { DocumentParts.template(before: [(start, $0)]) } ?? .null, decoder: bytes,
      model: DocumentParts.object(
        "BPE", ("ignore_merges", .bool(true)), ("vocab", .object(texts.enumerated().map { .init($1, .integer($0)) })),
        ("merges", .array(withMerges ? rules.map { .array([.string(texts[Int($0.left)]), .string(texts[Int($0.right)])]) } : []))))
  }

  private static let specialTokens: [String] = {
    var names = [
      "begin_of_text", "end_of_text", "reserved_special_token_0", "reserved_special_token_1", "finetune_right_pad_id",
      "reserved_special_token_2", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag",
    ]
    for number in 3..<(3 + 256 - names.count) { names.append("reserved_special_token_\(number)") }
    return names.map { "<|\($0)|>" }
  }()
}
