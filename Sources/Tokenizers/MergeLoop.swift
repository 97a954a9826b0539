/// Joins neighbouring tokens of one piece, lowest rank first and leftmost among equals.
///
/// A piece may be a whole document where a model has no pre-tokenizer, so candidates wait in a heap: O(n log n), not O(n²).
/// The buffers outlive a piece to spare an allocation for each.
struct MergeLoop {
  private static let none = UInt32.max
  /// A token that was joined to the one on its left.
  private static let gone: Int32 = -1

  private var next: [Int32] = []
  private var previous: [Int32] = []
  /// Rank of the pair that begins at a token; a candidate with any other rank is out of date.
  private var ranks: [UInt32] = []
  private var results: [Int32] = []
  private var heap = MinHeap()

  mutating func run(_ tokens: inout [Int32], merges: MergeTable) {
    let count = tokens.count
    guard count > 1 else { return }
    prepare(tokens, merges: merges)
    while let candidate = heap.pop() {
      let left = Int(candidate & 0xFFFF_FFFF)
      guard ranks[left] == UInt32(candidate >> 32) else { continue }
      let right = Int(next[left])
      let after = next[right]
      tokens[left] = results[left]
      tokens[right] = Self.gone
      ranks[right] = Self.none
      next[left] = after
      if Int(after) < count { previous[Int(after)] = Int32(left) }
      if previous[left] >= 0 { offer(Int(previous[left]), tokens, merges) }
      offer(left, tokens, merges)
    }
    tokens.removeAll { $0 == Self.gone }
  }

  private mutating func prepare(_ tokens: [Int32], merges: MergeTable) {
    let count = tokens.count
    next.removeAll(keepingCapacity: true)
    previous.removeAll(keepingCapacity: true)
    ranks.removeAll(keepingCapacity: true)
    results.removeAll(keepingCapacity: true)
    for index in 0..<count {
      next.append(Int32(index + 1))
      previous.append(Int32(index - 1))
      let merge = index + 1 < count ? merges.merge(tokens[index], tokens[index + 1]) : nil
      ranks.append(merge?.rank ?? Self.none)
      results.append(merge?.result ?? Self.gone)
      if let merge { heap.appendUnordered(UInt64(merge.rank) << 32 | UInt64(index)) }
    }
    heap.order()
  }

  private mutating func offer(_ left: Int, _ tokens: [Int32], _ merges: MergeTable) {
    let right = Int(next[left])
    guard right < tokens.count, let merge = merges.merge(tokens[left], tokens[right]) else {
      ranks[left] = Self.none
      return
    }
    ranks[left] = merge.rank
    results[left] = merge.result
    heap.push(UInt64(merge.rank) << 32 | UInt64(left))
  }
}

/// A binary heap whose least element is popped first.
struct MinHeap {
  private var elements: [UInt64] = []

  /// Adds an element without a place; `order()` must follow before the heap is used.
  mutating func appendUnordered(_ element: UInt64) { elements.append(element) }

  mutating func order() {
    guard elements.count > 1 else { return }
    for index in stride(from: elements.count / 2 - 1, through: 0, by: -1) { sink(index) }
  }

  mutating func push(_ element: UInt64) {
    var index = elements.count
    elements.append(element)
    while index > 0, element < elements[(index - 1) / 2] {
      elements[index] = elements[(index - 1) / 2]
      index = (index - 1) / 2
    }
    elements[index] = element
  }

  mutating func pop() -> UInt64? {
    guard let last = elements.popLast() else { return nil }
    guard let least = elements.first else { return last }
    elements[0] = last
    sink(0)
    return least
  }

  private mutating func sink(_ start: Int) {
    var index = start
    let element = elements[index]
    while 2 * index + 1 < elements.count {
      var child = 2 * index + 1
      if child + 1 < elements.count, elements[child + 1] < elements[child] { child += 1 }
      guard elements[child] < element else { break }
      elements[index] = elements[child]
      index = child
    }
    elements[index] = element
  }
}
