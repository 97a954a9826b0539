/// Encodes the pieces of one text, and remembers short ones: words come back.
struct PieceEncoder {
  /// Beyond these a piece is too rare, or the memory too dear, to be worth remembering.
  private static let longestRemembered = 48
  private static let mostRemembered = 1 << 17

  private let model: any TokenModel
  private var workspace = Workspace()
  private var remembered = ByteTable()
  /// Where the tokens of each remembered piece begin in `rememberedTokens`; they end where those of the next begin.
  private var starts: [Int] = [0]
  private var rememberedTokens: [Int32] = []

  init(_ model: any TokenModel) { self.model = model }

  mutating func encode(_ piece: Span<UInt8>, into tokens: inout [Int32]) {
    let isShort = piece.count <= Self.longestRemembered
    if isShort, let number = remembered.value(of: piece) {
      for index in starts[Int(number)]..<starts[Int(number) + 1] { tokens.append(rememberedTokens[index]) }
      return
    }
    let first = tokens.count
    model.encode(piece, into: &tokens, in: &workspace)
    if isShort, remembered.count < Self.mostRemembered {
      remembered.set(Int32(remembered.count), for: piece)
      rememberedTokens += tokens[first...]
      starts.append(rememberedTokens.count)
    }
  }
}
