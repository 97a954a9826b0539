import CheckpointIO
import Models
import StrictJSON
import Tensors

/// Holds a model against what a GGUF file's metadata will be read as, so that nothing is written that llama.cpp would compute differently.
struct GGUFReadback {
  let architecture: String
  let model: ModelDescription
  let metadata: GGUFMetadata
  /// What the rotary frequencies are divided by, where the file will say.
  let rotaryFactors: [Float]?
  /// What describes the metadata once they are read.
  let architectures: ArchitectureCatalog

  /// - Throws: `FormatError.cannotStore`, naming what of the description the file has no word for.
  func check() throws(FormatError) {
    func refuse(_ reason: String) -> FormatError { .cannotStore(module: "the model", format: GGUFFormat.name, reason: reason) }
    if let obstacle { throw refuse(obstacle) }
    var shapes: [String: [Int]] = [:]
    for (name, shape) in model.tensorShapes {
      guard let own = GGUFNames.gguf(of: name) else { throw refuse("GGUF has no name for the tensor \(name)") }
      shapes[own] = shape
    }
    let found: ModelDescription
    do {
      let outline = GGUFKeys.Outline(
        shape: { [shapes] in shapes[$0] }, tensorCount: shapes.count,
        rotaryFactors: rotaryFactors.map { Tensor($0, shape: [$0.count], dtype: .float32) })
      found = try architectures.describe(try GGUFKeys(metadata, path: "its metadata").config(outline))
    } catch { throw refuse("what would be written reads back wrongly: \(error)") }
    let expected = model.asComputed(like: found)
    guard let difference = FieldDifference(expected, found) else { return }
    throw refuse(reason(difference))
  }

  private func reason(_ difference: FieldDifference) -> String {
    let layout = "llama.cpp's layout of \(architecture)"
    if difference.path.hasSuffix("attention.window") {
      return
        "\(layout) has no sliding window, \(difference.path) is \(difference.expected): beyond as many tokens it would attend to all of "
        + "them and compute another model; to store it for shorter sequences, set sliding_window to null and max_position_embeddings to "
        + "\(difference.expected) in config.json"
    }
    return "\(layout) has no word for \(difference.path) = \(difference.expected); it would be taken as \(difference.found)"
  }

  /// What llama.cpp's loader or its graph of the architecture does not take, although keys or tensors could say it.
  private var obstacle: String? {
    for block in model.blocks {
      guard let attention = block.attention, let feedForward = block.feedForward else {
        return "llama.cpp's \(architecture) has attention and a feed-forward network in every layer"
      }
      let place = block.prefix + attention.module
      if architecture == "qwen2", attention.heads * attention.headSize != block.hiddenSize {
        return
          "llama.cpp's qwen2 has heads whose sizes add up to the hidden size, \(block.hiddenSize); \(place) has \(attention.heads) of "
          + "\(attention.headSize)"
      }
      guard architecture != "llama" else { continue }
      if attention.hasOutputBias { return "llama.cpp's \(architecture) has no bias on attention's output, \(place).o_proj has one" }
      if feedForward.hasBias {
        return "llama.cpp's \(architecture) has no biases in its feed-forward layers, \(block.prefix)mlp has them"
      }
      if rotaryFactors != nil { return "llama.cpp's \(architecture) reads no factors of rotary frequencies; rope_scaling needs them" }
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
      if let window = own.window, window >= positions { result.blocks[index].attention?.window = nil }
      guard other.blocks.indices.contains(index), let theirs = other.blocks[index].attention, let found = theirs.rotary,
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
    guard rotatedSize(headSize: headSize) == other.rotatedSize(headSize: headSize), attentionFactor == other.attentionFactor else {
      return false
    }
    return [0, min(positions, 1 << 24)].allSatisfy { length in
      zip(inverseFrequencies(headSize: headSize, length: length), other.inverseFrequencies(headSize: headSize, length: length)).allSatisfy {
        abs($0 - $1) <= 1e-5 * abs($0)
      }
    }
  }

  /// What each pair's frequency is divided by, where sequences of all lengths are turned by the same divisors and nothing else is changed.
  func uniformDivisors(headSize: Int) -> [Float]? {
    switch scaling {
    case .llama3(let factor, let low, let high, let originalPositions):
      return LlamaRopeScaling(factor: factor, low: low, high: high, originalPositions: originalPositions)
        .factors(headSize: headSize, base: base)
    case .longrope(let short, let long, _, let attention) where short == long && attention == 1: return short.map { Float($0) }
    default: return nil
    }
  }
}

/// The first field in which two values of a type differ, found by reflection: fields that a type is given later are compared, too.
struct FieldDifference {
  let path: String
  let expected: String
  let found: String

  /// `nil` for values that are alike.
  init?<Value: Equatable>(_ expected: Value, _ found: Value) {
    guard expected != found, let difference = Self.first(expected, found, at: "") else { return nil }
    self = difference
  }

  private init(path: String, expected: String, found: String) {
    self.path = path
    self.expected = expected
    self.found = found
  }

  private static func text(_ value: Any) -> String {
    let mirror = Mirror(reflecting: value)
    guard mirror.displayStyle == .optional else { return "\(value)" }
    return mirror.children.first.map { text($0.value) } ?? "none"
  }

  private static func first(_ expected: Any, _ found: Any, at path: String) -> FieldDifference? {
    let (a, b) = (Mirror(reflecting: expected), Mirror(reflecting: found))
    let (ours, theirs) = (Array(a.children), Array(b.children))
    let leaf = text(expected) == text(found) ? nil : FieldDifference(path: path, expected: text(expected), found: text(found))
    guard !ours.isEmpty, !theirs.isEmpty else { return leaf }
    if a.displayStyle == .collection, ours.count != theirs.count {
      return FieldDifference(path: path + ".count", expected: "\(ours.count)", found: "\(theirs.count)")
    }
    guard ours.map({ $0.label }) == theirs.map({ $0.label }) else { return leaf }
    for (index, (own, other)) in zip(ours, theirs).enumerated() {
      var place = path
      switch a.displayStyle {
      case .collection: place += "[\(index)]"
      case .optional: break
      default: if let label = own.label, !label.hasPrefix(".") { place += path.isEmpty ? label : ".\(label)" }
      }
      if let difference = first(own.value, other.value, at: place) { return difference }
    }
    return leaf
  }
}
