import Passes
import StrictJSON

extension LLMCompressor {
  /// A modifier that quantizes: QuantizationModifier, GPTQModifier, or AWQModifier as it was written with a scheme.
  struct Quantizer {
    let modifier: Modifier
    var groups: [Group] = []
    var ignore: [Target] = []
    /// The scheme of the pass `kv_cache`.
    var cache: Entry?

    private var arguments: Arguments { modifier.arguments }

    /// Whether nothing says what to do, so that an earlier modifier must.
    var isBare: Bool { groups.isEmpty && cache == nil }

    init(_ modifier: Modifier, _ remarks: inout Remarks) throws(RecipeError) {
      self.modifier = modifier
      let arguments = modifier.arguments
      try arguments.refuse("output_observer", "outputs of linears are not quantized by any pass here")
      if let bypass = arguments.given("bypass_divisibility_checks"), try bypass.flag() {
        throw bypass.refusal("groups must divide the columns here; give such linears another group size")
      }
      groups = try readGroups(&remarks)
      for entry in try arguments.given("ignore")?.entries() ?? [] { ignore.append(try Target(entry, in: "\(arguments.path).ignore")) }
      if let cache = arguments.given("kv_cache_scheme") {
        self.cache = Entry(text: try Numbers(try cache.arguments(), &remarks).cache(), place: cache.mark)
      }
      try readObservers(&remarks)
      guard groups.isEmpty else { return }
      if let idle = arguments.given("targets") ?? arguments.given("ignore") {
        guard cache != nil else {
          throw idle.refusal(
            "there is no scheme, so llm-compressor would quantize nothing by this and not say so; give scheme or config_groups")
        }
        remarks.add("\(idle.key) has no meaning here: only the cache is quantized, all of it", at: idle.mark)
      }
      guard cache != nil || modifier.kind == .gptq else { throw arguments.refusal("it quantizes nothing; give scheme or config_groups") }
    }

    private func readGroups(_ remarks: inout Remarks) throws(RecipeError) -> [Group] {
      guard let given = arguments.given("scheme") ?? arguments.given("config_groups") else { return [] }
      if arguments.given("scheme") != nil, let both = arguments.given("config_groups") {
        throw both.refusal("it and scheme exclude each other")
      }
      let targets = arguments.given("targets")
      if given.key == "scheme", let name = given.node.json.string {
        let scheme = try Scheme(named: Entry(text: name, place: given.node.position), at: given.path)
        let entries = try targets?.entries() ?? [Entry(text: "Linear", place: given.mark)]
        return [Group(targets: try Self.targets(entries, targets?.path ?? given.path), scheme: scheme)]
      }
      if let targets, try targets.entries().map(\.text) != ["Linear"] {
        throw targets.refusal("llm-compressor uses it only beside a scheme of one word, and drops it here without a word")
      }
      var groups: [Group] = []
      for group in try given.arguments().all {
        let isPreset = if case .mapping = group.node.value { false } else { true }
        // `W4A16: [Linear]`, which both spellings know.
        if given.key == "scheme" || isPreset {
          let scheme = try Scheme(named: Entry(text: group.key, place: group.mark), at: given.path)
          groups.append(Group(targets: try Self.targets(try group.entries(), group.path), scheme: scheme))
          continue
        }
        let explicit = try group.arguments()
        guard let targets = explicit.given("targets") else { throw explicit.refusal("targets are needed") }
        groups.append(Group(targets: try Self.targets(try targets.entries(), targets.path), scheme: try Scheme(explicit, &remarks)))
      }
      guard !groups.isEmpty else { throw given.refusal("at least one group is needed") }
      return groups
    }

    private static func targets(_ entries: [Entry], _ path: String) throws(RecipeError) -> [Target] {
      var targets: [Target] = []
      for entry in entries { targets.append(try Target(entry, in: path)) }
      return targets
    }

    // MARK: Observers

    private mutating func readObservers(_ remarks: inout Remarks) throws(RecipeError) {
      var (weights, input) = (arguments.given("weight_observer"), arguments.given("input_observer"))
      if let both = arguments.given("observer") {
        if weights != nil || input != nil { throw both.refusal("it and weight_observer or input_observer exclude each other") }
        let observers = try both.arguments()
        try observers.check(known: ["weights", "input", "output"])
        try observers.refuse("output", "outputs of linears are not quantized by any pass here")
        (weights, input) = (observers.given("weights"), observers.given("input"))
      }
      if let weights {
        let observer = Entry(text: try weights.text(), place: weights.mark)
        for index in groups.indices { groups[index].scheme.observer = observer }
      }
      if let input { try Numbers.checkInput(input, &remarks) }
    }

    /// `scales` and, for rounding, `importance`: of all schemes alike.
    private func scales(of schemes: [Scheme], _ remarks: inout Remarks) throws(RecipeError) -> [RecipeNode.Member] {
      var found: (choice: String, weighted: Bool, place: RecipeNode.Position)?
      for scheme in schemes {
        let place = scheme.observer?.place ?? scheme.place
        let choice: (String, Bool)
        switch scheme.observer?.text {
        case nil, "memoryless_minmax", "static_minmax", "minmax": choice = ("minmax", false)
        case "memoryless_mse", "mse", "nvfp4_expanded_mse": choice = ("clip", false)
        case "imatrix_mse": choice = ("clip", true)
        case let other?:
          let known = ["memoryless_minmax", "static_minmax", "minmax", "memoryless_mse", "mse", "nvfp4_expanded_mse", "imatrix_mse"]
          throw Self.refusal(
            place, "observer", "\"\(other)\" is not known here; known: \(known.joined(separator: ", "))",
            NearestName.of(other, among: known))
        }
        if let found, (found.choice, found.weighted) != choice {
          throw Self.refusal(place, "observer", "one way of choosing scales holds for all weights of a modifier here", nil)
        }
        if let name = scheme.observer?.text, choice.0 == "clip" {
          remarks.add("\(name): scales are searched as `scales: clip` does it, by squared error", at: place)
        }
        found = (choice.0, choice.1, place)
      }
      guard let found else { return [] }
      var members = [RecipeNode.Member("scales", .string(found.choice), at: found.place)]
      // GPTQ's search is weighted by the calibration data as it is.
      if modifier.kind != .gptq {
        members.append(.init("importance", .string(found.weighted ? "activations" : "none"), at: found.place))
      }
      return members
    }

    private static func refusal(_ place: RecipeNode.Position, _ key: String, _ reason: String, _ suggestion: String?) -> RecipeError {
      RecipeError(file: place.file, line: place.line, column: place.column, problem: .invalid(key, reason: reason), suggestion: suggestion)
    }

    // MARK: The pass

    func selection() throws(RecipeError) -> Selection { try Selection(groups, ignore: ignore, of: arguments) }

    /// The options of `rtn` or `gptq`.
    func options(_ remarks: inout Remarks) throws(RecipeError) -> RecipeNode {
      let selection = try selection()
      var members = selection.base.options(activations: true)
      members += try scales(of: selection.schemes, &remarks)
      if modifier.kind == .gptq {
        members += try solver(selection.schemes)
      } else {
        for scheme in selection.schemes where scheme.order != nil {
          remarks.add("actorder has no meaning where weights are rounded one by one", at: scheme.orderPlace ?? scheme.place)
        }
      }
      members.append(selection.layers)
      if let overrides = selection.overrides(activations: true) { members.append(overrides) }
      return RecipeNode(value: .mapping(members), position: arguments.mark)
    }

    /// What GPTQ has besides a scheme, as the reference does it: scales from the original weights whatever the order.
    private func solver(_ schemes: [Scheme]) throws(RecipeError) -> [RecipeNode.Member] {
      var orders: [Scheme.Order?] = []
      for scheme in schemes {
        let order = try order(of: scheme)
        if let first = orders.first, first != order {
          throw Self.refusal(scheme.orderPlace ?? scheme.place, "actorder", "one order holds for all weights of a modifier here", nil)
        }
        orders.append(order)
      }
      let place = arguments.place(of: "actorder")
      return [
        .init("order", .string(orders.contains { $0 != nil } ? "activation" : "natural"), at: place),
        .init("static_groups", .bool(true), at: place), .init("refit", .bool(false), at: arguments.mark),
        .init("drift_correction", .integer(0), at: arguments.mark),
        .init(key: "damping", mark: arguments.place(of: "dampening_frac"), node: value("dampening_frac", .double(0.01))),
        .init(key: "block_size", mark: arguments.place(of: "block_size"), node: value("block_size", .integer(128))),
      ]
    }

    private func value(_ key: String, _ otherwise: JSON) -> RecipeNode {
      arguments.given(key)?.node ?? RecipeNode(value: .scalar(otherwise), position: arguments.mark)
    }

    /// The modifier's order, which by default is by weight and yields to the scheme's; said aloud, it may not contradict it.
    private func order(of scheme: Scheme) throws(RecipeError) -> Scheme.Order? {
      var order = scheme.order ?? .weight
      if let argument = arguments["actorder"] {
        let own = argument.isNull ? nil : try Numbers.order(argument)
        if let given = scheme.order, given != own { throw argument.refusal("it contradicts the actorder of the scheme, \(given)") }
        guard let own else { return nil }
        order = own
      }
      guard order == .weight else {
        throw Self.refusal(
          scheme.orderPlace ?? arguments.place(of: "actorder"), "actorder",
          "group stores the order of columns (weight_g_idx), which no pass here does; write static", nil)
      }
      return order
    }
  }
}
