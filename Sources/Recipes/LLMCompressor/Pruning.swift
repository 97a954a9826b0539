import StrictJSON

// Modifiers that remove weights.

extension LLMCompressor {
  /// `sparsegpt` or `wanda`, without what these add to the published algorithms.
  static func pruning(_ modifier: Modifier) throws(RecipeError) -> RecipeNode {
    let arguments = modifier.arguments
    var members: [RecipeNode.Member] = []
    func add(_ name: String, _ key: String) {
      if let given = arguments.given(key) { members.append(.init(key: name, mark: given.mark, node: given.node)) }
    }
    let structure = arguments.given("mask_structure")
    let pattern = try structure.map { argument throws(RecipeError) in try Self.pattern(argument) } ?? nil
    if let structure, let pattern {
      members.append(.init("pattern", .string(pattern), at: structure.mark))
      if arguments.given("sparsity_profile") != nil {
        throw structure.refusal("a profile gives every block another share, and \(pattern) allows one")
      }
    } else {
      guard let sparsity = arguments.given("sparsity") else { throw arguments.refusal("sparsity is needed") }
      guard sparsity.node.json.double != nil else { throw sparsity.refusal("one number is needed; shares by block are OWL's to find here") }
      add("sparsity", "sparsity")
    }
    if let profile = arguments.given("sparsity_profile") {
      _ = try profile.choice("owl")
      members.append(.init("allocation", .string("owl"), at: profile.mark))
      add("owl_threshold", "owl_m")
      add("owl_limit", "owl_lmbda")
    }
    if modifier.kind == .sparseGPT {
      add("damping", "dampening_frac")
      add("block_size", "block_size")
      // The published algorithm; what is kept could be refitted besides.
      members.append(.init("refit", .bool(false), at: arguments.mark))
      if let preserve = arguments.given("preserve_sparsity_mask"), try preserve.flag() {
        throw preserve.refusal("zeros of the weights that come in are not kept by any pass that prunes here: false")
      }
    }
    members.append(try layers(of: arguments))
    return RecipeNode(value: .mapping(members), position: arguments.mark)
  }

  /// Our pattern for a mask structure, which names the weights that go where ours names those that stay; `nil` for none.
  private static func pattern(_ structure: Argument) throws(RecipeError) -> String? {
    let sides = try structure.text().split(separator: ":", omittingEmptySubsequences: false).map { Int($0) }
    guard sides.count == 2, let pruned = sides[0], let group = sides[1] else { throw structure.refusal("N:M is needed, such as 2:4") }
    if pruned == 0, group == 0 { return nil }
    guard pruned > 0, pruned < group else { throw structure.refusal("of M weights, more than none and fewer than all must go") }
    return "\(group - pruned):\(group)"
  }

  private static func layers(of arguments: Arguments) throws(RecipeError) -> RecipeNode.Member {
    if let targets = arguments.given("targets") {
      for entry in try targets.entries() where entry.text != "Linear" {
        throw targets.refusal("\"\(entry.text)\": only Linear can be said here, and `ignore` for what is to be left out")
      }
    }
    let place = arguments.place(of: "targets", "ignore")
    var ignored: [Target] = []
    for entry in try arguments.given("ignore")?.entries() ?? [] { ignored.append(try Target(entry, in: "\(arguments.path).ignore")) }
    var lists = [Selection.list("include", [Entry(text: "*", place: place)])]
    if !ignored.contains(where: { $0.fits(Target.head) }) {
      lists = [Selection.list("include", [Entry(text: "*", place: place), Entry(text: Target.head, place: place)])]
    }
    let patterns = ignored.flatMap(\.patterns)
    lists += Selection.exclusions(patterns)
    return .init(key: "layers", mark: place, node: RecipeNode(value: .mapping(lists), position: place))
  }
}
