import StrictJSON

/// The cut into tokens of highest total score, each token's score being a log-probability: Kudo, "Subword Regularization" (2018), section 3.
///
/// From `tokenizer.json` the details are those of `models/unigram/model.rs` of huggingface/tokenizers; from `tokenizer.model` those of
/// SentencePiece's `unigram_model.cc`: single precision, no control or unused tokens, and user-defined ones that win over all others.
struct Unigram: TokenModel {
  let vocabulary: Vocabulary
  private let trie: PieceTrie
  private let scores: [Double]
  private let unknown: Int32?
  private let unknownScore: Double
  /// The ids of `<0x00>` to `<0xFF>`; `nil` where the model does not fall back on bytes.
  private let byteTokens: [Int32?]?
  private let roundsToSingle: Bool

  init(_ field: Field) throws(TokenizerError) {
    let list = try field.list("vocab")
    var pieces: [Bytes] = []
    var scores: [Double] = []
    for element in list {
      guard let pair = element.json.elements, pair.count == 2, let piece = pair[0].string, case .number(let literal) = pair[1],
        let score = ApproximateDecimal.value(of: literal)
      else {
        throw .invalidField(element.path, expected: .scoredPiece)
      }
      pieces.append(Bytes(piece.utf8))
      scores.append(score)
    }
    var unknown: Int32?
    if let id = field["unk_id"] {
      unknown = try id.identifier()
      guard try id.count() < pieces.count else { throw .unknownToken("\(try id.count())", field: id.path) }
    }
    self.init(
      pieces: pieces, scores: scores, matched: pieces.indices, unknown: unknown, fallsBack: try field.bool("byte_fallback", else: false),
      roundsToSingle: false)
  }

  /// - Parameter matched: the ids that text can become.
  init(
    pieces: [Bytes], scores: [Double], matched: some Sequence<Int>, unknown: Int32?, fallsBack: Bool, roundsToSingle: Bool
  ) {
    vocabulary = Vocabulary(pieces)
    self.scores = scores
    trie = PieceTrie(matched.map { (pieces[$0], Int32($0)) })
    self.unknown = unknown
    self.roundsToSingle = roundsToSingle
    let least = matched.lazy.map { scores[$0] }.min() ?? 0
    unknownScore = roundsToSingle ? Double(Float(least) - 10) : least - 10
    byteTokens = fallsBack ? vocabulary.byteTokens() : nil
  }

  func encode(_ piece: Span<UInt8>, into tokens: inout [Int32], in workspace: inout Workspace) {
    findPath(through: piece, &workspace.path)
    let first = tokens.count
    var end = piece.count
    // From the end to the start, with runs of unknown characters taken together.
    var unknownEnd = end
    while end > 0 {
      let step = workspace.path.steps[end]
      let start = end - Int(step.length)
      if step.token >= 0 {
        if end < unknownEnd { appendUnknown(piece.extracting(end..<unknownEnd), to: &tokens) }
        tokens.append(step.token)
        unknownEnd = start
      }
      end = start
    }
    if unknownEnd > 0 { appendUnknown(piece.extracting(0..<unknownEnd), to: &tokens) }
    tokens[first...].reverse()
  }

  private func findPath(through piece: Span<UInt8>, _ path: inout UnigramPath) {
    path.reset(count: piece.count + 1)
    var start = 0
    while start < piece.count {
      let width = Unicode.Scalar.width(leading: piece[start])
      let here = path.steps[start].score
      var hasSingle = false
      trie.forEachPrefix(of: piece, at: start) { length, id in
        let token = id == unknown ? -1 : id
        path.offer(.init(score: sum(here, scores[Int(id)]), token: token, length: Int32(length)), at: start + length)
        if length == width { hasSingle = true }
      }
      if !hasSingle { path.offer(.init(score: sum(here, unknownScore), token: -1, length: Int32(width)), at: start + width) }
      start += width
    }
  }

  private func sum(_ a: Double, _ b: Double) -> Double { roundsToSingle ? Double(Float(a) + Float(b)) : a + b }

  /// Appends, last token first, what stands for text of unknown characters.
  private func appendUnknown(_ text: Span<UInt8>, to tokens: inout [Int32]) {
    // The unknown token's own text is a token, too.
    if let id = vocabulary.id(of: text) { return tokens.append(id) }
    let first = tokens.count
    if let byteTokens {
      for index in (0..<text.count).reversed() {
        guard let id = byteTokens[Int(text[index])] else { break }
        tokens.append(id)
      }
      if tokens.count - first == text.count { return }
      tokens.removeLast(tokens.count - first)
    }
    if let unknown { tokens.append(unknown) }
  }
}

/// For every end of a token so far: the best way there.
struct UnigramPath {
  struct Step {
    var score: Double
    /// −1 for unknown characters.
    var token: Int32
    /// Bytes of the token; 0 where no token ends.
    var length: Int32
  }

  private(set) var steps: [Step] = []

  mutating func reset(count: Int) {
    steps.removeAll(keepingCapacity: true)
    steps.append(contentsOf: repeatElement(Step(score: 0, token: -1, length: 0), count: count))
  }

  /// The first of equals stays.
  mutating func offer(_ step: Step, at end: Int) {
    if steps[end].length == 0 || step.score > steps[end].score { steps[end] = step }
  }
}
