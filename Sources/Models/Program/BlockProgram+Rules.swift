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
