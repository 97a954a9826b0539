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
    let rotary = try #require(try description(keys).blocks.first?.attention?.rotary)
    let expected = bits.map { Float(bitPattern: $0) }
    let found = rotary.inverseFrequencies(headSize: 16)
    for (a, b) in zip(found, expected) { #expect(abs(a - b) <= 3e-7 * b) }
  }

  /// By the definition: pair i of a whole head turns base^(−2i / size) a position, and those behind the share stand still.
  @Test func aShareOfTheFrequenciesOfAWholeHead() throws {
    let keys = "\"rope_parameters\":{\"rope_type\":\"proportional\",\"partial_rotary_factor\":0.3,\"factor\":2.0,\"rope_theta\":10000.0}"
    let rotary = try #require(try description(keys).blocks.first?.attention?.rotary)
    #expect(rotary.fraction == 1 && rotary.scaling == .proportional(share: 0.3, factor: 2))
    let found = rotary.inverseFrequencies(headSize: 16)
    // ⌊0.3 · 16 / 2⌋ pairs; 10000^(−2/16) / 2 = 0.158114.
    #expect(found.count == 8 && found[0] == 0.5 && abs(found[1] - 0.158114) < 1e-6 && found[2...].allSatisfy { $0 == 0 })
  }

  @Test(
    arguments: [
      (
        "\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}", 1e4, 4096, 1.0,
        [0x3F80_0000, 0x3E8A_6441, 0x3D95_A07B, 0x3CA1_C635, 0x3BAE_E866, 0x3ABD_1B8D, 0x39CC_75D1, 0x38DD_0F2A]
      ),
      (
        "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":32768}", 1e6, 0,
        1.138629436111989,
        [0x3F80_0000, 0x3E36_1887, 0x3D01_86E3, 0x3B8A_3375, 0x3A03_126F, 0x383A_7753, 0x3704_A2B2, 0x35BC_B0C1]
      ),
      (
        "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":4096,\"mscale\":1.0,"
          + "\"mscale_all_dim\":0.707,\"truncate\":false}", 1e4, 0, 1.0857263992561355,
        [0x3F80_0000, 0x3EA1_E89B, 0x3DCC_CCCD, 0x3CE3_01E2, 0x3BB5_0332, 0x3A3D_6F6D, 0x37D1_B717, 0x3704_A2B3]
      ),
      (
        "\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":32,\"original_max_position_embeddings\":4096,\"short_factor\":"
          + "[1,1.05,1.1,1.15,1.2,1.25,1.3,1.35],\"long_factor\":[1,1.5,2,3,5,9,17,33]}", 1e4, 4096, 1.1902380714238083,
        [0x3F80_0000, 0x3E9A_32DD, 0x3DBA_2E8C, 0x3CE1_43A1, 0x3C08_8888, 0x3B25_CB60, 0x3A49_A634, 0x3975_9F12]
      ),
      (
        "\"rope_scaling\":{\"rope_type\":\"longrope\",\"factor\":32,\"original_max_position_embeddings\":4096,\"short_factor\":"
          + "[1,1.05,1.1,1.15,1.2,1.25,1.3,1.35],\"long_factor\":[1,1.5,2,3,5,9,17,33]}", 1e4, 4097, 1.1902380714238083,
        [0x3F80_0000, 0x3E57_E0CE, 0x3D4C_CCCD, 0x3C2C_B3D8, 0x3B03_126F, 0x39B8_374E, 0x3876_B949, 0x3720_C536]
      ),
    ] as [(String, Double, Int, Double, [UInt32])])
  func stretchedFrequenciesAreThoseOfTransformers(_ keys: String, base: Double, length: Int, factor: Double, _ bits: [UInt32]) throws {
    let more = "\"rope_theta\":\(base),\"max_position_embeddings\":2048,"
    let rotary = try #require(try description(more + keys).blocks.first?.attention?.rotary)
    let found = rotary.inverseFrequencies(headSize: 16, length: length)
    for (a, b) in zip(found, bits.map { Float(bitPattern: $0) }) { #expect(abs(a - b) <= 1e-6 * b) }
    #expect(abs(Double(rotary.attentionFactor) - factor) < 1e-6)
  }

  private func description(_ keys: String) throws -> ModelDescription {
    let json = """
      {"model_type":"llama","vocab_size":8,"hidden_size":32,"intermediate_size":8,"num_hidden_layers":1,"num_attention_heads":2,\(keys)}
      """
    return try ArchitectureCatalog.standard.describe(try ModelConfig(text: json.utf8))
  }
}
