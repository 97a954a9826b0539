import CompressKit

/// Helium: Llama whose rotation turns neighbouring numbers (Kyutai 2025).
enum Helium: Architecture {
  static let modelTypes = ["helium"]

  static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    let keys = try config.decode(DecoderKeys.self)
    var model = try keys.description(config, DecoderDefaults(headSize: 128, epsilon: 1e-8, rotaryBase: 100_000))
    model.eachBlock { _, block in
      block.attention?.rotary?.isInterleaved = true
      block.attention?.hasOutputBias = false
    }
    return model
  }
}
