/// What every option of the passes of this package does, in a sentence. Beside it stand the values it may have and its default, which the pass
/// itself tells; a test holds that every option has a sentence, and that none is of an option that is not there.
enum OptionSentences {
  /// By pass, and there by the path of the option.
  static let all: [String: [String: String]] = transforms.merging(quantizers) { $1 }.merging(pruning) { $1 }.merging(others) { $1 }

  private static let layers = "Linears to work on, by patterns; the embedding, the head and routers only where a pattern names them."
  private static let scaled = "Linears that may be scaled; a scale moves only if all that read the scaled input are among them."
  private static let damping = "Added to the diagonal of the inputs' second moment, as a fraction of its mean."
  private static let drift =
    "How much of the drift that earlier layers have caused is made up for, 0 to 1; costs a second stream of activations."

  private static let transforms: [String: [String: String]] = [
    "rotate": [
      "hidden": "The matrix that turns the residual stream.",
      "values": "The matrices that turn every key-value head between the value and the output projection.",
    ],
    "smoothquant": [
      "strength": "How much of the range of inputs moves into the weights; auto measures it for every scale.",
      "producers": "What divides the scaled input: norms alone, or also the linears before the output and the down-projection.",
      "sequences": "Calibration sequences that auto measures losses on.", "tokens": "Tokens of them that auto measures losses on.",
      "layers": scaled,
    ],
    "awq": [
      "grid": "Steps of the scales' power between 0 and 1 that are tried.",
      "duo": "Whether scales also divide by the size of the weights; both tries it with and without.",
      "clip": "Whether weights are limited, group by group, where the rounded layer then loses less.",
      "sequences": "Calibration sequences that magnitudes are averaged over.", "tokens": "Tokens of them that losses are measured on.",
      "layers": scaled,
    ],
  ]

  private static let numbers: [String: String] = [
    "numbers": "The number format of weights.", "bits": "Bits of an integer code: 2, 3, 4, 5, 6 or 8; the other formats have their own.",
    "group_size": "Columns of a row that share a scale; auto takes the largest of 128, 64 and 32 that divides the layer's columns.",
    "zero_point": "What zero points of integers are: a code, or a bias added after scaling.",
    "activations": "What runtimes quantize the inputs to, which every figure simulates.", "layers": layers,
    "overrides": "Other numbers, groups, symmetry or inputs for some of the linears; the last that selects a linear wins.",
  ]

  private static let quantizers: [String: [String: String]] = [
    "rtn": numbers.merging([
      "scheme": scheme, "symmetric": "Whether integers do without zero points.", "scales": scales,
      "importance": "Whether the scale search weighs inputs by their mean square over the calibration data.",
    ]) { $1 },
    "gptq": numbers.merging([
      "hessian":
        "What a layer's loss is made of: its inputs, or also what its outputs are worth to the predictions (one way through the model and back).",
      "output_damping": "Added to the diagonal of the outputs' second moment, as a fraction of its mean.",
      "scheme": scheme, "symmetric": "Whether integers do without zero points.", "scales": scales,
      "order": "The order of columns: most active first, groups by their most active, or left to right.",
      "static_groups": "Whether scales are fixed from the original weights, whatever the order.",
      "refit": "Whether scales move to the least squares of the whole loss once all codes are known.",
      "refine": "Rounds in which every code moves to where the whole loss is smallest, and scales follow.",
      "drift_correction": drift, "damping": damping,
      "block_size": "Columns between two updates of all that follow; it changes the speed, not the codes.",
    ]) { $1 },
    "hqq": numbers.merging([
      "numbers": "The number format of weights; only integers have the zero points that are fitted.",
      "norm": "Exponent of the norm of the error, between 0 and 1; the smaller, the less outliers count.",
      "beta": "Weight of the quadratic coupling at the first step.", "growth": "What that weight is multiplied by at every step.",
      "iterations": "Steps at most.",
    ]) { $1 },
    "lqer": ["rank": "Rank of the branch beside every quantized weight.", "layers": layers],
    "allocate": [
      "target": "The size to stay within.", "candidates": "The formats to choose from, two at least.",
      "quantizer": "The pass that quantizes with what was chosen.", "scales": scales,
      "order": "The order in which gptq takes the columns.", "refine": "Rounds in which gptq moves codes that have better neighbours.",
      "drift_correction": drift,
      "sensitivity": "What a choice costs: the divergence of predictions with one group quantized, or the group's own loss.",
      "probes": "Calibration sequences that divergence is measured on, unless the recipe has probes of its own.", "layers": layers,
    ],
    "ggml": [
      "type": "A block type for all weights, or a mixture.", "pure": "Whether the mixture's main type is everybody's, the head's included.",
      "importance": "Whether inputs are weighed by their mean square over the calibration data (an importance matrix).",
      "layers": "Linears to work on, by patterns; here both ends are among them unless others are named.",
    ],
  ]

  private static let scheme =
    "In place of numbers, bits, group_size, symmetric and activations: one name for all of them; what is said beside it may refine it only."
  private static let scales = "How scales are chosen: the range as it is, a search over shrunk ranges, or that search over both signs."

  private static let sparsity: [String: String] = [
    "sparsity": "The share of weights that become zero; a pattern prescribes it.", "pattern": "Which weights compete for zeros.",
    "allocation": "The same share for every block, or by the outliers of its inputs (OWL).",
    "owl_threshold": "How many times the mean an input-weighted weight must be to count as an outlier.",
    "owl_limit": "How far a block's share may be from the mean.",
    "refit": "Whether the weights kept move to their least squares over the calibration data.", "damping": damping, "layers": layers,
  ]

  private static let pruning: [String: [String: String]] = [
    "magnitude": sparsity.merging(["comparison": comparison]) { $1 }, "wanda": sparsity.merging(["comparison": comparison]) { $1 },
    "sparsegpt": sparsity.merging([
      "order": "The order in which columns are taken.", "drift_correction": drift,
      "block_size": "Columns among which unstructured zeros are chosen at once.",
      "quantize": "The numbers that what is kept becomes in the same sweep.",
      "quantize.numbers": "Their number format; none leaves them as they are.", "quantize.bits": "Bits of an integer code.",
      "quantize.group_size": "Columns of a row that share a scale.", "quantize.symmetric": "Whether integers do without zero points.",
      "quantize.scales": scales,
    ]) { $1 },
    "prune_width": [
      "ratio": "The share of the blocks' weights that goes along the axis; not used where sizes are given.",
      "axis": "What there will be fewer of.", "multiple_of": "What sizes that follow from the ratio are rounded to.",
      "feed_forward": "Feed-forward channels to keep.", "heads": "Query heads to keep.", "key_value_heads": "Key-value heads to keep.",
      "hidden": "Hidden dimensions to keep.", "importance": "What decides which units go.",
      "compensation": "How what stays makes up for what went.", "damping": damping,
    ],
    "prune_depth": [
      "ratio": "The share of the blocks' weights that goes, in whole units.", "count": "Units that go, whatever they weigh.",
      "units": "What can go: whole blocks, or layers inside them.", "criterion": "What decides which units go.",
      "keep_first": "Blocks at the beginning that are not touched.", "keep_last": "Blocks at the end that are not touched.",
      "probes": "Calibration sequences that the search measures on, unless the recipe has probes of its own.",
      "repair": "Which layers are fitted to the original's residual stream where something went.", "damping": damping,
    ],
    "prune_experts": [
      "ratio": "The share of every mixture's experts that goes; not used where their number is given.", "experts": "Experts to keep.",
      "criterion": "What decides which experts go.", "sequences": "Calibration sequences that are looked at, at most.",
    ],
    "slicegpt": [
      "ratio": "The share of the blocks' weights that goes; not used where a size is given.", "hidden": "Hidden dimensions to keep.",
      "multiple_of": "What a size that follows from the ratio is rounded to.", "bases": "One basis for all norms, or one for each block.",
    ],
  ]

  private static let comparison = "The weights that compete for zeros; a pattern compares inside its groups."

  private static let others: [String: [String: String]] = [
    "kv_cache": [
      "scheme": "The numbers that keys and values are kept as.", "bits": "Bits of an integer code, 1 to 8.",
      "key_bits": "The same for keys alone.", "value_bits": "The same for values alone.", "group_size": "Numbers that share a scale.",
      "residual": "The newest tokens, which stay as they are.", "eviction": "Which tokens are dropped.",
      "eviction.method": "What decides which tokens are dropped.", "eviction.budget": "Tokens kept for every key-value head.",
      "eviction.sinks": "The first tokens, which are kept in any case; by default what the method needs.",
      "eviction.recent": "The newest tokens, which are kept in any case; by default what the method needs.",
      "eviction.positions": "The positions that kept tokens are seen at.",
    ],
    "low_rank": [
      "ratio": "The share of the selected linears' bytes that is saved.", "rank": "The rank of every selected linear, in place of ratio.",
      "method": "The metric of the error: none, the inputs' magnitudes, or their whole second moment.",
      "allocation": "The same share for every linear, or ranks where they lose least.", "rank_multiple": "What ranks are multiples of.",
      "share": "Whether linears that read one input have one first factor.",
      "sequential": "Whether inputs are those that the layers factored before produce.",
      "drift_correction": "How much of the drift that earlier layers have caused is made up for, 0 to 1; sequential and whitened only.",
      "damping": damping, "probes": "Calibration sequences that divergence is measured on, unless the recipe has probes of its own.",
      "merge": "Whether the factors are multiplied out again, for runtimes that know no factors; saves no bytes.", "layers": layers,
    ],
    "kv_latents": [
      "keys": "The share of the keys' width that their latents have; 1 leaves keys alone.",
      "values": "The share of the values' width that their latents have; 1 leaves values alone.",
      "heads_per_group": "Heads with latents in common, at most.", "rank_multiple": "What ranks are multiples of.",
      "weighted": "Whether errors count as the queries and the output projection will see them.",
    ],
    "gqa": [
      "key_value_heads": "Key-value heads that are left; half of them by default.", "merge": "How heads become one.",
      "compensate": "Whether the output projection is refitted to the original attention's output.",
    ],
    "tune": training.merging([
      "moves": "What moves.", "loss": "The difference to the original block that is made small.",
      "rate": "How fast codes move, in steps of the grid.",
      "scale_rate": "How fast scales move, as shares of themselves, and zero points, in steps of the grid.",
      "norm_rate": "How fast norms and biases move.",
      "reach": "How far from their codes latents begin, towards the original weights, in steps of the grid.",
    ]) { $1 },
    "distill": training.merging([
      "moves": "What moves.", "loss": "The difference to the original's predictions that is made small.",
      "beta": "How much the original's own distribution counts in the mixture of jsd.",
      "temperature": "What logits are divided by before they are compared.",
      "share": "The divergence's share of the loss; the rest is cross-entropy.", "rate": "How fast weights, norms and biases move.",
      "scale_rate": "How fast scales move, as shares of themselves.", "code_rate": "How fast latents move, in steps of the grid.",
      "teacher": "A checkpoint to learn from, of the same vocabulary; the model that came in where none is named.",
      "rank": "Of what lora adds to the weights.",
      "reach": "How far from their codes latents begin, towards the teacher's weights, in steps of the grid.",
      "state_share": "What the relative error of hidden states counts beside the loss on predictions; at 0 none are compared.",
      "states": "Behind how many blocks states are compared: spread evenly, the last among them.",
      "clip": "The largest norm of a gradient.", "validate_every": "Steps between two looks at the sequences kept out.",
    ]) { $1 },
  ]

  private static let training: [String: String] = [
    "epochs": "Passes over the calibration sequences.", "batch": "Sequences in a step.", "schedule": "How rates change over the steps.",
    "kept_out": "The share of the calibration sequences that no gradient is taken of, and that decide what is kept.", "layers": layers,
  ]
}
