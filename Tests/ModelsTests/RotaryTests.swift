import CompressKit
import TestSupport
import Testing

struct RotaryTests {
  /// Recorded from transformers 5.17 for heads of 16.
  @Test(arguments: [
    (
      "\"rope_theta\":10000.0,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}",
      [0x3E80_0000, 0x3DA1_E89B, 0x3CCC_CCCD, 0x3C01_86E3, 0x3B23_D70A, 0x3A4F_3E38, 0x3983_126F, 0x38A5_CB60] as [UInt32]
    ),
    (
      "\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":4.0,\"rope_theta\":10000.0}",
      [0x3E80_0000, 0x3DA1_E89B, 0x3CCC_CCCD, 0x3C01_86E3, 0x3B23_D70A, 0x3A4F_3E38, 0x3983_126F, 0x38A5_CB60]
    ),
    (
      "\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
        + "\"original_max_position_embeddings\":8192}",
      [0x3F80_0000, 0x3E46_93B0, 0x3D1A_08C8, 0x3BEE_F74F, 0x3A09_95D2, 0x380F_C8F8, 0x36DF_10C4, 0x35AD_07A7]
    ),
  ])
  func inverseFrequenciesAreThoseOfTransformers(_ keys: String, _ bits: [UInt32]) throws {
    let rotary = try #require(try description(keys).blocks.first).attention.rotary
    let expected = bits.map { Float(bitPattern: $0) }
    let found = rotary.inverseFrequencies(headSize: 16)
    for (a, b) in zip(found, expected) { #expect(abs(a - b) <= 3e-7 * b) }
  }

  private func description(_ keys: String) throws -> ModelDescription {
    let json = """
      {"model_type":"llama","vocab_size":8,"hidden_size":32,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,\(keys)}
      """
    return try ArchitectureCatalog.standard.describe(try ModelConfig(text: json.utf8))
  }
}
