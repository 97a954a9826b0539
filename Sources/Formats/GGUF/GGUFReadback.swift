import CheckpointIO
import Models
import StrictJSON
import Tensors

/// Holds a model against what a GGUF file's metadata will be read as, so that nothing is written that llama.cpp would compute differently.
struct GGUFReadback {
  let architecture: GGUFArchitecture
  let model: ModelDescription
  let metadata: GGUFMetadata
  /// What the rotary frequencies are divided by, where the file will say.
  let rotaryFactors: GGUFRotary.Factors
  /// What describes the metadata once they are read.
  let architectures: ArchitectureCatalog

  /// - Throws: `FormatError.cannotStore`, naming what of the description the file has no word for.
  func check() throws(FormatError) {
    func refuse(_ reason: String) -> FormatError { .cannotStore(module: "the model", format: GGUFFormat.name, reason: reason) }
    if let obstacle { throw refuse(obstacle) }
    var shapes: [String: [Int]] = [:]
    for (name, shape) in model.tensorShapesByExpert {
      guard let place = architecture.names.place(of: name) else {
        throw refuse("GGUF has no name for the tensor \(name) in llama.cpp's layout of \(architecture.name)")
      }
      shapes[place.name] = shape
    }
    let found: ModelDescription
    do {
      let outline = GGUFKeys.Outline(shape: { [shapes] in shapes[$0] }, tensorCount: shapes.count, rotaryFactors: rotaryFactors)
      found = try architectures.describe(try GGUFKeys(metadata, path: "its metadata", outline).config())
    } catch { throw refuse("what would be written reads back wrongly: \(error)") }
    let expected = model.asComputed(like: found)
    guard let difference = FieldDifference(expected, found) else { return }
    throw refuse(reason(difference))
  }

  private func reason(_ difference: FieldDifference) -> String {
    let layout = "llama.cpp's layout of \(architecture.name)"
    if difference.path.hasSuffix("attention.window"), architecture.windows == nil {
      return
        "\(layout) has no sliding window, \(difference.path) is \(difference.expected): beyond as many tokens it would attend to all of "
        + "them and compute another model; to store it for shorter sequences, set sliding_window to null and max_position_embeddings to "
        + "\(difference.expected) in config.json"
    }
    return "\(layout) has no word for \(difference.path) = \(difference.expected); it would be taken as \(difference.found)"
  }

  /// What llama.cpp's loader or its graph of the architecture does not take, although keys or tensors could say it.
  private var obstacle: String? {
    let name = "llama.cpp's \(architecture.name)"
    switch architecture.head {
    case .required where model.isTied: return "\(name) has a head of its own, and the model's head is the embedding"
    case .absent where !model.isTied: return "\(name) has no head besides the embedding, \(model.head ?? "the model's") is one"
    default: break
    }
    // Its loader looks for norms of queries and keys in larger models, whether they are there or not.
    if architecture.name == "command-r", model.blocks.count >= 64 { return "\(name) of 64 layers and more normalizes queries and keys" }
    return model.blocks.lazy.compactMap { obstacle(in: $0, name) }.first
  }

  private func obstacle(in block: BlockDescription, _ name: String) -> String? {
    guard let attention = block.attention, let feedForward = block.feedForward else {
      return "\(name) has attention and a feed-forward network in every layer"
    }
    let place = block.prefix + attention.module
    if !architecture.headsAreFree, attention.heads * attention.headSize != block.hiddenSize {
      return "\(name) has heads whose sizes add up to the hidden size, \(block.hiddenSize); \(place) has \(attention.heads) of "
        + "\(attention.headSize)"
    }
    if !architecture.groupsQueries, attention.group != 1 {
      return "\(name) has a key-value head for every query head, \(place) has \(attention.keyValueHeads) for \(attention.heads)"
    }
    if attention.hasOutputBias, !architecture.hasOutputBias {
      return "\(name) has no bias on attention's output, \(block.prefix)\(attention.output) has one"
    }
    if feedForward.hasBias, !architecture.hasNetworkBias {
      return "\(name) has no biases in its feed-forward layers, \(block.prefix)\(feedForward.networks.first?.down ?? "mlp") has one"
    }
    if architecture.requiresBias, !(attention.hasOutputBias && attention.hasProjectionBias && feedForward.hasBias) {
      return "\(name) has biases on all its linears, \(block.prefix.dropLast()) has not"
    }
    if rotaryFactors.whole != nil, !architecture.readsRotaryFactors {
      return "\(name) reads no factors of rotary frequencies; rope_scaling needs them"
    }
    return nil
  }
}

extension ModelDescription {
  /// The same model, with what makes no difference to any sequence it was made for said as `other` says it.
  fileprivate func asComputed(like other: ModelDescription) -> ModelDescription {
    var result = self
    // llama.cpp needs a length where the configuration may have none.
    if maximumPositions == nil { result.maximumPositions = other.maximumPositions }
    let positions = result.maximumPositions ?? .max
    for (index, block) in blocks.enumerated() {
      guard let own = block.attention else { continue }
      guard other.blocks.indices.contains(index), let theirs = other.blocks[index].attention else { continue }
      // Beyond all sequences a window is none.
      if (own.window ?? .max) >= positions, (theirs.window ?? .max) >= positions { result.blocks[index].attention?.window = theirs.window }
      guard let found = theirs.rotary,
        let rotary = own.rotary, own.headSize == theirs.headSize,
        rotary.turnsAlike(found, headSize: own.headSize, positions: positions)
      else { continue }
      result.blocks[index].attention?.rotary = found
    }
    return result
  }
}

extension RotaryDescription {
  /// Whether both turn every pair alike, in short sequences and in the longest.
  fileprivate func turnsAlike(_ other: RotaryDescription, headSize: Int, positions: Int) -> Bool {
    guard rotatedSize(headSize: headSize) == other.rotatedSize(headSize: headSize), isInterleaved == other.isInterleaved,
      abs(attentionFactor - other.attentionFactor) <= 1e-6 * abs(attentionFactor)
    else { return false }
    return [0, min(positions, 1 << 24)].allSatisfy { length in
      zip(inverseFrequencies(headSize: headSize, length: length), other.inverseFrequencies(headSize: headSize, length: length)).allSatisfy {
        abs($0 - $1) <= 1e-5 * abs($0)
      }
    }
  }
}
