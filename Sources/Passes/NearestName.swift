/// The name a misspelt word was probably meant to be.
package enum NearestName {
  /// The candidate with the fewest edits, if they are few enough to be a slip; `nil` otherwise.
  package static func of(_ word: String, among candidates: some Sequence<String>) -> String? {
    let scored = candidates.map { (name: $0, distance: distance(Array(word.lowercased()), Array($0.lowercased()))) }
    let best = scored.min { ($0.distance, $0.name) < ($1.distance, $1.name) }
    return best.flatMap { $0.distance <= max(2, word.count / 3) ? $0.name : nil }
  }

  /// Damerau–Levenshtein distance with adjacent transpositions (optimal string alignment).
  private static func distance(_ a: [Character], _ b: [Character]) -> Int {
    var rows = [Array(0...b.count)]
    for i in 1..<max(a.count + 1, 1) {
      var row = [i] + Array(repeating: 0, count: b.count)
      for j in 1..<max(b.count + 1, 1) {
        row[j] = min(rows[i - 1][j] + 1, row[j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1))
        if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] { row[j] = min(row[j], rows[i - 2][j - 2] + 1) }
      }
      rows.append(row)
    }
    return rows[a.count][b.count]
  }
}
