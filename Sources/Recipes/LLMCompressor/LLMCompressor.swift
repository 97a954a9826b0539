import Passes

/// Recipes of llm-compressor: stages over groups over modifiers, each of which becomes a pass of ours.
///
/// The same recipe is to give the same result, so the reference's defaults are written out where ours differ (scales by minimum and maximum,
/// no refit). What the reference would drop without a word is an error here, and so is every argument that cannot be carried over; hints
/// to its machinery are listed as remarks.
enum LLMCompressor {
  /// Whether a file is such a recipe, or was meant to be one.
  static func wrote(_ root: RecipeNode) -> Bool {
    guard root["passes"] == nil else { return false }
    return root.members.contains { member in
      isStage(member.key) || isGroup(member.key) || Modifier.kinds[member.key] != nil
    }
  }

  /// The same recipe in our own form, every node at the place in the file that it comes from.
  ///
  /// - Throws: `RecipeError` for the first thing that cannot be carried over.
  static func translate(_ root: RecipeNode, _ catalog: PassCatalog) throws(RecipeError) -> (recipe: RecipeNode, remarks: [String]) {
    let modifiers = try modifiers(in: root)
    var translation = Translation(catalog: catalog)
    try translation.translate(modifiers)
    let entries = translation.passes.map { pass in
      RecipeNode(value: .mapping([.init(key: pass.name, mark: pass.options.position, node: pass.options)]), position: pass.options.position)
    }
    guard !entries.isEmpty else { throw modifiers[0].arguments.refusal("nothing is left to do") }
    let list = RecipeNode(value: .list(entries), position: root.position)
    return (
      RecipeNode(value: .mapping([.init(key: "passes", mark: root.position, node: list)]), position: root.position),
      translation.remarks.lines
    )
  }

  /// What has no meaning here, one line for each modifier or argument.
  struct Remarks {
    private(set) var lines: [String] = []

    mutating func add(_ text: String, at place: RecipeNode.Position) {
      let line = "\(place.file):\(place.line):\(place.column): \(text)"
      if !lines.contains(line) { lines.append(line) }
    }
  }
}
