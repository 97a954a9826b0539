internal import StrictJSON

/// One of llama.cpp's architectures: what it calls the tensors of the models it computes, how their rows lie, and what its metadata say.
///
/// `all` is the one table of them. A file is read by it, and what is written comes from it, so that neither can know a family alone.
public struct GGUFArchitecture: Sendable {
  /// `general.architecture`.
  public let name: String
  /// The values of `model_type` that are written as it; a file is read as the first.
  public let modelTypes: [String]
  /// A tensor that tells this layout from others of the same name; `nil` for the one that files without any such tensor have.
  package var mark: String?
  public var names: GGUFNames
  /// How rows lie that do not lie as in Hugging Face's checkpoints, by the name of a tensor inside its block.
  package var rows: [String: GGUFRows] = [:]
  /// What the file's weights of norms exceed Hugging Face's by.
  package var normOffset: Float = 0
  /// Whether Hugging Face's checkpoints store the blocks' linears as [inputs × outputs].
  package var storesTransposed = false
  package var head = Head.optional
  /// Whether queries and keys are rotated.
  package var rotates = true
  package var epsilon = Epsilon.rootMeanSquare
  /// What the architecture has in its metadata besides what all have.
  package var keys: Set<GGUFKey> = []
  /// Of layers with windows, and of those without; `nil` where there are none.
  package var windows: GGUFWindows?
  /// `hidden_act` of its networks, which no key says.
  package var activation = "silu"
  /// Whether llama.cpp computes its GELU by the tanh form, although the family has the one with the error function.
  package var approximatesGELU = false
  /// Whether factors of rotary frequencies are read, which hold for sequences of any length.
  package var readsRotaryFactors = false
  /// Whether they are read where there are others for long contexts.
  package var readsLongFactors = false
  /// Whether llama.cpp reads of YaRN how often pairs turn and what the gain is divided by, besides the factor.
  package var readsYarn = false
  /// Whether heads may be of any size; otherwise their sizes add up to the hidden size.
  package var headsAreFree = false
  /// Whether several queries may share a key-value head.
  package var groupsQueries = true
  /// Whether attention's output may have a bias.
  package var hasOutputBias = false
  /// Whether feed-forward layers may have biases.
  package var hasNetworkBias = false
  /// Whether llama.cpp opens no file without biases on the output of attention and in the networks.
  package var requiresBias = false
  /// Whether the family blends YaRN's frequencies between pairs that are not whole numbers, which llama.cpp rounds.
  package var roundsYarn = false
  /// Whether one key of the family's `config.json` says that queries, keys, values and the output all have biases.
  var sharesBias = true
  /// Other names of keys of `config.json`, by Llama's; an empty one for keys that the family has not.
  var spelling: [String: String] = [:]
  /// What else the family's `config.json` says, or says otherwise.
  var adapt: @Sendable (GGUFReading, inout JSON) throws(CheckpointError) -> Void = { _, _ in }

  init(_ name: String, modelTypes: [String], mark: String? = nil, names: GGUFNames) {
    (self.name, self.modelTypes, self.mark, self.names) = (name, modelTypes, mark, names)
  }

  /// Whether the file has a head of its own.
  package enum Head: Sendable {
    case optional
    /// llama.cpp opens no file without one.
    case required
    /// llama.cpp does not read one.
    case absent
  }

  /// Which of two keys says the epsilon of norms.
  package enum Epsilon: String, Sendable {
    case rootMeanSquare = "attention.layer_norm_rms_epsilon"
    case layer = "attention.layer_norm_epsilon"
  }
}

/// Keys of the metadata that only some architectures have.
package enum GGUFKey: Sendable {
  case vocabularySize, rotatedSize
  case experts, expertSize, sharedExpertSize
  case attentionCap, logitCap
  case embeddingScale, residualScale, attentionScale, logitScale, logitDivisor
  case parallelResidual, alibi, localBase, temperature
  /// Windows of no tokens: without the key older versions take widths of their own.
  case noWindow
}

/// Which layers have windows.
package struct GGUFWindows: Sendable {
  /// Every such layer, counted from 1, has none where the file does not say.
  package var period: Int
  /// Whether there are layers with windows only where the file says how wide these are.
  package var isOptional = false
  /// How wide windows are where the file does not say.
  package var width: Int?

  package init(period: Int, isOptional: Bool = false, width: Int? = nil) {
    (self.period, self.isOptional, self.width) = (period, isOptional, width)
  }
}

// MARK: - The table

extension GGUFArchitecture {
  package static let all: [GGUFArchitecture] = likeLlama + otherRootMeanSquare + gemma + mixtures + withLayerNorm + withFusedQueries

  /// Names that are known, each once.
  static var names: [String] { Array(Set(all.map(\.name))).sorted() }

  /// Families that are written.
  public static var modelTypes: [String] { Array(Set(all.flatMap(\.modelTypes))).sorted() }

  /// The layouts that a family may be written in: several where not all its models look alike.
  public static func layouts(of modelType: String) -> [GGUFArchitecture] { all.filter { $0.modelTypes.contains(modelType) } }

  /// The layout of a file; `nil` for an architecture that is not known.
  ///
  /// - Parameter has: whether the file holds a tensor.
  static func layout(named name: String, has: (String) -> Bool) -> GGUFArchitecture? {
    let named = all.filter { $0.name == name }
    return named.first { $0.mark.map(has) ?? false } ?? named.first { $0.mark == nil }
  }
}
