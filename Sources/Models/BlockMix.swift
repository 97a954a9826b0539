public import Tensors

/// The mixtures of block types that llama.cpp's `llama-quantize` knows by name: one type for most weights, better ones where errors cost most.
public enum BlockMix: String, Sendable, Codable, CaseIterable {
  case f32, f16, bf16
  case q4_0, q4_1, q5_0, q5_1, q8_0
  case q2_k, q3_k_s, q3_k_m, q3_k_l, q4_k_s, q4_k_m, q5_k_s, q5_k_m, q6_k
  case iq4_nl, iq4_xs

  /// What the choice depends on besides the tensor itself.
  public struct Model: Sendable, Equatable {
    public var layers: Int
    /// Query heads that share a key-value head.
    public var headsPerKeyValueHead: Int
    /// Whether the head is the embedding.
    public var isTied: Bool
    public var hasImportance: Bool

    public init(_ description: ModelDescription, hasImportance: Bool) {
      layers = description.blocks.count
      headsPerKeyValueHead = description.blocks.lazy.compactMap(\.heads).first?.group ?? 1
      isTied = description.isTied
      self.hasImportance = hasImportance
    }
  }

  /// A weight by what it does.
  public enum Role: Sendable, Hashable {
    case embedding, head
    /// In a decoder block.
    case value(layer: Int), output(layer: Int), down(layer: Int), other
  }

  /// What most weights become.
  public var base: BlockType {
    switch self {
    case .f32: .f32
    case .f16: .f16
    case .bf16: .bf16
    case .q4_0: .q4_0
    case .q4_1: .q4_1
    case .q5_0: .q5_0
    case .q5_1: .q5_1
    case .q8_0: .q8_0
    case .q2_k: .q2_k
    case .q3_k_s, .q3_k_m, .q3_k_l: .q3_k
    case .q4_k_s, .q4_k_m: .q4_k
    case .q5_k_s, .q5_k_m: .q5_k
    case .q6_k: .q6_k
    case .iq4_nl: .iq4_nl
    case .iq4_xs: .iq4_xs
    }
  }

  /// `general.file_type` of a GGUF file.
  public var fileType: Int {
    switch self {
    case .f32: 0
    case .f16: 1
    case .q4_0: 2
    case .q4_1: 3
    case .q8_0: 7
    case .q5_0: 8
    case .q5_1: 9
    case .q2_k: 10
    case .q3_k_s: 11
    case .q3_k_m: 12
    case .q3_k_l: 13
    case .q4_k_s: 14
    case .q4_k_m: 15
    case .q5_k_s: 16
    case .q5_k_m: 17
    case .q6_k: 18
    case .iq4_nl: 25
    case .iq4_xs: 30
    case .bf16: 32
    }
  }

  /// The type of a weight whose rows have `columns` elements, before what `fitting` does to it.
  public func type(of role: Role, columns: Int, in model: Model) -> BlockType {
    guard base.dtype == nil else { return base }
    switch role {
    case .embedding where !model.isTied: return base
    case .embedding, .head:
      // The head decides every token: nothing below six bits.
      if columns % 256 != 0 { return .q8_0 }
      return base == .q8_0 ? .q8_0 : .q6_k
    case .value(let layer): return value(layer, model)
    case .output:
      switch self {
      case .q2_k: return .q3_k
      case .q3_k_m: return .q4_k
      case .q3_k_l: return .q5_k
      default: return base
      }
    case .down(let layer): return down(layer, model)
    case .other: return base
    }
  }

  private func value(_ layer: Int, _ model: Model) -> BlockType {
    var type = base
    switch self {
    case .q2_k: type = model.headsPerKeyValueHead >= 4 ? .q4_k : .q3_k
    case .q3_k_m: type = layer < 2 ? .q5_k : .q4_k
    case .q3_k_l: type = .q5_k
    case .q4_k_s where layer < 4: type = .q5_k
    case .q4_k_m, .q5_k_m: if Self.deservesMore(layer, of: model.layers) { type = .q6_k }
    case .iq4_nl, .iq4_xs: if model.headsPerKeyValueHead >= 4 { type = .q5_k }
    default: break
    }
    // In Llama 70B eight heads share a value head: it costs next to nothing to store it well.
    if model.layers == 80, model.headsPerKeyValueHead > 1, type == .q3_k || type == .q4_k { type = .q5_k }
    return type
  }

  private func down(_ layer: Int, _ model: Model) -> BlockType {
    let isEarly = layer < model.layers / 8
    switch self {
    case .q2_k: return .q3_k
    case .q3_k_m: return layer < model.layers / 16 ? .q5_k : .q4_k
    case .q3_k_l: return .q5_k
    case .q4_k_s where isEarly: return .q5_k
    case .q4_k_m, .q5_k_m: return Self.deservesMore(layer, of: model.layers) ? .q6_k : base
    case .iq4_nl, .iq4_xs: return isEarly && !model.hasImportance ? .q5_k : base
    case .q4_0 where model.hasImportance && isEarly: return .q4_1
    case .q5_0 where model.hasImportance && isEarly: return .q5_1
    default: return base
    }
  }

  /// The first eighth of the layers, the last one, and every third between.
  static func deservesMore(_ layer: Int, of layers: Int) -> Bool {
    layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
  }
}

extension BlockType {
  /// This type where its blocks divide a row, else the one llama.cpp falls back to.
  public func fitting(columns: Int) -> BlockType {
    if columns % blockLength == 0 { return self }
    let other: BlockType =
      switch self {
      case .q2_k, .q3_k: .q4_0
      case .q4_k: .q5_0
      case .q5_k: .q5_1
      case .q6_k: .q8_0
      case .iq4_xs: .iq4_nl
      default: .f16
      }
    return columns % other.blockLength == 0 ? other : .f16
  }
}

extension BlockMix.Role {
  /// The role of a linear by its full name: what the description of its block says that it does.
  public init(of name: String, in description: ModelDescription) {
    self = .other
    if name == description.embedding { self = .embedding }
    if name == description.head { self = .head }
    guard let layer = description.blocks.firstIndex(where: { name.hasPrefix($0.prefix) }) else { return }
    let block = description.blocks[layer]
    let linear = LinearName(rawValue: String(name.dropFirst(block.prefix.count)))
    if block.makesValues(linear) { self = .value(layer: layer) }
    if block.endsAttention(linear) { self = .output(layer: layer) }
    if block.feedForward?.isDown(linear) == true { self = .down(layer: layer) }
  }
}

extension BlockDescription {
  /// Whether a linear makes values and nothing else, or what is both key and value.
  fileprivate func makesValues(_ linear: LinearName) -> Bool {
    switch attention?.projections {
    case .separate(_, _, let value), .keysAreValues(_, let value): value == linear
    default: false
    }
  }

  /// Whether a linear writes what attention of some kind has made to the residual stream.
  fileprivate func endsAttention(_ linear: LinearName) -> Bool {
    mixers.contains { mixer in
      guard mixer is AttentionDescription || mixer is LatentAttention else { return false }
      return mixer.linearShapes(hiddenSize: hiddenSize)[linear] != nil && residualWriters.contains(linear)
    }
  }
}

extension FeedForwardDescription {
  /// Whether a linear is the last of one of the networks.
  fileprivate func isDown(_ linear: LinearName) -> Bool {
    guard let mixture else { return linear == linears.down }
    if let shared = mixture.shared, (shared.linears ?? linears).prefixed(shared.prefix).down == linear { return true }
    // Taken apart instead of compared with the names of all experts, of which there may be hundreds.
    let (name, down) = (linear.rawValue, linears.down.rawValue)
    guard name.hasSuffix(down) else { return false }
    let place = name.dropLast(down.count)
    guard place.hasPrefix(mixture.prefix), place.hasSuffix("."), let expert = Int(place.dropFirst(mixture.prefix.count).dropLast())
    else { return false }
    return (0..<mixture.experts).contains(expert)
  }
}
