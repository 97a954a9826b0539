import Passes
import StrictJSON

extension LLMCompressor {
  /// One `ClassName: { arguments }`.
  struct Modifier {
    /// What becomes of a class.
    enum Kind: Equatable {
      case rounding, gptq, awq, smoothQuant, spinQuant, sparseGPT, wanda
      /// Nothing here does it.
      case none(String)
    }

    let name: String
    let kind: Kind
    let arguments: Arguments

    static let kinds: [String: Kind] = [
      "QuantizationModifier": .rounding, "GPTQModifier": .gptq, "AWQModifier": .awq, "SmoothQuantModifier": .smoothQuant,
      "SpinQuantModifier": .spinQuant,
      "AutoRoundModifier": .none("roundings are not learned by any pass here yet"),
      "QuIPModifier": .none("no pass here rotates single linears yet"),
      "SparseGPTModifier": .sparseGPT, "WandaPruningModifier": .wanda,
      "MagnitudePruningModifier": .none("it prunes little by little while a model is trained; no pass here does"),
      "ConstantPruningModifier": .none("it keeps zeros while a model is trained; no pass here trains"),
      "REAPPruningModifier": .none("no pass here removes experts yet"),
    ]

    /// What every modifier has; none of it changes a result.
    static let lifecycle = ["index", "group", "start", "end", "update", "requires_calibration_data"]
    static let quantization = [
      "config_groups", "scheme", "targets", "ignore", "kv_cache_scheme", "weight_observer", "input_observer", "output_observer", "observer",
      "bypass_divisibility_checks",
    ]
    static let pruning = [
      "sparsity", "sparsity_profile", "mask_structure", "owl_m", "owl_lmbda", "targets", "ignore", "sequential_update",
      "sequential_targets",
    ]
    /// How the reference goes about its work on its machine.
    static let hints = ["offload_hessians", "batched_quantization", "offload_device", "sequential_update", "sequential_targets"]

    private var known: [String] {
      switch kind {
      case .rounding: Self.quantization
      case .gptq: Self.quantization + ["block_size", "dampening_frac", "actorder", "offload_hessians", "batched_quantization"]
      // With a scheme, as it was written before AWQ and rounding were parted.
      case .awq: Self.quantization + ["mappings", "offload_device", "duo_scaling", "n_grid"]
      case .smoothQuant: ["smoothing_strength", "mappings", "ignore", "num_calibration_steps", "calibration_function", "algorithm"]
      case .spinQuant:
        ["rotations", "transform_type", "randomize", "learnable", "precision", "transform_block_size", "transform_config"]
      case .sparseGPT: Self.pruning + ["block_size", "dampening_frac", "preserve_sparsity_mask", "offload_hessians"]
      case .wanda: Self.pruning
      case .none: []
      }
    }

    init(_ entry: RecipeNode.Member) throws(RecipeError) {
      guard let kind = Self.kinds[entry.key] else {
        throw RecipeError(
          file: entry.mark.file, line: entry.mark.line, column: entry.mark.column,
          problem: .invalid(entry.key, reason: "this modifier of llm-compressor is not known here"),
          suggestion: NearestName.of(entry.key, among: Self.kinds.keys))
      }
      if case .none(let reason) = kind { throw LLMCompressor.mistake(entry, reason) }
      if entry.node.json.isNull {
        throw LLMCompressor.mistake(entry, "llm-compressor fails on a modifier with nothing after it; write `\(entry.key): {}`")
      }
      (name, self.kind) = (entry.key, kind)
      arguments = try Arguments(path: entry.key, mark: entry.mark, node: entry.node)
      try arguments.check(known: known + Self.lifecycle)
    }

    /// Says which of the arguments given are idle here.
    func remarkHints(_ remarks: inout Remarks) {
      let idle = arguments.all.filter { (Self.lifecycle + Self.hints).contains($0.key) && !$0.isNull }.map(\.key)
      guard !idle.isEmpty else { return }
      remarks.add("\(name): \(idle.joined(separator: ", ")) \(idle.count == 1 ? "has" : "have") no meaning here", at: arguments.mark)
    }
  }
}
