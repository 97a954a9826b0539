import CheckpointIO
import Formats
import Models
import Passes
import Recipes
import Tensors

// What a plan settles before anything is read: what stays out, what cannot be written, what is to be said.

extension Compressor {
  /// The model without its multi-token prediction where the passes change the hidden states that it reads, or the sizes it has in common with
  /// the other blocks: nothing here could change it with them.
  ///
  /// - Throws: `PipelineError` for anything else beside the model that writes into these hidden states or reads them; `UnwantedFallback`.
  func leavingOutPredictions(
    of model: Model, _ pipeline: Pipeline, _ config: inout ModelConfig, _ remarks: inout [String]
  ) throws -> Model {
    guard !model.carried.isEmpty else { return model }
    let before = pipeline.prepared(model).description
    let after = try pipeline.reshapings(of: before).last ?? before
    let turning = recipe.passes.first(where: \.changesHiddenBasis)
    guard turning != nil || after != before || recipe.passes.contains(where: \.removesBlocks) else { return model }
    let names = model.predictionTensors
    let others = Set(model.carriedOnStream).subtracting(names).sorted()
    if let turning, let first = others.first {
      let name = type(of: turning).name
      throw PipelineError(
        pass: name, block: "the model",
        cause: InvalidOption(
          "passes",
          "the checkpoint holds \(others.count) tensors beside the model that write into its hidden states or read them, such as \(first), "
            + "which \(name) would leave in other coordinates; take a checkpoint of the language model alone"),
        index: recipe.passes.firstIndex { type(of: $0) == type(of: turning) } ?? 0)
    }
    guard let first = names.first else { return model }
    let what = "\(names.count) tensors of multi-token prediction (\(first), …) are left out: the passes change what they read"
    if strict { throw UnwantedFallback(layer: first, reason: what) }
    let counts = config.json.clearPredictionCounts()
    remarks.append(what + (counts.isEmpty ? "" : "; \(counts.joined(separator: ", ")) becomes 0"))
    return model.leavingOut(Set(names))
  }

  /// Settles what becomes of weights that come in ggml's blocks, or in a form of another library, and that no pass changes.
  ///
  /// - Returns: the full names of those that are written as the numbers they stand for.
  func dequantizing(_ linears: inout [PlannedLinear], for format: any CheckpointFormat, _ remarks: inout [String]) -> Set<String> {
    let kept = linears.indices.filter { linears[$0].keepsForm && !(format.storesBlocks && linears[$0].blocks != nil) }
    guard let first = kept.first else { return [] }
    let form = linears[first].blocks == nil ? linears[first].scheme : "ggml's blocks"
    for index in kept { linears[index].storedBits = linears[index].rows * linears[index].columns * linears[index].storageType.bitCount }
    let bytes = kept.reduce(0) { $0 + linears[$1].storedBits / 8 }
    remarks.append(
      "\(kept.count) weights that no pass changes come in \(form) and are written as the \(linears[first].storageType.rawValue) numbers "
        + "these stand for, \(ByteCount.text(bytes)): \(linears[first].name)\(kept.count > 1 ? ", …" : "")")
    return Set(kept.map { linears[$0].name })
  }

  /// - Throws: `MixedFormats` for linears that the format's runtimes compute as one, and that are to be in unlike formats.
  func checkFusion(
    _ linears: [PlannedLinear], _ description: ModelDescription, _ format: any CheckpointFormat, _ remarks: inout [String]
  ) throws {
    let groups = format.fusion.mixedGroups(of: description, in: linears)
    guard let first = groups.first else { return }
    guard recipe.output.mixedGroups == .allow else { throw MixedFormats(groups: groups, format: type(of: format).name) }
    remarks.append(
      "\(groups.count) groups of linears are in unlike formats, as output.mixed_groups allows: not every runtime will load them; the first is \(first)"
    )
  }

  /// What became of groups that the plan had in one format: the work of fallbacks.
  ///
  /// - Returns: one line for each.
  /// - Throws: `UnwantedFallback` in a strict run.
  func splitGroups(in sink: CheckpointSink, _ plan: Plan) async throws -> [String] {
    var description = plan.description
    description.blocks = await sink.descriptions
    let format = plan.format
    let groups = format.fusion.mixedGroups(of: description, in: await sink.modules)
    guard recipe.output.mixedGroups == .refuse else { return [] }
    if strict, let first = groups.first { throw UnwantedFallback(layer: first.block, reason: "\(first), although \(Fusion.rule)") }
    return groups.map { "\($0): fallbacks left them in unlike formats, although in \(type(of: format).name) \(Fusion.rule)" }
  }

  /// A line for every pattern that may match nothing, and does.
  func idlePatterns(of model: Model) throws -> [String] {
    let names = try Pipeline([]).plan(for: model).map(\.name) + model.carriedNames
    return recipe.passes.flatMap { pass in
      pass.selectors.flatMap { $0.idle(among: names) }.map {
        "\(type(of: pass).name): \"\($0)\" is to be ignored, and nothing here is called so"
      }
    }
  }
}

extension Compressor {
  /// Linears that no pass touches because errors in them grow along the sequence, by their last names; `nil` where there are none, or nothing
  /// is done to any layer.
  static func leftAlone(_ linears: [PlannedLinear]) -> String? {
    func isChanged(_ linear: PlannedLinear) -> Bool {
      linear.isRewritten || linear.weights != nil || linear.blocks != nil || linear.rank != nil || !linear.candidates.isEmpty
    }
    let left = linears.filter { $0.role == .sensitive && !isChanged($0) }
    guard !left.isEmpty, linears.contains(where: { $0.role == .layer && isChanged($0) }) else { return nil }
    let names = Set(left.map { String($0.name.split(separator: ".").last ?? "") }).sorted().joined(separator: ", ")
    return "\(left.count == 1 ? "a linear" : "\(left.count) linears") in which errors grow along the sequence "
      + "\(left.count == 1 ? "is left as it is" : "are left as they are"), unless a pattern names it: \(names)"
  }
}

extension Compressor {
  /// How many tokens for every input make a second moment that more of them would hardly change.
  private static let tokensPerInput = 2

  /// That there are too few calibration tokens for what is fitted to them, and how many would do; `nil` where there are enough.
  static func fewTokens(_ tokens: Int, for passes: [any Pass], _ linears: [PlannedLinear]) -> String? {
    let widths = passes.compactMap { pass in pass.fittedWidth(in: linears).map { (name: type(of: pass).name, width: $0) } }
    guard tokens > 0, let widest = widths.max(by: { $0.width < $1.width }), tokens < tokensPerInput * widest.width else { return nil }
    // A pass may stand in a recipe more than once.
    let names = widths.filter { tokens < tokensPerInput * $0.width }.reduce(into: [String]()) { names, pass in
      if !names.contains(pass.name) { names.append(pass.name) }
    }
    let compared = tokens < widest.width ? "fewer than inputs, so that damping alone decides some directions" : "hardly more than inputs"
    return "few calibration tokens: \(names.joined(separator: ", ")) \(names.count == 1 ? "fits" : "fit") linears of up to "
      + "\(widest.width) inputs to \(tokens) tokens, \(compared); \(tokensPerInput * widest.width) or more would do"
  }
}

extension Compressor {
  /// What is to be known of linears that are stored as two factors; `nil` where there are none.
  static func factored(_ names: [String]) -> String? {
    guard let first = names.first else { return nil }
    let linears = names.count == 1 ? "a linear is" : "\(names.count) linears are"
    return "\(linears) stored as two factors (\(first)), which only this program reads: "
      + "transformers passes over them with a warning and computes with random numbers. `compress convert --merge` makes whole matrices"
  }
}

extension ModelDescription {
  /// What is to be known of compressed experts in families that store them in stacks; `nil` where there is nothing.
  ///
  /// - Parameter isCompressed: whether a linear, by its full name, is.
  func separatedExperts(_ isCompressed: (String) -> Bool) -> String? {
    for block in blocks {
      guard let stacked = block.feedForward?.mixture?.stacked, !stacked.isReadSeparately,
        let first = block.routedExperts.first(where: { isCompressed(block.prefix + $0.rawValue) })
      else { continue }
      return "compressed experts are stored one by one (\(block.prefix)\(first)), as vLLM reads them; transformers looks for "
        + "\(block.prefix)\(stacked.readers) in this family and would leave its experts at random numbers, with a warning. "
        + "Format safetensors stores what is rounded in the stacks that both read"
    }
    return nil
  }

  /// The first of the blocks of every shape, by index: what works on these works on all.
  var unlikeBlocks: [Int] {
    var seen: [BlockProgram] = []
    return blocks.indices.filter { index in
      let program = blocks[index].program
      guard !seen.contains(program) else { return false }
      seen.append(program)
      return true
    }
  }
}
