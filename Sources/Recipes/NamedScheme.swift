internal import Models
internal import Passes
internal import StrictJSON

/// The key `scheme` of a pass: one word, such as `w4a16` or `fp8_dynamic`, that says all of its `numbers`, `bits`, `group_size`, `symmetric` and
/// `activations`. Any pass that has these five options takes it; what it stands for is what the pass sees.
public enum NamedScheme {
  /// How recipes spell it.
  public static let key = "scheme"

  /// What a scheme speaks of.
  private static let options: Set = ["numbers", "bits", "group_size", "symmetric", "activations"]

  /// All words, as recipes spell them: the presets of compressed-tensors.
  public static let names = QuantizationPreset.all.keys.map { $0.lowercased() }.sorted()

  /// Whether a pass with these keys takes a scheme; one that has a `scheme` of its own does not.
  static func isTaken(by keys: Set<String>) -> Bool { keys.isSuperset(of: options) && !keys.contains(key) }

  /// The options of a pass with the scheme's in place of its name.
  ///
  /// - Throws: `RecipeError` for a word that is none, and for an option beside it that says something else.
  static func expanded(_ node: RecipeNode, of pass: String) throws(RecipeError) -> RecipeNode {
    guard let named = node.members.first(where: { $0.key == key }) else { return node }
    guard !named.node.json.isNull else {
      return RecipeNode(value: .mapping(node.members.filter { $0.key != key }), position: node.position)
    }
    let place = named.node.position
    guard let word = named.node.json.string, let preset = QuantizationPreset.named(word) else {
      let given = named.node.json.string
      throw RecipeError(
        file: place.file, line: place.line, column: place.column,
        problem: .invalid(
          "\(pass).\(key)", reason: "\(given.map { "unknown \"\($0)\"" } ?? "a word is needed"); known: \(names.joined(separator: ", "))"),
        suggestion: given.flatMap { NearestName.of($0, among: names) })
    }
    let scheme = try LLMCompressor.Scheme(named: LLMCompressor.Entry(text: word, place: place), at: "\(pass).\(key)")
    var members = node.members.filter { $0.key != key }
    for var member in scheme.options(activations: true) {
      let isSize = member.key == "group_size" && preset.hasFreeGroups
      // The usual 128 fits most models; those it does not fit get what does.
      if isSize { member.node.value = .scalar(.string("auto")) }
      guard let index = members.firstIndex(where: { $0.key == member.key && !$0.node.json.isNull }) else {
        members.append(member)
        continue
      }
      let (given, implied) = (members[index].node, member.node.json)
      guard isSize || given.json == implied else {
        throw RecipeError(
          file: given.position.file, line: given.position.line, column: given.position.column,
          problem: .invalid(
            "\(pass).\(member.key)",
            reason: "it contradicts scheme: \(word), which has \(implied.string ?? implied.text()); leave one of the two out"),
          suggestion: nil)
      }
    }
    return RecipeNode(value: .mapping(members), position: node.position)
  }
}

extension QuantizationPreset {
  /// Whether other group sizes make it no other scheme: of integers in groups.
  fileprivate var hasFreeGroups: Bool {
    if case .group = weights.granularity { weights.grid == .integer } else { false }
  }
}
