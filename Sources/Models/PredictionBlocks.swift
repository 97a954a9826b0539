package import StrictJSON

// Multi-token prediction: blocks beyond the last that guess further tokens from the hidden states the model ends with. No forward pass here
// runs them; they are carried along as they are.

extension Model {
  /// The tensors of such blocks: under names of their own, or numbered on from the last block.
  package var predictionTensors: [String] {
    let prefix = description.blocks.first?.prefix ?? ""
    let stem = prefix.hasSuffix("0.") ? String(prefix.dropLast(2)) : prefix
    return carried.filter { name in
      let parts = name.split(separator: ".").map { $0.lowercased() }
      if parts.contains(where: { $0 == "mtp" || $0.hasPrefix("mtp_") || $0.contains("nextn") }) { return true }
      guard name.hasPrefix(stem), let number = name.dropFirst(stem.count).split(separator: ".").first.flatMap({ Int($0) }) else {
        return false
      }
      return number >= description.blocks.count
    }
  }
}

extension JSON {
  /// Says that there are no such blocks, wherever a count of them stands.
  ///
  /// - Returns: the keys that were set.
  package mutating func clearPredictionCounts() -> [String] {
    var cleared: [String] = []
    for member in members ?? [] {
      if member.value.members != nil, member.key == "text_config" {
        var inner = member.value
        cleared += inner.clearPredictionCounts().map { "text_config." + $0 }
        self[member.key] = inner
      }
      guard let count = member.value.integer, count != 0, member.key.contains("nextn") || member.key.contains("mtp"),
        member.key.hasPrefix("num_") || member.key.contains("_num_")
      else { continue }
      self[member.key] = .integer(0)
      cleared.append(member.key)
    }
    return cleared
  }
}
