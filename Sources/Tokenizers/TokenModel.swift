/// Turns the pieces that a text was cut into into tokens.
protocol TokenModel: Sendable {
  var vocabulary: Vocabulary { get }
  /// Appends the tokens of a piece that is not empty and valid UTF-8 (or, where the model reads bytes, anything).
  func encode(_ piece: Span<UInt8>, into tokens: inout [Int32], in workspace: inout Workspace)
}

/// Buffers that outlive a piece, to spare allocations for each.
struct Workspace {
  var symbols: [Int32] = []
  var merges = MergeLoop()
  var path = UnigramPath()
}

enum TokenModels {
  /// Reads `model`; old files leave the type of a byte-pair encoding out.
  ///
  /// - Parameter readsBytes: whether pieces are bytes that stand for characters of the byte-level alphabet.
  static func model(_ field: Field, readsBytes: Bool) throws(TokenizerError) -> any TokenModel {
    let type = try field["type"]?.string() ?? (field["merges"] == nil ? "" : "BPE")
    switch type {
    case "BPE": return try BytePairEncoding(field, readsBytes: readsBytes)
    case "Unigram" where !readsBytes: return try Unigram(field)
    case "WordPiece" where !readsBytes: return try WordPiece(field)
    case "WordLevel" where !readsBytes: return try WordLevel(field)
    default: throw .unsupportedComponent(field: field.path, type: type)
    }
  }
}

/// Every piece is one token.
private struct WordLevel: TokenModel {
  let vocabulary: Vocabulary
  private let unknown: Int32?

  init(_ field: Field) throws(TokenizerError) {
    vocabulary = try Vocabulary(try field.required("vocab", .object))
    unknown = vocabulary.id(of: Bytes(try field.string("unk_token").utf8).span)
  }

  /// An unknown piece is dropped where there is no unknown token; the reference fails on it.
  func encode(_ piece: Span<UInt8>, into tokens: inout [Int32], in _: inout Workspace) {
    if let id = vocabulary.id(of: piece) ?? unknown { tokens.append(id) }
  }
}
