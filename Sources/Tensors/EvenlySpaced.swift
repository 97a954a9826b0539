/// Indices at equal distances.
package struct EvenlySpaced: Sendable, Hashable, RandomAccessCollection {
  package var first: Int
  package var step: Int
  package var count: Int

  package init(first: Int, step: Int, count: Int) {
    precondition(step > 0 && count >= 0, "indices go up")
    self.first = first
    self.step = step
    self.count = count
  }

  package var startIndex: Int { 0 }
  package var endIndex: Int { count }
  package subscript(index: Int) -> Int { first + index * step }
}
