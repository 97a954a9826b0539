import StrictJSON

extension LLMCompressor {
  /// Modifiers become passes: in their order, except that a modifier may need what another one says.
  struct Translation {
    private enum Step {
      case quantize(Quantizer)
      case transform(Modifier)

      var quantizer: Quantizer? { if case .quantize(let quantizer) = self { quantizer } else { nil } }
    }

    let catalog: PassCatalog
    private(set) var passes: [(name: String, options: RecipeNode)] = []
    private(set) var remarks = Remarks()

    init(catalog: PassCatalog) { self.catalog = catalog }

    mutating func translate(_ modifiers: [Modifier]) throws(RecipeError) {
      var steps: [Step] = []
      for modifier in modifiers {
        modifier.remarkHints(&remarks)
        switch modifier.kind {
        case .rounding, .gptq:
          var quantizer = try Quantizer(modifier, &remarks)
          if quantizer.isBare { try inherit(&quantizer, from: &steps) }
          steps.append(.quantize(quantizer))
        case .awq:
          steps.append(.transform(modifier))
          if try hasScheme(modifier) { steps.append(.quantize(try Quantizer(modifier, &remarks))) }
        case .smoothQuant, .spinQuant, .sparseGPT, .wanda, .none: steps.append(.transform(modifier))
        }
      }
      try checkOnce(steps.compactMap(\.quantizer))
      for (index, step) in steps.enumerated() {
        switch step {
        case .quantize(let quantizer) where quantizer.groups.isEmpty: break
        case .quantize(let quantizer):
          try add(quantizer.modifier.kind == .gptq ? "gptq" : "rtn", try quantizer.options(&remarks), for: quantizer.modifier)
        case .transform(let modifier):
          switch modifier.kind {
          case .awq:
            let following = steps[(index + 1)...].compactMap(\.quantizer).filter { !$0.groups.isEmpty }
            try add("awq", try LLMCompressor.awq(modifier, before: following), for: modifier)
          case .sparseGPT: try add("sparsegpt", try LLMCompressor.pruning(modifier), for: modifier)
          case .wanda: try add("wanda", try LLMCompressor.pruning(modifier), for: modifier)
          case .smoothQuant: try add("smoothquant", try LLMCompressor.smoothQuant(modifier), for: modifier)
          default: try add("rotate", try LLMCompressor.spinQuant(modifier, &remarks), for: modifier)
          }
        }
      }
      try addCache(steps.compactMap(\.quantizer))
    }

    /// A GPTQModifier without a scheme solves for the one that an earlier QuantizationModifier gave.
    private func inherit(_ quantizer: inout Quantizer, from steps: inout [Step]) throws(RecipeError) {
      let earlier = steps.indices.filter { steps[$0].quantizer.map { $0.modifier.kind == .rounding && !$0.groups.isEmpty } ?? false }
      guard let index = earlier.last else {
        throw quantizer.modifier.arguments.refusal(
          "there is no scheme, here or in a QuantizationModifier before it, so llm-compressor would quantize nothing and not say so; give scheme or config_groups"
        )
      }
      guard earlier.count == 1, let source = steps[index].quantizer else {
        throw quantizer.modifier.arguments.refusal("several modifiers before it give schemes; give it its own")
      }
      (quantizer.groups, quantizer.ignore, quantizer.cache) = (source.groups, source.ignore, source.cache)
      steps.remove(at: index)
    }

    private func hasScheme(_ modifier: Modifier) throws(RecipeError) -> Bool {
      let arguments = modifier.arguments
      if arguments.given("scheme") != nil || arguments.given("config_groups") != nil { return true }
      if let stray = arguments.all.first(where: { Modifier.quantization.contains($0.key) && !$0.isNull }) {
        throw stray.refusal("it belongs to the modifier that quantizes, after this one")
      }
      return false
    }

    private func checkOnce(_ quantizers: [Quantizer]) throws(RecipeError) {
      var owners: [String: String] = [:]
      for quantizer in quantizers {
        for target in quantizer.groups.flatMap(\.targets).map(\.entry) {
          if let owner = owners[target.text] {
            throw RecipeError(
              file: target.place.file, line: target.place.line, column: target.place.column,
              problem: .invalid("\(quantizer.modifier.name).targets", reason: "\"\(target.text)\" is quantized by \(owner) already"),
              suggestion: nil)
          }
        }
        for target in quantizer.groups.flatMap(\.targets) { owners[target.entry.text] = quantizer.modifier.name }
      }
    }

    private mutating func addCache(_ quantizers: [Quantizer]) throws(RecipeError) {
      let caches = quantizers.filter { $0.cache != nil }
      guard let first = caches.first, let cache = first.cache else { return }
      if caches.count > 1 { throw caches[1].modifier.arguments.refusal("there is a kv_cache_scheme in \(first.modifier.name) already") }
      let options = RecipeNode(value: .mapping([.init("scheme", .string(cache.text), at: cache.place)]), position: cache.place)
      try add("kv_cache", options, for: first.modifier)
    }

    private mutating func add(_ name: String, _ options: RecipeNode, for modifier: Modifier) throws(RecipeError) {
      guard catalog[name] != nil else {
        let place = options.position
        throw RecipeError(
          file: place.file, line: place.line, column: place.column,
          problem: .invalid(
            modifier.name,
            reason: "it needs the pass \"\(name)\", and there is no such pass here; passes: \(catalog.names.joined(separator: ", "))"),
          suggestion: nil)
      }
      passes.append((name, options))
    }
  }
}
