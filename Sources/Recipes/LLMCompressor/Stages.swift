import Passes

// The skeleton of a recipe: `x_stage`, in it `y_modifiers`, in them `ClassName: { arguments }`. The reference reads nothing else, and says
// nothing of what it does not read.

extension LLMCompressor {
  /// `quant_stage`, or `quant_stage_0` as merged recipes are saved.
  static func isStage(_ key: String) -> Bool { key.hasSuffix("_stage") || savedStage(key) != nil }

  static func isGroup(_ key: String) -> Bool { key.hasSuffix("_modifiers") || key == "modifiers" }

  /// The name a stage had before its recipe was merged and saved.
  private static func savedStage(_ key: String) -> String? {
    let parts = key.split(separator: "_", omittingEmptySubsequences: false)
    guard parts.count > 2, parts[parts.count - 2] == "stage", parts.last!.allSatisfy(\.isNumber), !parts.last!.isEmpty else { return nil }
    return parts.dropLast().joined(separator: "_")
  }

  /// All modifiers, in the order of the file.
  static func modifiers(in root: RecipeNode) throws(RecipeError) -> [Modifier] {
    var modifiers: [Modifier] = []
    for stage in root.members {
      guard stage.key.hasSuffix("_stage") else { throw strayAtTop(stage) }
      guard case .mapping(let groups) = stage.node.value else {
        throw mistake(
          stage, "llm-compressor drops a stage that is not a mapping without a word; write `quant_modifiers:` with modifiers under it")
      }
      for group in groups {
        guard group.key.hasSuffix("_modifiers") else { throw strayInStage(group) }
        guard case .mapping(let entries) = group.node.value else {
          throw mistake(group, "llm-compressor drops a group that is not a mapping without a word; write `ClassName: { … }` under it")
        }
        for entry in entries { modifiers.append(try Modifier(entry)) }
      }
    }
    guard let first = root.members.first else { preconditionFailure("an empty mapping is no recipe of llm-compressor") }
    guard !modifiers.isEmpty else { throw mistake(first, "there is no modifier in the recipe") }
    return modifiers
  }

  static func mistake(_ member: RecipeNode.Member, _ reason: String, suggestion: String? = nil) -> RecipeError {
    RecipeError(
      file: member.mark.file, line: member.mark.line, column: member.mark.column, problem: .invalid(member.key, reason: reason),
      suggestion: suggestion)
  }

  private static func strayAtTop(_ member: RecipeNode.Member) -> RecipeError {
    let dropped = "llm-compressor reads only keys that end in `_stage` and drops others without a word"
    if let name = savedStage(member.key) {
      return mistake(member, "so llm-compressor names stages of merged recipes, and then loads nothing from them; rename it \(name)")
    }
    if isGroup(member.key) {
      let name = member.key == "modifiers" ? "quant_modifiers" : member.key
      return mistake(member, "\(dropped), so this would be an empty recipe; write `quant_stage:` and under it `\(name):`")
    }
    if Modifier.kinds[member.key] != nil {
      return mistake(member, "\(dropped), so this would do nothing; write `quant_stage:`, under it `quant_modifiers:`, and this under that")
    }
    switch member.key {
    case "args", "recipe_args":
      return mistake(member, "llm-compressor keeps this and never substitutes it; write the values where they are used")
    case "model", "calibration", "output", "evaluation", "seed":
      return mistake(member, "\(dropped); give it on the command line: --set \(member.key)…=…")
    default: return mistake(member, "\(dropped); remove it, or name it \(member.key)_stage if it is one")
    }
  }

  private static func strayInStage(_ member: RecipeNode.Member) -> RecipeError {
    let dropped = "llm-compressor reads only keys that end in `_modifiers` in a stage and drops others without a word"
    if member.key == "modifiers" { return mistake(member, "\(dropped); write quant_modifiers") }
    if Modifier.kinds[member.key] != nil { return mistake(member, "\(dropped); write `quant_modifiers:` above it") }
    guard case .mapping = member.node.value else { return mistake(member, "\(dropped); remove it") }
    return mistake(member, "\(dropped); remove it, or name it \(member.key)_modifiers if it is a group")
  }
}
