extension BlockDescription {
  /// The linears that runtimes compute as one, and want in one format therefore: queries with keys and values, gates with what they gate, and
  /// all of a mixture's experts.
  public var fusedGroups: [[LinearName]] {
    var groups = mixers.flatMap(\.fusedLinears)
    guard let feedForward else { return groups.filter { $0.count > 1 } }
    if let mixture = feedForward.mixture {
      groups.append(routedExperts)
      if mixture.shared != nil { groups.append(feedForward.expert(mixture.experts).readers) }
    } else {
      groups.append(feedForward.linears.readers)
    }
    return groups.filter { $0.count > 1 }
  }

  /// The linears of the experts that a router chooses among.
  public var routedExperts: [LinearName] {
    guard let feedForward, let mixture = feedForward.mixture else { return [] }
    return (0..<mixture.experts).map { feedForward.expert($0) }.flatMap { $0.readers + [$0.down] }
  }

  /// The same by projection: what some runtimes hold in one tensor.
  public var expertProjections: [[LinearName]] {
    guard let feedForward, let mixture = feedForward.mixture else { return [] }
    let experts = (0..<mixture.experts).map { feedForward.expert($0) }
    return [experts.flatMap(\.readers), experts.map(\.down)]
  }

  /// The linears of the block that get one format with `name`, itself included.
  package func fused(with name: LinearName) -> [LinearName] { fusedGroups.first { $0.contains(name) } ?? [name] }
}
