import CompressKit
import Foundation
import TestSupport
import Testing

/// Families that say more of their layers than how many there are: what is left of a model opens as what was described.
struct LayersLeftTests {
  @Test(arguments: [
    "arcee", "apertus", "gemma4", "phimoe", "hunyuan", "hunyuan-moe", "ministral3", "mistral4", "llama4", "bloom", "mpt", "glm4-moe-lite",
  ])
  func configurationsSayWhichLayersAreLeft(_ name: String) throws {
    let config = try ModelConfig(text: Families.configuration(name).utf8)
    let original = try ArchitectureCatalog.standard.describe(config)
    let kept = Array(original.blocks.indices.dropFirst())
    var smaller = original
    smaller.blocks = kept.map { original.blocks[$0] }
    for index in smaller.blocks.indices { smaller.blocks[index].prefix = original.blocks[index].prefix }
    let written = try ArchitectureCatalog.standard.configuration(of: smaller, keeping: kept, in: config)
    #expect(try ArchitectureCatalog.standard.describe(written) == smaller)
    #expect(try ArchitectureCatalog.standard.describe(config) != smaller)
  }

  /// What released configurations of the same models say otherwise than a transformers of today would.
  @Test func rulesTakeThePlaceOfLists() throws {
    var config = try ModelConfig(text: Families.configuration("llama4").utf8)
    for key in ["moe_layers", "layer_types"] { config.json[key] = nil }
    config.json["no_rope_layers"] = .array([])
    config.json["interleave_moe_layer_step"] = .integer(2)
    config.json["attn_temperature_tuning"] = .integer(4)
    let blocks = try ArchitectureCatalog.standard.describe(config).blocks
    #expect(blocks.map { $0.attention?.rotary == nil } == [false, false, false, true])
    #expect(
      blocks.map { $0.attention?.chunk } == [6, 6, 6, nil] && blocks.map { $0.attention?.queryScale == nil } == [true, true, true, false])
    #expect(blocks.map { $0.feedForward?.mixture == nil } == [true, false, true, false] && blocks[0].feedForward?.size == 96)
  }

  /// Families whose silence about the rotation has a meaning of its own.
  @Test func silenceMeansTheFamilysRotation() throws {
    func attention(_ name: String) throws -> AttentionDescription {
      var config = try ModelConfig(text: Families.configuration(name).utf8)
      for key in ["rope_parameters", "rope_scaling", "rope_theta"] { config.json[key] = nil }
      return try #require(try ArchitectureCatalog.standard.describe(config).blocks[0].attention)
    }
    let apertus = try attention("apertus")
    #expect(apertus.rotary?.base == 12_000_000)
    #expect(apertus.rotary?.scaling == .llama3(factor: 8, low: 1, high: 4, originalPositions: 8192))
    let ministral = try attention("ministral3")
    #expect(ministral.rotary?.base == 1_000_000 && ministral.queryScale == QueryScale(strength: 0.1, stretch: 16_384))
  }
}
