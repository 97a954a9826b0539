import StrictJSON

/// The tokens of a model and their ids, without the added tokens.
struct Vocabulary: Sendable {
  private var ids: ByteTable
  private var tokens: [Int32: Bytes]

  init(_ field: Field) throws(TokenizerError) {
    let members = try field.members()
    ids = ByteTable(minimumCapacity: members.count)
    tokens = Dictionary(minimumCapacity: members.count)
    for member in members {
      let id = try Field(path: "\(field.path)[\"\(member.key)\"]", json: member.value).identifier()
      let token = Bytes(member.key.utf8)
      ids.set(id, for: token.span)
      guard tokens.updateValue(token, forKey: id) == nil else { throw .repeatedIdentifier(id) }
    }
  }

  var highestIdentifier: Int32? { tokens.keys.max() }

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
}
