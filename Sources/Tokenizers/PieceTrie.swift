/// Byte strings in a tree, to find all that begin at a place of a text at once.
///
/// Children of a node stand side by side in one list, sorted by their byte.
struct PieceTrie: Sendable {
  private struct Node {
    /// The strings' value, or −1 where none ends here.
    var value: Int32 = -1
    var firstChild: Int32 = 0
    var childCount: Int32 = 0
    var byte: UInt8 = 0
  }

  private var nodes: [Node] = [Node()]
  /// The root's children by byte; most walks end here.
  private var roots: [Int32] = Array(repeating: -1, count: 256)

  /// - Parameter pieces: not empty; of equal strings the last one counts.
  init(_ pieces: [(bytes: Bytes, value: Int32)]) {
    let sorted = pieces.enumerated().filter { !$0.element.bytes.isEmpty }.sorted {
      $0.element.bytes == $1.element.bytes ? $0.offset < $1.offset : $0.element.bytes.lexicographicallyPrecedes($1.element.bytes)
    }.map(\.element)
    // Level by level, so that children of one node lie together: (node, its strings, their common length).
    var level: [(node: Int, range: Range<Int>)] = [(0, 0..<sorted.count)]
    var depth = 0
    while !level.isEmpty {
      var next: [(node: Int, range: Range<Int>)] = []
      for (node, range) in level {
        var start = range.lowerBound
        while start < range.upperBound, sorted[start].bytes.count == depth {
          nodes[node].value = sorted[start].value
          start += 1
        }
        nodes[node].firstChild = Int32(nodes.count)
        while start < range.upperBound {
          let byte = sorted[start].bytes[depth]
          var end = start + 1
          while end < range.upperBound, sorted[end].bytes[depth] == byte { end += 1 }
          next.append((nodes.count, start..<end))
          nodes.append(Node(byte: byte))
          nodes[node].childCount += 1
          start = end
        }
      }
      level = next
      depth += 1
    }
    for child in children(of: 0) { roots[Int(nodes[child].byte)] = Int32(child) }
  }

  private func children(of node: Int) -> Range<Int> {
    let first = Int(nodes[node].firstChild)
    return first..<first + Int(nodes[node].childCount)
  }

  @inline(__always)
  private func child(of node: Int, _ byte: UInt8) -> Int? {
    var (low, high) = (Int(nodes[node].firstChild), Int(nodes[node].firstChild + nodes[node].childCount))
    while low < high {
      let middle = (low + high) / 2
      if nodes[middle].byte == byte { return middle }
      if nodes[middle].byte < byte { low = middle + 1 } else { high = middle }
    }
    return nil
  }

  /// Calls `body` with the length and the value of every string that begins at `position`, shortest first.
  ///
  /// Inlined, since a closure for every position of a text would be paid for in counted references.
  @inline(__always)
  func forEachPrefix(of text: Span<UInt8>, at position: Int, _ body: (_ length: Int, _ value: Int32) -> Void) {
    guard position < text.count else { return }
    var node = Int(roots[Int(text[position])])
    guard node >= 0 else { return }
    var end = position + 1
    while true {
      if nodes[node].value >= 0 { body(end - position, nodes[node].value) }
      guard end < text.count, let next = child(of: node, text[end]) else { return }
      node = next
      end += 1
    }
  }

  /// The longest string that begins at `position`.
  func longestPrefix(of text: Span<UInt8>, at position: Int) -> (length: Int, value: Int32)? {
    var found: (Int, Int32)?
    forEachPrefix(of: text, at: position) { found = ($0, $1) }
    return found
  }
}
