/// Text cut into the pieces that tokens may not cross.
struct PieceList {
  var text: Bytes
  /// From left to right; none is empty.
  var ranges: [Range<Int>]
  /// Whether the first piece begins where the text given to `encode` does.
  var startsAtOrigin: Bool

  init(_ text: NormalizedText) {
    self.text = text.bytes
    ranges = text.bytes.isEmpty ? [] : [0..<text.bytes.count]
    startsAtOrigin = text.startsAtOrigin
  }

  /// Rewrites every piece; `body` appends to the new text what the piece becomes.
  mutating func rewrite(_ body: (_ piece: Span<UInt8>, _ isFirst: Bool, _ text: inout Bytes) -> Void) {
    var text: Bytes = []
    text.reserveCapacity(self.text.count + ranges.count)
    for (index, range) in ranges.enumerated() {
      let start = text.count
      body(self.text.span.extracting(range), index == 0, &text)
      ranges[index] = start..<text.count
    }
    self.text = text
  }

  mutating func replaceRanges(_ ranges: [Range<Int>]) {
    if ranges.first?.lowerBound != self.ranges.first?.lowerBound { startsAtOrigin = false }
    self.ranges = ranges
  }
}

protocol PreTokenizer: Sendable {
  /// - Throws: `TokenizerError.endlessPattern`.
  func split(_ pieces: inout PieceList) throws(TokenizerError)
}

enum PreTokenizers {
  /// The steps that `pre_tokenizer` stands for, with sequences laid flat.
  static func steps(of field: Field?) throws(TokenizerError) -> [any PreTokenizer] {
    guard let field else { return [] }
    switch try field.string("type") {
    case "Sequence":
      var steps: [any PreTokenizer] = []
      for step in try field.list("pretokenizers") { steps += try self.steps(of: step) }
      return steps
    case "Split":
      let behavior = try SplitBehavior(try field.required("behavior", .string))
      let pattern = try TextPattern(try field.required("pattern", .pattern))
      return [Split(pattern: pattern, behavior: behavior, isInverted: try field.bool("invert", else: false))]
    case "Digits":
      let isIndividual = try field.bool("individual_digits", else: false)
      return [Split(pattern: .scalar(\.isNumber), behavior: isIndividual ? .isolated : .contiguous, isInverted: false)]
    case "Metaspace": return [try Metaspace(field)]
    case "ByteLevel": return [try ByteLevel(field)]
    case "Whitespace": return [WordRuns()]
    case "WhitespaceSplit": return [Split.onWhitespace]
    case "Punctuation":
      let behavior = try field["behavior"].map { field throws(TokenizerError) in try SplitBehavior(field) } ?? .isolated
      return [Split(pattern: .scalar(BertNormalizers.isPunctuation), behavior: behavior, isInverted: false)]
    case "BertPreTokenizer":
      return [Split.onWhitespace, Split(pattern: .scalar(BertNormalizers.isPunctuation), behavior: .isolated, isInverted: false)]
    case "CharDelimiterSplit":
      let delimiter = try field.required("delimiter", .character).character()
      return [Split(pattern: .literal(delimiter), behavior: .removed, isInverted: false)]
    case let type: throw .unsupportedComponent(field: field.path, type: type)
    }
  }
}
