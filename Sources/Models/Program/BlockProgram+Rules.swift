/// What follows from the list of steps.
extension BlockProgram {
  /// Indices of the steps where a run can stop: before the linears of one input group.
  public var stops: [Int] { steps.indices.filter { if case .linears = steps[$0] { true } else { false } } }

  /// The linears by shared input, in the order the block computes them.
  public var inputGroups: [InputGroup] {
    steps.compactMap { if case .linears(let names, _, _) = $0 { InputGroup(names) } else { nil } }
  }

  /// What must be at hand before a step so that it and all that follow can be computed.
  public func live(before index: Int) -> Set<BlockValue> {
    var live: Set<BlockValue> = [.stream]
    for step in steps[index...].reversed() { live = live.subtracting(step.makes).union(step.reads) }
    // A mixture's sum begins with zeros: before anything was added to it there is nothing to keep.
    return live.subtracting(begun(at: index))
  }

  /// Sums that no step before this one has added to.
  private func begun(at index: Int) -> Set<BlockValue> {
    let made = steps[..<index].reduce(into: Set<BlockValue>([.stream])) { $0.formUnion($1.makes) }
    return Set(
      steps[index...].compactMap { step in
        if case .scatter(_, _, _, let onto) = step, !made.contains(onto) { onto } else { nil }
      })
  }

  /// The steps that must be computed so that a value is at hand before step `end`, from what is at hand before step `start`.
  ///
  /// - Parameter wanted: the values that are asked for.
  /// - Returns: indices in ascending order. Steps whose results nobody asked for are left out: an expert is reached without those before it.
  public func needed(for wanted: Set<BlockValue>, from start: Int, to end: Int) -> [Int] {
    var (wanted, needed) = (wanted, [Int]())
    for index in (start..<end).reversed() where !wanted.isDisjoint(with: steps[index].makes) {
      needed.append(index)
      wanted.subtract(steps[index].makes)
      wanted.formUnion(steps[index].reads)
    }
    return needed.reversed()
  }

  /// The linears that read the residual stream, by the norm that stands between; `nil` where they read it as it is.
  public var residualReaders: [(norm: String?, group: InputGroup)] {
    var normed: [BlockValue: String] = [:]
    var streams: Set<BlockValue> = [.stream]
    var readers: [(norm: String?, linears: [LinearName])] = []
    for step in steps {
      switch step {
      case .norm(let name, let from, let into) where from == .stream && into != .stream: normed[into] = name
      // An expert's tokens are the router's.
      case .gather(let from, _, _, let into):
        if let name = normed[from] { normed[into] = name } else if streams.contains(from) { streams.insert(into) }
      case .linears(let names, let from, _) where normed[from] != nil || streams.contains(from):
        let norm = normed[from]
        if let place = readers.firstIndex(where: { $0.norm == norm && norm != nil }) {
          readers[place].linears += names
        } else if let last = readers.indices.last, readers[last].norm == nil, norm == nil, from != .stream {
          readers[last].linears += names
        } else {
          readers.append((norm, names))
        }
      default: break
      }
    }
    return readers.map { ($0.norm, InputGroup($0.linears)) }
  }

  /// The linears whose outputs are added to the residual stream, with at most norms and a mixture's weights between.
  public var residualWriters: [LinearName] {
    var writers: [LinearName] = []
    var makers: [BlockValue: [LinearName]] = [:]
    for step in steps {
      switch step {
      case .linears(let names, _, let into): for (name, value) in zip(names, into) { makers[value] = [name] }
      case .norm(_, let from, let into) where from != .stream: makers[into] = makers[from]
      case .scatter(let from, _, _, let onto): makers[onto, default: []] += makers[from] ?? []
      case .add(let from, let onto, _) where onto == .stream: writers += makers[from] ?? []
      case .add(let from, let onto, _): makers[onto, default: []] += makers[from] ?? []
      default: break
      }
    }
    return writers
  }

  /// Groups whose outputs are added to the residual stream together, by their places among the input groups: the layers of the block.
  public var layers: [Range<Int>] {
    var (ranges, owner) = ([Range<Int>](), [BlockValue: Range<Int>]())
    var group = 0
    for step in steps {
      var range = step.reads.filter { $0 != .stream }.compactMap { owner[$0] }.reduce(nil as Range<Int>?) { found, next in
        found.map { min($0.lowerBound, next.lowerBound)..<max($0.upperBound, next.upperBound) } ?? next
      }
      if case .linears = step {
        range = min(range?.lowerBound ?? group, group)..<group + 1
        group += 1
      }
      if case .add(_, let onto, _) = step, onto == .stream {
        if let range { ranges.append(range) }
        continue
      }
      for value in step.makes where value != .stream { owner[value] = range }
    }
    return ranges
  }
}

// MARK: - Stops

extension BlockProgram {
  /// What the linears at a stop read.
  func reading(atStop stop: Int) -> BlockValue { steps[stop].reads[0] }

  /// The expert whose linears are at a stop; `nil` for those that see every token.
  package func expert(atStop stop: Int) -> Int? {
    var (wanted, index) = (reading(atStop: stop), stop)
    while index > 0 {
      index -= 1
      guard steps[index].makes.contains(wanted) else { continue }
      if case .gather(_, _, let expert, _) = steps[index] { return expert }
      guard let next = steps[index].reads.first, next != .stream else { return nil }
      wanted = next
    }
    return nil
  }

  /// What no step needs any more once each is done.
  var spent: [[BlockValue]] {
    var live: Set<BlockValue> = [.stream]
    var spent = [[BlockValue]](repeating: [], count: steps.count)
    for index in steps.indices.reversed() {
      spent[index] = Set(steps[index].reads + steps[index].makes).subtracting(live).sorted { $0.rawValue < $1.rawValue }
      live = live.subtracting(steps[index].makes).union(steps[index].reads)
    }
    return spent
  }

  /// Index of the step that makes a stop's input by a norm of the residual stream as it is at the stop; `nil` where something else does.
  func normBefore(_ stop: Int) -> Int? {
    for index in (0..<stop).reversed() {
      if case .norm(_, .stream, let into) = steps[index], into != .stream, into == reading(atStop: stop) { return index }
      if steps[index].makes.contains(.stream) || steps[index].makes.contains(reading(atStop: stop)) { return nil }
    }
    return nil
  }

  /// Whether the residual stream is still what entered the block.
  package func isUntouched(before stop: Int) -> Bool { !steps[..<stop].contains { $0.makes.contains(.stream) } }

  /// What has to be kept of a sequence to go on from a stop: what is live there, but for an input that follows from the stream.
  package func kept(atStop stop: Int) -> Set<BlockValue> {
    let live = live(before: stop)
    return normBefore(stop) == nil ? live : live.subtracting([reading(atStop: stop)])
  }

  /// The stop that sequences are kept at on the way to another: experts do not read each other, so all of them are reached from the router's.
  package func anchor(ofStop stop: Int) -> Int {
    guard expert(atStop: stop) != nil else { return stop }
    let route = steps[..<stop].lastIndex { if case .route = $0 { true } else { false } }
    return stops.last { $0 < route ?? stop } ?? stop
  }

  /// What the router's experts gather from.
  var routed: BlockValue? {
    steps.lazy.compactMap { if case .gather(let from, _, _, _) = $0 { from } else { nil } }.first
  }

  /// The steps that a group's outputs go through until something is added to the residual stream, or an expert's to the mixture's sum; the last
  /// of them is that addition.
  package func consequences(ofStop stop: Int) -> [Int] {
    let isExpert = expert(atStop: stop) != nil
    var (reached, found): (Set<BlockValue>, [Int]) = ([reading(atStop: stop)], [])
    for index in stop..<steps.count
    where !reached.isDisjoint(with: steps[index].reads) && (index == stop || steps[index].reads != [.stream]) {
      // What another mixer adds is no consequence of this one.
      if case .add(let from, let onto, _) = steps[index], onto != .stream, !reached.contains(from) { continue }
      found.append(index)
      switch steps[index] {
      case .add(_, let onto, _) where onto == .stream: return found
      case .scatter where isExpert: return found
      default: reached.formUnion(steps[index].makes)
      }
    }
    return found
  }

  /// The groups that must be computed from a stop on until the layer around it, or the expert, has made its contribution.
  package func rest(fromStop stop: Int) -> Range<Int> {
    let places = consequences(ofStop: stop).compactMap { stops.firstIndex(of: $0) }
    return (places.first ?? 0)..<(places.last ?? 0) + 1
  }

  /// The groups of the same expert before one of its own.
  package func expertGroups(before group: Int) -> Range<Int> {
    let expert = expert(atStop: stops[group])
    var first = group
    while first > 0, expert != nil, self.expert(atStop: stops[first - 1]) == expert { first -= 1 }
    return first..<group
  }

  /// Whether a value has as many features as a feed-forward layer inside: more than what else is kept.
  package func isWide(_ value: BlockValue) -> Bool {
    steps.contains { if case .activate(_, _, _, value) = $0 { true } else { false } }
  }

  /// What makes a value, for messages: a norm by its name, or what kind of step it is.
  func maker(of value: BlockValue, _ mixers: TokenMixers) -> String {
    let step = steps.last { $0.makes.contains(value) }
    return switch step {
    case .norm(let name, _, _): name
    case .mix(let place, _, _): type(of: mixers[place]).kind
    case .activate: "the activation"
    case .gather(let from, _, _, _), .split(let from, _, _): maker(of: from, mixers)
    case .linears(let names, _, let into): zip(names, into).first { $0.1 == value }?.0.rawValue ?? "a linear"
    default: "the residual stream"
    }
  }
}
