import CompressKit
import TestSupport
import Testing

@Suite struct SparsityMaskTests {
  /// The removed columns of each row by sorting, ties to the left.
  private func lowest(_ scores: ArraySlice<Float>, _ count: Int) -> Set<Int> {
    Set(scores.indices.sorted { (scores[$0], $0) < (scores[$1], $1) }.prefix(count).map { $0 - scores.startIndex })
  }

  @Test(arguments: [(1, 1), (3, 7), (5, 64), (4, 200)], [0, 0.3, 0.5, 0.99])
  func rowsLoseTheirLowest(shape: (Int, Int), sparsity: Double) {
    let (rows, columns) = shape
    // Few different values, so that ties occur.
    var scores = Matrix.random(rows: rows, columns: columns, key: "scores")
    scores = Matrix(rows: rows, columns: columns, elements: scores.elements.map { abs($0 * 4).rounded() })
    let mask = SparsityMask(scores: scores, pattern: .unstructured, sparsity: sparsity, comparing: .row)
    for row in 0..<rows {
      let part = row * columns..<(row + 1) * columns
      let found = Set((0..<columns).filter { mask.isPruned[row * columns + $0] })
      #expect(found == lowest(scores.elements[part], Int(sparsity * Double(columns))))
    }
    let all = SparsityMask(scores: scores, pattern: .unstructured, sparsity: sparsity, comparing: .layer)
    let expected = lowest(scores.elements[...], Int(sparsity * Double(rows * columns)))
    #expect(Set(all.isPruned.indices.filter { all.isPruned[$0] }) == expected)
  }

  @Test(arguments: [(2, 4), (4, 8), (1, 4), (3, 4), (1, 2), (7, 32)])
  func groupsKeepTheirLargest(kept: Int, group: Int) {
    let scores = Matrix.random(rows: 6, columns: group * 5, key: "groups")
    let magnitudes = Matrix(rows: 6, columns: group * 5, elements: scores.elements.map { abs($0) })
    let mask = SparsityMask(
      scores: magnitudes, pattern: .grouped(kept: kept, group: group), sparsity: 0, comparing: .layer)
    for start in stride(from: 0, to: magnitudes.elements.count, by: group) {
      let part = magnitudes.elements[start..<start + group]
      #expect(Set((0..<group).filter { mask.isPruned[start + $0] }) == lowest(part, group - kept))
    }
    #expect(abs(mask.sparsity - (1 - Double(kept) / Double(group))) < 1e-12)
  }

  @Test func patternsAreSpelledAsTheFieldDoes() throws {
    #expect(SparsityPattern("2:4") == .grouped(kept: 2, group: 4))
    #expect(SparsityPattern("unstructured") == .unstructured)
    for wrong in ["4:2", "0:4", "4:4", "2:", "2:4:8", "dense", "", "2:65"] { #expect(SparsityPattern(wrong) == nil, "\(wrong)") }
    #expect(SparsityPattern("1:4")?.sparsity == 0.75)
    #expect("\(SparsityPattern.grouped(kept: 4, group: 8))" == "4:8")
  }
}
