/// The longest token that begins a word, then the longest that goes on from there: BERT's model.
///
/// Source: Wu et al., "Google's Neural Machine Translation System" (2016), section 4.1; the details are those of `models/wordpiece/mod.rs` of
/// huggingface/tokenizers.
struct WordPiece: TokenModel {
  let vocabulary: Vocabulary
  private let unknown: Int32
  /// Put before what goes on a word, as it is looked up.
  private let prefix: Bytes
  /// Words of more code points are unknown.
  private let longestWord: Int
  /// Bytes of the longest token: nothing longer has to be looked up.
  private let longestToken: Int

  init(_ field: Field) throws(TokenizerError) {
    vocabulary = try Vocabulary(try field.required("vocab", .object))
    let token = try field["unk_token"]?.string() ?? "[UNK]"
    guard let id = vocabulary.id(of: Bytes(token.utf8).span) else { throw .unknownToken(token, field: "\(field.path).unk_token") }
    unknown = id
    prefix = Bytes((try field["continuing_subword_prefix"]?.string() ?? "##").utf8)
    longestWord = try field["max_input_chars_per_word"]?.count() ?? 100
    longestToken = vocabulary.longestToken
  }

  func encode(_ piece: Span<UInt8>, into tokens: inout [Int32], in _: inout Workspace) {
    let first = tokens.count
    var characters = 0
    for index in 0..<piece.count where piece[index] & 0xC0 != 0x80 { characters += 1 }
    var start = 0
    var candidate: Bytes = []
    while start < piece.count, characters <= longestWord {
      candidate.removeAll(keepingCapacity: true)
      if start > 0 { candidate += prefix }
      let skipped = candidate.count
      var end = min(piece.count, start + longestToken)
      for index in start..<end { candidate.append(piece[index]) }
      var found: Int32?
      while start < end {
        found = vocabulary.id(of: candidate.span.extracting(0..<skipped + end - start))
        if found != nil { break }
        end -= 1
        while end > start, piece[end] & 0xC0 == 0x80 { end -= 1 }
      }
      guard let found else { break }
      tokens.append(found)
      start = end
    }
    guard start < piece.count else { return }
    tokens.removeLast(tokens.count - first)
    tokens.append(unknown)
  }
}
