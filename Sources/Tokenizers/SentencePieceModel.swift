/// A SentencePiece model: pieces with their scores, and how text is prepared for them.
///
/// Fields and defaults are those of `sentencepiece_model.proto` of google/sentencepiece; byte-pair and unigram models are read.
public struct SentencePieceModel: Sendable, Equatable {
  public enum Kind: Int, Sendable { case unigram = 1, bytePairs, word, character }

  public struct Piece: Sendable, Equatable {
    public enum Role: Int32, Sendable { case normal = 1, unknown, control, userDefined, unused, byte }

    public var text: String
    public var score: Float
    public var role: Role

    public init(text: String, score: Float, role: Role = .normal) {
      self.text = text
      self.score = score
      self.role = role
    }
  }

  /// By id.
  public var pieces: [Piece] = []
  public var kind = Kind.unigram
  public var fallsBackOnBytes = false
  public var unknown = 0
  public var beginning: Int? = 1
  public var end: Int? = 2
  public var addsSpaceBefore = true
  public var removesExtraSpaces = true
  /// The map of characters that normalization applies; empty for none.
  public var characterMap: [UInt8] = []
  /// Whether user-defined pieces are looked for in the text as it stands, so that what follows one is normalized anew and gets a space of its
  /// own, as in llama.cpp; otherwise in the normalized text, as SentencePiece does.
  public var findsUserDefinedInRawText = false

  public init() {}
}

extension SentencePieceModel {
  /// Reads `tokenizer.model`.
  ///
  /// - Throws: `TokenizerError.malformedModel` for what is not such a message, `.unsupportedOption` for models of other kinds.
  public init(_ data: [UInt8], path: String) throws(TokenizerError) {
    func malformed(_ reason: String) -> TokenizerError { .malformedModel(path: path, reason: reason) }
    do throws(ProtobufReader.Malformed) {
      var reader = ProtobufReader(data)
      while let (number, value) = try reader.next() {
        guard case .bytes(let range) = value else { continue }
        var message = reader.message(range)
        switch number {
        case 1: try readPiece(&message)
        case 2: try readTrainer(&message)
        case 3: try readNormalizer(&message)
        default: break
        }
      }
    } catch { throw malformed("no protocol-buffer field begins at byte \(error.offset)") }
    guard !pieces.isEmpty else { throw malformed("it has no pieces") }
    if let invalid = pieces.firstIndex(where: { $0.text.isEmpty || !$0.score.isFinite }) {
      throw malformed("piece \(invalid) has no text, text that is not UTF-8, no known type, or no finite score")
    }
    guard pieces.indices.contains(unknown) else { throw malformed("the unknown token \(unknown) is not among its \(pieces.count) pieces") }
    guard kind == .unigram || kind == .bytePairs else { throw .unsupportedOption(field: "\(path): model_type", value: "\(kind)") }
    if kind == .bytePairs, let unused = pieces.first(where: { $0.role == .unused }) {
      throw .unsupportedOption(field: "\(path): the piece \"\(unused.text)\"", value: "unused")
    }
    // Absent tokens have the id −1.
    beginning = beginning.flatMap { pieces.indices.contains($0) ? $0 : nil }
    end = end.flatMap { pieces.indices.contains($0) ? $0 : nil }
  }

  private mutating func readPiece(_ message: inout ProtobufReader) throws(ProtobufReader.Malformed) {
    // An invalid piece is left without text, to be reported by its number.
    var piece = Piece(text: "", score: 0)
    var isKnown = true
    while let (number, value) = try message.next() {
      switch (number, value) {
      case (1, .bytes(let range)): piece.text = String(validating: message.bytes(range), as: UTF8.self) ?? ""
      case (2, .fixed32(let bits)): piece.score = Float(bitPattern: bits)
      case (3, .varint(let role)):
        let role = Int32(exactly: role).flatMap { Piece.Role(rawValue: $0) }
        piece.role = role ?? .normal
        isKnown = role != nil
      default: break
      }
    }
    if !isKnown { piece.text = "" }
    pieces.append(piece)
  }

  private mutating func readTrainer(_ message: inout ProtobufReader) throws(ProtobufReader.Malformed) {
    while let (number, value) = try message.next() {
      guard case .varint(let value) = value else { continue }
      let id = Int(Int64(bitPattern: value))
      switch number {
      case 3: kind = Kind(rawValue: id) ?? .word
      case 35: fallsBackOnBytes = value != 0
      case 40: unknown = id
      case 41: beginning = id
      case 42: end = id
      default: break
      }
    }
  }

  private mutating func readNormalizer(_ message: inout ProtobufReader) throws(ProtobufReader.Malformed) {
    while let (number, value) = try message.next() {
      switch (number, value) {
      case (2, .bytes(let range)): characterMap = message.bytes(range)
      case (3, .varint(let value)): addsSpaceBefore = value != 0
      case (4, .varint(let value)): removesExtraSpaces = value != 0
      default: break
      }
    }
  }
}
