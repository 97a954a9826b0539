/// The recipe at the head of a Markdown file, between two lines `---` or `+++`.
enum FrontMatter {
  /// - Returns: the block at the lines it has in the file.
  static func of(_ text: String, file: String) throws(RecipeError) -> String {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    func isFence(_ line: Substring) -> Bool { ["---", "+++"].contains(line.filter { !$0.isWhitespace }) }
    guard let start = lines.firstIndex(where: isFence) else {
      throw RecipeError(
        file: file, line: 1, column: 1, problem: .syntax("no recipe between two lines --- or +++ in this Markdown file"), suggestion: nil)
    }
    guard let end = lines[(start + 1)...].firstIndex(where: { isFence($0) && $0.first == lines[start].first }) else {
      throw RecipeError(
        file: file, line: start + 1, column: 1, problem: .syntax("the second line \(lines[start]) is missing after the recipe"),
        suggestion: nil)
    }
    return String(repeating: "\n", count: start + 1) + lines[(start + 1)..<end].joined(separator: "\n") + "\n"
  }
}
