import CompressKit
import Foundation
import TestSupport
import Testing

/// Which keys of `config.json` are written out, held against what mlx-lm takes for those that are absent.
struct SpelledOutKeyTests {
  private static func spelled(_ text: String, isTied: Bool) throws -> JSON {
    try ArchitectureCatalog.standard.spelledOut(ModelConfig(text: text.utf8), isTied: isTied).json
  }

  /// The sizes that no configuration leaves out, and what follows for each family where nothing else is said.
  private static let sizes = """
    "vocab_size":64,"hidden_size":64,"intermediate_size":96,"num_hidden_layers":4,"num_attention_heads":4
    """
  private static let minimal: [String: String] = [
    "llama": sizes, "mistral": sizes + #","num_key_value_heads":2"#, "mixtral": sizes + #","num_key_value_heads":2"#,
    "qwen2": sizes + #","num_key_value_heads":2"#, "qwen3": sizes + #","num_key_value_heads":2"#,
    "qwen2_moe": sizes + #","num_key_value_heads":2"#, "qwen3_moe": sizes, "olmo2": sizes, "olmoe": sizes,
    "gemma": sizes + #","num_key_value_heads":2"#, "gemma2": sizes, "gemma3_text": sizes.replacing("layers\":4", with: "layers\":12"),
    "phi3": sizes, "granite": sizes, "smollm3": sizes, "stablelm": sizes + #","num_key_value_heads":2"#,
    "gpt2": #""vocab_size":64,"hidden_size":96"#, "gpt_neox": sizes,
  ]
  /// Keys that no configuration has, that mean nothing where they are absent, or that only repeat others.
  private static let silent: Set = [
    "rope_traditional", "rope_scaling", "rope_parameters", "qk_layernorm", "no_rope_layer_interval", "no_rope_layers", "layer_types",
    "partial_rotary_factor", "original_max_position_embeddings",
  ]

  @Test(arguments: minimal.keys.sorted()) func nothingIsLeftToTheDefaultsOfMLX(_ type: String) throws {
    let file = Places.root.appending(path: "Tests/ModelsTests/Fixtures/mlx-lm-defaults.json")
    let classes = try JSON(parsing: Data(contentsOf: file))["types"]
    let theirs = try #require(classes?[type])
    let text = "{\"model_type\":\"\(type)\",\(try #require(Self.minimal[type]))}"
    let config = try ModelConfig(text: text.utf8)
    let tied = try ArchitectureCatalog.standard.describe(config).isTied
    let json = try Self.spelled(text, isTied: tied)
    for key in theirs["required"]?.elements?.compactMap(\.string) ?? [] { #expect(json[key]?.isNull == false, "\(key) is needed") }
    // What is absent must mean for mlx-lm what it means for transformers.
    let meanings: [String: JSON] = [
      "attn_logit_softcapping": .number("50.0"), "final_logit_softcapping": .number("30.0"), "mlp_bias": .bool(false),
      "attention_bias": .bool(false), "head_dim": .null, "num_key_value_heads": .null, "sliding_window": .null,
      "max_position_embeddings": json["max_position_embeddings"] ?? .null,
    ]
    for member in theirs["defaults"]?.members ?? [] where !Self.silent.contains(member.key) && (json[member.key]?.isNull ?? true) {
      let isUnused = member.key == "max_position_embeddings" || member.key == "num_key_value_heads" && type.hasPrefix("gpt")
      #expect(isUnused || meanings[member.key] == member.value, "\(member.key): mlx-lm takes \(member.value.text())")
    }
    #expect(json["tie_word_embeddings"]?.bool == tied && json["architectures"]?.elements?.count == 1)
    // It is still the same model, and there is nothing left to do.
    let again = try ModelConfig(text: json.text().utf8)
    #expect(try ArchitectureCatalog.standard.spelledOut(again, isTied: tied).json == json)
    // What stood there stands where it stood.
    #expect(Array((json.members ?? []).prefix(config.json.members?.count ?? 0)) == config.json.members)
  }

  @Test func rotationsAreSpelledBesideTheOtherKeys() throws {
    let llama3 = """
      {"model_type":"llama",\(Self.sizes),"max_position_embeddings":64,"rope_parameters":{"rope_type":"llama3","rope_theta":500000.0,"factor":4.0,
       "low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":16}}
      """
    let json = try Self.spelled(llama3, isTied: false)
    #expect(json["rope_theta"]?.double == 500_000)
    #expect(
      json["rope_scaling"]?.text()
        == #"{"rope_type":"llama3","factor":4.0,"low_freq_factor":1.0,"high_freq_factor":4.0,"original_max_position_embeddings":16}"#)
    // The original positions that a reader would take from elsewhere.
    let short = llama3.replacing(",\"original_max_position_embeddings\":16", with: "")
    #expect(try Self.spelled(short, isTied: false)["rope_scaling"]?["original_max_position_embeddings"]?.integer == 64)
    // mlx-lm's Phi-3 wants the older word for the kind.
    let phi = """
      {"model_type":"phi3",\(Self.sizes),"max_position_embeddings":64,"original_max_position_embeddings":16,
       "rope_parameters":{"rope_type":"longrope","rope_theta":10000.0,"short_factor":[1,1,1,1,1,1,1,1],"long_factor":[2,2,2,2,2,2,2,2]}}
      """
    #expect(try Self.spelled(phi, isTied: false)["rope_scaling"]?["type"]?.string == "longrope")
    // Nothing to stretch, nothing to say.
    let plain =
      "{\"model_type\":\"qwen2\",\(Self.sizes),\"num_key_value_heads\":2,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":10000.0}}"
    let qwen = try Self.spelled(plain, isTied: false)
    #expect(qwen["rope_theta"]?.double == 10_000 && qwen["rope_scaling"] == nil)
  }

  @Test func layersThatSeeLessAreListed() throws {
    let gemma = """
      {"model_type":"gemma3_text",\(Self.sizes),"head_dim":16,"sliding_window":8,
       "layer_types":["sliding_attention","full_attention","sliding_attention","full_attention"],
       "rope_parameters":{"full_attention":{"rope_type":"linear","factor":8.0,"rope_theta":1000000.0},
       "sliding_attention":{"rope_type":"default","rope_theta":20000.0}}}
      """
    let json = try Self.spelled(gemma, isTied: true)
    #expect(json["sliding_window_pattern"]?.integer == 2 && json["rope_local_base_freq"]?.double == 20_000)
    #expect(json["rope_theta"]?.double == 1_000_000 && json["rope_scaling"]?.text() == #"{"rope_type":"linear","factor":8.0}"#)
    // No step fits: better no word than a wrong one.
    let odd = gemma.replacing(#"["sliding_attention","full_attention","#, with: #"["full_attention","full_attention","#)
      .replacing("\"sliding_window\":8", with: "\"sliding_window\":8,\"sliding_window_pattern\":2")
    #expect(try Self.spelled(odd, isTied: true)["sliding_window_pattern"] == nil)
    let qwen =
      "{\"model_type\":\"qwen2\",\(Self.sizes),\"num_key_value_heads\":2,\"use_sliding_window\":true,\"sliding_window\":8,\"max_window_layers\":2}"
    #expect(
      try Self.spelled(qwen, isTied: false)["layer_types"]?.elements?.compactMap(\.string)
        == ["full_attention", "full_attention", "sliding_attention", "sliding_attention"])
  }

  @Test func tyingIsSaidWhereverItIsLookedFor() throws {
    let nested = "{\"model_type\":\"gemma3\",\"text_config\":{\(Self.sizes),\"head_dim\":16,\"sliding_window_pattern\":2}}"
    for isTied in [true, false] {
      let json = try Self.spelled(nested, isTied: isTied)
      #expect(json["tie_word_embeddings"]?.bool == isTied && json["text_config"]?["tie_word_embeddings"]?.bool == isTied)
      #expect(try ArchitectureCatalog.standard.describe(ModelConfig(text: json.text().utf8)).isTied == isTied)
      #expect(json["text_config"]?["rope_theta"]?.double == 1_000_000 && json["rope_theta"] == nil)
    }
  }

  @Test(arguments: Families.names) func everyFamilyReadsAsBefore(_ name: String) throws {
    let config = try ModelConfig(text: try Families.configuration(name).utf8)
    let before = try ArchitectureCatalog.standard.describe(config)
    var after = try ArchitectureCatalog.standard.describe(ArchitectureCatalog.standard.spelledOut(config, isTied: before.isTied))
    after.maximumPositions = before.maximumPositions
    #expect(after == before)
  }
}
