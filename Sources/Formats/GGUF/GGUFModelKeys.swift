import CheckpointIO
import Models
import StrictJSON

/// The metadata that describe a model in an architecture of llama.cpp.
struct GGUFModelKeys {
  let rotation: GGUFRotation
  private let model: ModelDescription
  private let architecture: GGUFArchitecture
  private let config: ModelConfig
  private let attention: AttentionDescription
  private let feedForward: FeedForwardDescription
  /// Of layers without windows, where these have one of their own; else of all.
  private let rotary: RotaryDescription?

  /// - Throws: `FormatError.cannotStore` for models without attention, and rotations there is no spelling for.
  init(_ model: ModelDescription, _ architecture: GGUFArchitecture, _ config: ModelConfig) throws(FormatError) {
    func refuse(_ reason: String) -> FormatError { .cannotStore(module: "the model", format: GGUFFormat.name, reason: reason) }
    guard let block = model.blocks.first, let attention = block.attention, let feedForward = block.feedForward else {
      throw refuse("it has no layers of attention and a feed-forward network")
    }
    let rotating = model.blocks.compactMap(\.attention).filter { $0.rotary != nil }
    rotary = (rotating.first { $0.window == nil } ?? rotating.first)?.rotary
    if architecture.rotates {
      guard let rotary else { throw refuse("llama.cpp's \(architecture.name) rotates queries and keys") }
      rotation = try GGUFRotation(rotary, headSize: attention.headSize, in: architecture)
    } else {
      guard rotary == nil else { throw refuse("llama.cpp's \(architecture.name) rotates nothing") }
      rotation = GGUFRotation()
    }
    (self.model, self.architecture, self.config, self.attention, self.feedForward) = (model, architecture, config, attention, feedForward)
  }

  /// - Parameter name: what `general.name` says.
  func metadata(name: String) -> GGUFMetadata {
    var metadata = GGUFMetadata()
    metadata["general.architecture"] = .string(architecture.name)
    metadata["general.type"] = .string("model")
    metadata["general.name"] = .string(name)
    for (key, value) in sizes { metadata["\(architecture.name).\(key)"] = value }
    // Counted once the tensors are known; here for its place.
    metadata["general.file_type"] = .count(0)
    for (key, value) in own + windows + rotation.keys.map({ ("rope.\($0.name)", $0.value) }) {
      metadata["\(architecture.name).\(key)"] = value
    }
    metadata["general.quantization_version"] = .count(2)
    return metadata
  }

  /// What all architectures have.
  private var sizes: [(String, GGUFValue)] {
    [
      ("block_count", .count(model.blocks.count)), ("context_length", .count(model.maximumPositions ?? 2048)),
      ("embedding_length", .count(model.hiddenSize)), ("feed_forward_length", .count(networkSize)),
      ("attention.head_count", .count(attention.heads)), ("attention.head_count_kv", .count(attention.keyValueHeads)),
    ] + (rotary.map { [("rope.freq_base", .float32(Float($0.base)))] } ?? []) + [
      (architecture.epsilon.rawValue, .float32(model.normEpsilon)), ("attention.key_length", .count(attention.headSize)),
      ("attention.value_length", .count(attention.headSize)),
    ]
  }

  /// Where experts have a size of their own, what dense layers would have: files say it although no layer is dense.
  private var networkSize: Int {
    guard architecture.keys.contains(.expertSize) else { return feedForward.size }
    let dense = model.blocks.lazy.compactMap(\.feedForward).first { $0.mixture == nil }
    return dense?.size ?? config.json["intermediate_size"]?.integer ?? feedForward.size
  }

  private var own: [(String, GGUFValue)] {
    var found: [(String, GGUFValue)] = []
    func add(_ key: GGUFKey, _ name: String, _ value: GGUFValue?) {
      if architecture.keys.contains(key), let value { found.append((name, value)) }
    }
    let mixture = model.blocks.lazy.compactMap { $0.feedForward?.mixture }.first
    let experts = model.blocks.lazy.compactMap(\.feedForward).first { $0.mixture != nil }
    add(.vocabularySize, "vocab_size", .count(model.vocabularySize))
    add(.rotatedSize, "rope.dimension_count", (rotary?.rotatedSize(headSize: attention.headSize)).map { .count($0) })
    add(.experts, "expert_count", (mixture?.experts).map { .count($0) })
    add(.experts, "expert_used_count", (mixture?.expertsPerToken).map { .count($0) })
    add(.expertSize, "expert_feed_forward_length", (experts?.size).map { .count($0) })
    add(.sharedExpertSize, "expert_shared_feed_forward_length", (mixture?.shared?.size).map { .count($0) })
    add(.attentionCap, "attn_logit_softcapping", attention.scoreCap.map { .float32($0) })
    add(.logitCap, "final_logit_softcapping", model.logitCap.map { .float32($0) })
    add(.embeddingScale, "embedding_scale", .float32(model.embeddingScale))
    add(.residualScale, "residual_scale", (model.blocks.first?.residualScale).map { .float32($0) })
    add(.attentionScale, "attention.scale", attention.scale.map { .float32($0) })
    add(.logitScale, "logit_scale", .float32(model.logitScale))
    add(.logitDivisor, "logit_scale", .float32(Self.reciprocal(model.logitScale)))
    add(.parallelResidual, "use_parallel_residual", (model.blocks.first?.isParallel).map { .bool($0) })
    add(.alibi, "attention.max_alibi_bias", attention.slopes.map { _ in .float32(8) })
    add(.noWindow, "attention.sliding_window", .count(0))
    add(.temperature, "attention.temperature_scale", (attention.queryScale?.strength).map { .float32($0) })
    let local = model.blocks.lazy.compactMap(\.attention).first { $0.window != nil }?.rotary
    add(.localBase, "rope.freq_base_swa", local.map { .float32(Float($0.base)) })
    return found
  }

  /// How wide windows are, and which layers have one where the architecture takes others for granted.
  private var windows: [(String, GGUFValue)] {
    let windows = model.blocks.map { $0.attention?.window }
    guard let rule = architecture.windows, let width = windows.lazy.compactMap({ $0 }).first else { return [] }
    let slides = windows.map { $0 != nil }
    let isUsual = slides.indices.allSatisfy { slides[$0] == rule.slides($0) }
    return [("attention.sliding_window", .count(width))]
      + (isUsual ? [] : [("attention.sliding_window_pattern", .array(.bool, slides.map { .bool($0) }))])
  }

  /// The number whose reciprocal in single precision is another.
  private static func reciprocal(_ scale: Float) -> Float {
    let near = Float(1 / Double(scale))
    return [near, near.nextUp, near.nextDown].first { Float(1 / Double($0)) == scale } ?? near
  }
}
