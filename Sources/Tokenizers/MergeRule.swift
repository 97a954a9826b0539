/// Two tokens whose texts together are a third.
struct MergeRule {
  let left: Int32
  let right: Int32
  let result: Int32

  /// Every way to make each of `pieces` out of two others, in the order of the pieces, and for each in the order of the parts' ids.
  static func all(making pieces: [(bytes: Bytes, id: Int32)]) -> [MergeRule] {
    var ids = ByteTable(minimumCapacity: pieces.count)
    for (bytes, id) in pieces { ids.set(id, for: bytes.span) }
    var rules: [MergeRule] = []
    for (bytes, id) in pieces where bytes.count > 1 {
      let first = rules.count
      let text = bytes.span
      for cut in 1..<bytes.count {
        guard let left = ids.value(of: text.extracting(0..<cut)), let right = ids.value(of: text.extracting(cut..<bytes.count)) else {
          continue
        }
        rules.append(MergeRule(left: left, right: right, result: id))
      }
      rules[first...].sort { ($0.left, $0.right) < ($1.left, $1.right) }
    }
    return rules
  }
}

extension MergeTable {
  /// - Parameter rank: of the token that a merge makes; lower ones come first.
  init(_ rules: [MergeRule], rank: (Int32) -> UInt32) {
    self.init(minimumCapacity: rules.count)
    for rule in rules { set(Merge(rank: rank(rule.result), result: rule.result), rule.left, rule.right) }
  }
}
