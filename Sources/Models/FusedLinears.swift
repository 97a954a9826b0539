extension BlockDescription {
  /// The linears that runtimes compute as one, and want in one format therefore: queries with keys and values, gates with what they gate, and
  /// of a mixture's experts every projection over all of them.
  public var fusedGroups: [[LinearName]] {
    var groups = [attention.projections.linears]
    if let mixture = feedForward.mixture {
      let experts = (0..<mixture.experts).map { feedForward.expert($0) }
      groups += [experts.flatMap(\.readers), experts.map(\.down)]
      if mixture.shared != nil { groups.append(feedForward.expert(mixture.experts).readers) }
    } else {
      groups.append(feedForward.linears.readers)
    }
    return groups.filter { $0.count > 1 }
  }

  /// The linears that get one format with `name`, itself included.
  package func fused(with name: LinearName) -> [LinearName] { fusedGroups.first { $0.contains(name) } ?? [name] }
}
