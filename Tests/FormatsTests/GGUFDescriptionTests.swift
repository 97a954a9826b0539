import CompressKit
import Foundation
import TestSupport
import Testing

/// Every field of a model's description is carried by a GGUF file, or the plan names it.
struct GGUFDescriptionTests {
  private func refusal(_ json: String) throws -> String? {
    do {
      _ = try GGUFFormat().configuration(of: [], in: ModelConfig(text: json.utf8, path: "/nonexistent/config.json"))
      return nil
    } catch { return "\(error)" }
  }

  private func config(_ type: String, _ more: String = "\"bos_token_id\":1") -> String {
    TinyModel.config.replacing("\"llama\"", with: "\"\(type)\"").replacing("\"bos_token_id\":1", with: more)
  }

  @Test func slidingWindowsAreRefusedWithWhatToDo() throws {
    for (json, place) in [
      (config("mistral", "\"sliding_window\":16"), "blocks[0]"),
      (config("qwen2", "\"use_sliding_window\":true,\"sliding_window\":16,\"max_window_layers\":1"), "blocks[1]"),
      (config("qwen3", "\"head_dim\":8,\"use_sliding_window\":true,\"sliding_window\":16,\"max_window_layers\":0"), "blocks[0]"),
    ] {
      let reason = try #require(try refusal(json))
      #expect(reason.contains("\(place).mixers.attention.window is 16") && reason.contains("max_position_embeddings to 16"), "\(reason)")
    }
    #expect(try refusal(config("mistral", "\"sliding_window\":null")) == nil)
    // No sequence the model was made for is longer than the window.
    #expect(try refusal(config("mistral", "\"sliding_window\":64")) == nil)
  }

  @Test func whatLlamaCppDoesNotComputeIsNamed() throws {
    let llama3 =
      "\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":16"
    let cases: [(String, String)] = [
      (config("llama", "\"hidden_act\":\"gelu\""), "blocks[0].feedForward.activation = gelu; it would be taken as silu"),
      (config("llama", "\"partial_rotary_factor\":0.5"), "only whole heads of 8 are rotated"),
      (config("llama", "\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2.0}"), "rotary scaling"),
      // Betas that llama.cpp does not read turn other pairs.
      (
        config(
          "llama",
          "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2.0,\"original_max_position_embeddings\":32,\"beta_fast\":4.0,\"beta_slow\":0.5}"
        ),
        "rotary.scaling"
      ),
      (config("qwen2", "\"rope_scaling\":{\(llama3)}"), "factors of rotary frequencies"),
      (config("qwen2", "\"head_dim\":16"), "add up to the hidden size"),
      (config("qwen2", "\"mlp_bias\":true"), "no biases in its feed-forward layers"),
      (config("qwen3", "\"attention_bias\":true,\"head_dim\":8"), "no bias on attention's output"),
    ]
    for (json, words) in cases {
      let reason = try refusal(json)
      #expect(reason?.contains(words) == true, "\(reason ?? "taken: \(json)")")
    }
    #expect(try refusal(config("llama", "\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":16")) == nil)
    let yarn = "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":2.0,\"original_max_position_embeddings\":32}"
    #expect(try refusal(config("llama", yarn)) == nil && refusal(config("qwen2", yarn)) == nil)
  }

  /// A tensor that the layout has no name for is found before anything is done.
  @Test func strangersAmongTheModulesAreRefused() throws {
    let config = try ModelConfig(text: TinyModel.config.utf8, path: "/nonexistent/config.json")
    let modules = [StoredModule(name: "model.layers.0.mlp.up_proj", scheme: nil), StoredModule(name: "vision_tower.patch", scheme: nil)]
    #expect { _ = try GGUFFormat().configuration(of: modules, in: config) } throws: { "\($0)".contains("vision_tower.patch") }
  }

  // MARK: Reading

  /// The tiny model as a GGUF file whose metadata and tensors are changed before it is read.
  private func reading(
    _ json: String = TinyModel.config, _ change: (inout GGUFMetadata, inout [(GGUFHeader.Entry, Data)]) -> Void,
    _ body: (Checkpoint, Checkpoint) throws -> Void
  ) async throws {
    let original = try TinyModel.checkpoint(json)
    let model = try Model(original)
    try await withGGUF(try model.places.map { try model.part($0) }, original.config) { checkpoint in
      let url = checkpoint.directory.appending(path: "model.gguf")
      let file = try GGUFFile(url)
      var metadata = file.metadata
      var tensors = try file.header.entries.map { ($0, Data(try file.tensor($0.name).bytes)) }
      change(&metadata, &tensors)
      try Data(Self.file(metadata, tensors)).write(to: url)
      try body(original, try Checkpoint(url))
    }
  }

  static func file(_ metadata: GGUFMetadata, _ tensors: [(GGUFHeader.Entry, Data)]) -> Data {
    let header = GGUFHeader(layingOut: tensors.map(\.0), metadata: metadata)
    var bytes = Data(header.serialized())
    for (entry, (_, data)) in zip(header.entries, tensors) {
      bytes += Data(count: header.dataStart + entry.offset - bytes.count) + data
    }
    return bytes + Data(count: header.dataStart + header.dataLength - bytes.count)
  }

  private func expectSameModel(_ original: Checkpoint, _ read: Checkpoint) throws {
    let tokens = TinyModel.sequences(1, length: 40)[0]
    let evaluator = Evaluator(window: 40)
    let (expected, found) = (
      try evaluator.evaluate(try Model(original), on: tokens).perplexity.negativeLogLikelihood,
      try evaluator.evaluate(try Model(read), on: tokens).perplexity.negativeLogLikelihood
    )
    #expect(abs(found / expected - 1) < 1e-6, "\(found) instead of \(expected)")
  }

  /// One number a layer, as llama.cpp's own converter writes for some models: rows of queries and keys lie as they do elsewhere.
  @Test func headCountsMayBeArrays() async throws {
    try await reading { metadata, _ in
      metadata["llama.attention.head_count"] = .integers([4, 4])
      metadata["llama.attention.head_count_kv"] = .array(.uint32, [.uint32(2), .uint32(2)])
      metadata["llama.feed_forward_length"] = .integers([64, 64])
    } _: { original, read in
      for name in original.tensors.names {
        #expect(try read.tensors.tensor(name).floats() == original.tensors.tensor(name).floats(), "\(name)")
      }
      try expectSameModel(original, read)
    }
  }

  @Test(arguments: ["llama.rope.scaling.factor", "llama.rope.scale_linear"])
  func aFactorWithoutATypeIsLinear(_ key: String) async throws {
    let linear = config("llama", "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":4.0}")
    try await reading(linear) { metadata, _ in
      metadata["llama.rope.scaling.type"] = nil
      metadata["llama.rope.scaling.factor"] = nil
      metadata[key] = .float32(4)
    } _: { original, read in
      #expect(read.config.json["rope_scaling"]?["rope_type"]?.string == "linear")
      try expectSameModel(original, read)
    }
    // A type that says no wins.
    try await reading { metadata, _ in
      metadata["llama.rope.scaling.type"] = .string("none")
      metadata[key] = .float32(4)
    } _: { original, read in
      try expectSameModel(original, read)
    }
  }

  private func llama3(_ length: Int, head: Int = 8, factor: Double = 8, low: Double = 1, high: Double = 4) -> String {
    config(
      "llama",
      """
      "head_dim":\(head),"rope_scaling":{"rope_type":"llama3","factor":\(factor),"low_freq_factor":\(low),"high_freq_factor":\(high),
       "original_max_position_embeddings":\(length)}
      """)
  }

  /// What is written is read back, whatever length the model was first trained for: our own files could not be read once.
  @Test func llama3ScalingOfAnyLength() async throws {
    for (length, head) in [(8192, 8), (64, 16), (64, 8), (100, 32), (777, 64), (131072, 16), (16, 8), (3, 8), (48, 128)] {
      try await reading(llama3(length, head: head)) { _, _ in
      } _: { original, read in
        let (expected, found) = (
          try #require(try Model(original).description.blocks[0].attention?.rotary), try Model(read).description.blocks[0].attention?.rotary
        )
        let frequencies = expected.inverseFrequencies(headSize: head)
        for (a, b) in zip(frequencies, try #require(found).inverseFrequencies(headSize: head)) {
          #expect(abs(a / b - 1) < 1e-5, "\(length) \(head)")
        }
        try expectSameModel(original, read)
      }
    }
    // The published parameters are recognised as such.
    try await reading(llama3(777, head: 64, factor: 32)) { _, _ in
    } _: { _, read in
      let scaling = try #require(read.config.json["rope_scaling"])
      #expect(scaling["rope_type"]?.string == "llama3" && scaling["factor"]?.double == 32)
      #expect(scaling["original_max_position_embeddings"]?.double == 777)
    }
  }

  /// Factors that follow from no rule that is known are taken one by one, and are written again as they were.
  @Test func anyFactorsOfFrequencies() async throws {
    try await reading(llama3(64, head: 16, factor: 8, low: 1.5, high: 9)) { _, _ in
    } _: { original, read in
      // Eight factors may also follow from Llama 3's rule with other parameters; the model is the same.
      #expect(["llama3", "longrope"].contains(read.config.json["rope_scaling"]?["rope_type"]?.string))
      try expectSameModel(original, read)
      var config = read.config
      config.json["quantization_config"] = nil
      #expect(try refusal(config.json.text()) == nil)
    }
  }

  @Test func factorsMayBeHalves() async throws {
    try await reading(llama3(8192)) { _, tensors in
      let place = tensors.firstIndex { $0.0.name == "rope_freqs.weight" }!
      let values = Tensor(dtype: .float32, shape: [4], bytes: tensors[place].1).floats()
      tensors[place] = (.init(name: "rope_freqs.weight", type: .f16, shape: [4]), Tensor(values, shape: [4], dtype: .float16).bytes)
    } _: { original, read in
      #expect(read.config.json["rope_scaling"]?["rope_type"]?.string == "llama3")
      let frequencies = try #require(try Model(original).description.blocks[0].attention?.rotary).inverseFrequencies(headSize: 8)
      let found = try #require(try Model(read).description.blocks[0].attention?.rotary).inverseFrequencies(headSize: 8)
      for (a, b) in zip(frequencies, found) { #expect(abs(a / b - 1) < 1e-3) }
    }
  }
}
