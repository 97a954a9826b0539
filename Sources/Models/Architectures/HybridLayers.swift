import CheckpointIO
import StrictJSON

/// The key that says which mixer each layer of a hybrid model has.
struct LayerTypes {
  let types: [String]

  /// - Parameters:
  ///   - known: the types a family has, other names for one and the same included.
  ///   - rule: what a layer has where the configuration does not list them.
  /// - Throws: `CheckpointError.unsupportedOption` for a list of another length, and for types that are not known.
  init(_ types: [String]?, count: Int, known: [String], rule: (Int) -> String) throws(CheckpointError) {
    self.types = types ?? (0..<count).map(rule)
    guard self.types.count == count else {
      throw .unsupportedOption(option: "layer_types", value: "\(self.types.count) entries", reason: "\(count) layers need as many")
    }
    for type in self.types where !known.contains(type) {
      throw .unsupportedOption(option: "layer_types", value: type, reason: "\(known.joined(separator: ", ")) are known")
    }
  }
}

extension ModelConfig {
  /// - Parameter key: of the activation behind a mixer's convolution.
  /// - Throws: `CheckpointError.unsupportedOption` for any but SiLU, which is what mixers compute.
  func checkMixerActivation(_ key: String) throws(CheckpointError) {
    guard let name = json[key]?.string, name != "silu", name != "swish" else { return }
    throw .unsupportedOption(option: key, value: name, reason: "the convolutions of recurrent layers are followed by silu")
  }

  /// The configuration of the language model in one that has other parts, where it stands in `text_config`; whether the ends are tied is said
  /// of the whole.
  var ofText: ModelConfig {
    var text = self
    text.json = decoder
    if let isTied = json["tie_word_embeddings"], !isTied.isNull { text.json["tie_word_embeddings"] = isTied }
    return text
  }
}
