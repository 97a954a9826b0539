/// How llama.cpp wants the rows of a matrix, or the elements of a bias, where Hugging Face's checkpoints have them otherwise.
package enum GGUFRows: Sendable {
  /// Neighbouring rows of queries are rotated together, where Hugging Face rotates halves of a head.
  case queries
  /// The same of keys.
  case keys
  /// All queries, all keys, all values, where Hugging Face has the queries of each key-value head, its key, its value.
  case groups

  /// Row i of the file's tensor is row `order[i]` of Hugging Face's; `nil` where the rows do not divide into heads.
  package func order(rows: Int, heads: Int, keyValueHeads: Int) -> [Int]? {
    guard heads > 0, keyValueHeads > 0 else { return nil }
    switch self {
    case .queries: return rows % (2 * heads) == 0 ? Self.neighbours(rows: rows, heads: heads) : nil
    case .keys: return rows % (2 * keyValueHeads) == 0 ? Self.neighbours(rows: rows, heads: keyValueHeads) : nil
    case .groups:
      guard heads % keyValueHeads == 0, rows % (heads + 2 * keyValueHeads) == 0 else { return nil }
      return Self.separated(rows: rows, heads: heads, keyValueHeads: keyValueHeads)
    }
  }

  /// Rows of a query or key projection in the order GGUF stores them: row 2i + s of a head is row s · d/2 + i of the same head.
  static func neighbours(rows: Int, heads: Int) -> [Int] {
    let (size, half) = (rows / heads, rows / heads / 2)
    return (0..<rows).map { row in row / size * size + row % 2 * half + row % size / 2 }
  }

  /// The inverse of `neighbours`.
  static func halves(rows: Int, heads: Int) -> [Int] { inverse(neighbours(rows: rows, heads: heads)) }

  private static func separated(rows: Int, heads: Int, keyValueHeads: Int) -> [Int] {
    let (size, group) = (rows / (heads + 2 * keyValueHeads), heads / keyValueHeads)
    // Heads of d rows, as the file has them, by where they lie in groups.
    let queries = (0..<heads).map { $0 / group * (group + 2) + $0 % group }
    let (keys, values) = ((0..<keyValueHeads).map { $0 * (group + 2) + group }, (0..<keyValueHeads).map { $0 * (group + 2) + group + 1 })
    return (queries + keys + values).flatMap { head in head * size..<(head + 1) * size }
  }

  /// The order that undoes another.
  package static func inverse(_ order: [Int]) -> [Int] {
    var inverse = [Int](repeating: 0, count: order.count)
    for (to, from) in order.enumerated() { inverse[from] = to }
    return inverse
  }
}
