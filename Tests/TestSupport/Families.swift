public import CompressKit
import Foundation

/// Tiny models of every family: the configurations of the fixtures that `tools/golden/families.py` wrote.
public enum Families {
  public static let names = [
    "apertus", "arcee", "bert", "bloom", "cohere", "cohere2", "deepseek-v2", "deepseek-v3", "dots1", "ernie", "ernie-moe", "exaone-moe",
    "exaone4", "falcon-40b", "falcon-7b", "falcon-h1", "falcon-h1-norm", "falcon-serial", "gemma", "gemma2", "gemma3", "gemma4",
    "gemma4-moe", "gemma4-unified", "glm", "glm4", "glm4-moe", "glm4-moe-lite", "gpt-neox", "gpt-neox-serial", "gpt-oss", "gpt2",
    "gpt2-inverse-layers", "granite", "granite-hybrid", "granite-hybrid-moe", "granite-moe", "granite-moe-shared", "hunyuan", "hunyuan-moe",
    "lfm2", "lfm2-bias", "lfm2-moe", "llama-dynamic", "llama-yarn", "llama-yarn-scales", "llama4", "minimax-m2", "ministral", "ministral3",
    "mistral4", "mixtral", "mpt", "nemotron", "nemotron-h", "nemotron-h-moe", "olmo2", "olmo3", "olmoe", "opt", "phi3", "phi3-longrope",
    "phi3-partial", "phimoe", "qwen2-moe", "qwen2-vl", "qwen3-moe", "qwen3-next", "qwen3-vl", "qwen3-vl-moe", "qwen3.5", "qwen3.5-moe",
    "seed-oss", "smollm3", "stablelm", "stablelm-parallel", "starcoder2",
  ]
  /// Models without logits.
  public static let encoders = ["bert"]
  public static let mixtures = ["mixtral", "olmoe", "qwen2-moe", "qwen3-moe", "qwen3-next", "hunyuan-moe"] + softmaxStacks
  private static let softmaxStacks = [
    "gpt-oss", "granite-hybrid-moe", "granite-moe", "granite-moe-shared", "qwen3-vl-moe", "qwen3.5-moe",
  ]
  /// Mixtures whose checkpoints store all experts of a layer together.
  public static let stacked = softmaxStacks + ["gemma4-moe", "llama4", "mistral4"]
  /// Mixtures whose experts are chosen by groups.
  public static let groupedMixtures = ["deepseek-v2", "deepseek-v3", "glm4-moe-lite", "mistral4"]
  /// Mixtures whose experts are chosen one after the other, read inputs that have been weighed, or stand beside the shared one.
  public static let unusualMixtures = ["gemma4-moe", "llama4", "phimoe"]
  /// Mixtures whose experts are chosen with a correction.
  public static let correctedMixtures = ["dots1", "ernie-moe", "exaone-moe", "glm4-moe", "lfm2-moe", "minimax-m2"]
  public static let allMixtures = mixtures + groupedMixtures + correctedMixtures + unusualMixtures
  /// Models with other mixers than softmax attention.
  public static let hybrids = [
    "deepseek-v2", "deepseek-v3", "falcon-h1", "falcon-h1-norm", "glm4-moe-lite", "granite-hybrid", "granite-hybrid-moe", "lfm2",
    "lfm2-bias", "lfm2-moe",
    "mistral4", "nemotron-h", "nemotron-h-moe", "qwen3-next", "qwen3.5", "qwen3.5-moe",
  ]

  public static func fixture(_ name: String) throws -> JSON {
    let file = Places.root.appending(path: "Tests/ModelsTests/Fixtures/\(name).json")
    return try JSON(parsing: Data(contentsOf: file))
  }

  /// The text of `config.json`.
  public static func configuration(_ name: String) throws -> String { try fixture(name)["config"]?.text() ?? "" }

  public static func model(_ name: String, dtype: DType = .float32) throws -> Model {
    try TinyModel.model(try configuration(name), dtype: dtype)
  }
}

extension Matrix {
  /// The largest difference over the largest element of `other`.
  public func distance(to other: Matrix) -> Float {
    let size = other.elements.reduce(Float.leastNormalMagnitude) { max($0, abs($1)) }
    return zip(elements, other.elements).reduce(0) { max($0, abs($1.0 - $1.1)) } / size
  }
}
