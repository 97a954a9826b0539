import StrictJSON

/// The tokens of a model and their ids, without the added tokens.
struct Vocabulary: Sendable {
  private var ids: ByteTable
  private var tokens: [Int32: Bytes]
  /// Bytes of the longest token.
  private(set) var longestToken = 0

  init(_ field: Field) throws(TokenizerError) {
    let members = try field.members()
    ids = ByteTable(minimumCapacity: members.count)
    tokens = Dictionary(minimumCapacity: members.count)
    for member in members {
      let id = try Field(path: "\(field.path)[\"\(member.key)\"]", json: member.value).identifier()
      let token = Bytes(member.key.utf8)
      ids.set(id, for: token.span)
      longestToken = max(longestToken, token.count)
      guard tokens.updateValue(token, forKey: id) == nil else { throw .repeatedIdentifier(id) }
    }
  }

  /// Tokens by their id; of equal ones the last gets the text.
  init(_ list: [Bytes]) {
    ids = ByteTable(minimumCapacity: list.count)
    tokens = Dictionary(minimumCapacity: list.count)
    for (id, token) in list.enumerated() {
      ids.set(Int32(id), for: token.span)
      tokens[Int32(id)] = token
      longestToken = max(longestToken, token.count)
    }
  }

  var highestIdentifier: Int32? { tokens.keys.max() }
  var allTokens: some Collection<Bytes> { tokens.values }

  func id(of token: Span<UInt8>) -> Int32? { ids.value(of: token) }

  func token(of id: Int32) -> Bytes? { tokens[id] }

  /// The same ids under the bytes that tokens of the byte-level alphabet stand for.
  func idsOfBytes() -> ByteTable {
    var table = ByteTable(minimumCapacity: tokens.count)
    for (id, token) in tokens {
      if let bytes = ByteAlphabet.decoding(token) { table.set(id, for: bytes.span) }
    }
    return table
  }

  /// The ids of `<0x00>` to `<0xFF>`.
  func byteTokens() -> [Int32?] {
    (0...255).map { byte in
      let digits = String(byte, radix: 16, uppercase: true)
      return id(of: Bytes("<0x\(byte < 16 ? "0" : "")\(digits)>".utf8).span)
    }
  }
}
