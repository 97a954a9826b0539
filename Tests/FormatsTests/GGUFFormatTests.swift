import CompressKit
import Foundation
import TestSupport
import Testing

/// Writes blocks as a GGUF directory and opens it again.
func withGGUF(
  _ blocks: [any ModelPart], _ config: ModelConfig, files: [CheckpointFile] = [], _ body: (Checkpoint) throws -> Void
) async throws {
  try await Places.withTemporaryDirectory { directory in
    let (format, output) = (GGUFFormat(), directory.appending(path: "out"))
    let writer = try format.makeWriter(into: try StagedDirectory(for: output, overwrite: false), shardLimit: 1)
    for block in blocks { try await writer.append(try format.encode(block)) }
    let json = try format.configuration(of: blocks.flatMap { format.modules(of: $0) }, in: config)
    try await writer.finish(files: [CheckpointFile("config.json", .text(json.text()))] + files)
    try body(try Checkpoint(output))
  }
}

extension Model {
  fileprivate func parts(_ change: (inout any ModelPart) -> Void = { _ in }) throws -> [any ModelPart] {
    try places.map { place in
      var part = try part(place)
      change(&part)
      return part
    }
  }
}

extension ModelPart {
  fileprivate mutating func quantize(_ type: BlockType) {
    for name in linears.keys { self[name].weight = BlockQuantizedMatrix(self[name].weight.dense(), as: type) }
  }
}

private let llama = TinyModel.config
private let configs = [
  llama, llama.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true"),
  llama.replacing("\"bos_token_id\":1", with: "\"attention_bias\":true"),
  llama.replacing("\"model_type\":\"llama\"", with: "\"model_type\":\"qwen2\""),
  llama.replacing("\"model_type\":\"llama\"", with: "\"model_type\":\"qwen3\",\"head_dim\":16"),
  llama.replacing(
    "\"bos_token_id\":1",
    with: """
      "rope_scaling":{"rope_type":"llama3","factor":8.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
      "original_max_position_embeddings":8192}
      """),
  llama.replacing("\"bos_token_id\":1", with: "\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":4.0}"),
]

struct GGUFFormatTests {
  @Test(arguments: configs, [BlockType.q4_0, .q8_0, .mxfp4])
  func aModelOpensAgain(_ json: String, _ type: BlockType) async throws {
    let original = try TinyModel.checkpoint(json, dtype: .bfloat16)
    let model = try Model(original)
    let blocks = try model.parts { $0.quantize(type) }
    try await withGGUF(blocks, original.config) { checkpoint in
      let again = try Model(checkpoint)
      #expect(again.description == model.description)
      #expect(again.carried.isEmpty && again.remarks.isEmpty)
      for (place, block) in zip(model.places, blocks) {
        let read = try again.part(place)
        #expect(read.norms.weights == block.norms.weights)
        #expect(Set(read.linears.keys) == Set(block.linears.keys))
        for (name, linear) in block.linears {
          #expect(read[name].weight as? BlockQuantizedMatrix == linear.weight as? BlockQuantizedMatrix, "\(place) \(name)")
          #expect(read[name].bias == linear.bias)
        }
      }
    }
  }

  @Test(arguments: [DType.float32, .float16, .bfloat16])
  func denseWeightsKeepTheirType(_ dtype: DType) async throws {
    let original = try TinyModel.checkpoint(dtype: dtype)
    let model = try Model(original)
    try await withGGUF(try model.parts(), original.config) { checkpoint in
      #expect(checkpoint.config.json["tie_word_embeddings"]?.bool == false)
      let again = try Model(checkpoint)
      for name in original.tensors.names {
        let (found, expected) = (try checkpoint.tensors.tensor(name), try original.tensors.tensor(name))
        #expect(found.dtype == (name.contains("norm") ? .float32 : dtype))
        #expect(found.floats() == expected.floats(), "\(name)")
      }
      let tokens = TinyModel.sequences(1, length: 40)[0]
      let evaluator = Evaluator(window: 40)
      #expect(try evaluator.evaluate(again, on: tokens).perplexity == evaluator.evaluate(model, on: tokens).perplexity)
    }
  }

  @Test func theFileIsOrderedAndDescribedAsLlamaCppDoes() async throws {
    let original = try TinyModel.checkpoint(configs[5], dtype: .bfloat16)
    try await withGGUF(try Model(original).parts { $0.quantize(.q8_0) }, original.config) { checkpoint in
      let file = try GGUFFile(checkpoint.directory.appending(path: "model.gguf"))
      #expect(
        file.names == ["output.weight", "output_norm.weight", "rope_freqs.weight", "token_embd.weight"]
          + (0..<2).flatMap { block in
            ["attn_k", "attn_norm", "attn_output", "attn_q", "attn_v", "ffn_down", "ffn_gate", "ffn_norm", "ffn_up"].map {
              "blk.\(block).\($0).weight"
            }
          })
      let expected: [(String, GGUFValue)] = [
        ("general.architecture", .string("llama")), ("llama.block_count", .uint32(2)), ("llama.context_length", .uint32(64)),
        ("llama.embedding_length", .uint32(32)), ("llama.feed_forward_length", .uint32(64)), ("llama.attention.head_count", .uint32(4)),
        ("llama.attention.head_count_kv", .uint32(2)), ("llama.attention.layer_norm_rms_epsilon", .float32(1e-5)),
        ("llama.rope.freq_base", .float32(10000)), ("llama.rope.dimension_count", .uint32(8)), ("llama.vocab_size", .uint32(64)),
        ("general.file_type", .uint32(7)), ("general.quantization_version", .uint32(2)), ("tokenizer.ggml.model", .string("none")),
      ]
      for (key, value) in expected { #expect(file.metadata[key] == value, "\(key)") }
      // Heads of eight rows: 0, 4, 1, 5, 2, 6, 3, 7.
      let (q, source) = (try file.tensor("blk.1.attn_q.weight"), try Model(original).block(1)["self_attn.q_proj"])
      let blocks = BlockQuantizedMatrix(source.weight.dense(), as: .q8_0).blocks
      #expect(q.bytes == blocks.rows(inOrder: (0..<4).flatMap { h in [0, 4, 1, 5, 2, 6, 3, 7].map { 8 * h + $0 } }).bytes)
      // What the frequencies are divided by.
      let rotary = try #require(try Model(original).description.blocks[0].attention?.rotary)
      let factors = zip(
        RotaryDescription(base: rotary.base).inverseFrequencies(headSize: 8), rotary.inverseFrequencies(headSize: 8)
      ).map { $0 / $1 }
      for (found, factor) in zip(try file.tensor("rope_freqs.weight").floats(), factors) { #expect(abs(found / factor - 1) < 1e-5) }
    }
  }

  @Test func aDirectoryHoldsOneFileAndAFileOpensToo() async throws {
    let original = try TinyModel.checkpoint(dtype: .bfloat16)
    try await withGGUF(try Model(original).parts(), original.config) { checkpoint in
      let file = checkpoint.directory.appending(path: "model.gguf")
      #expect(try Model(Checkpoint(file)).description == Model(checkpoint).description)
      #expect(checkpoint.companions().files.isEmpty)
      try FileManager.default.copyItem(at: file, to: checkpoint.directory.appending(path: "other.gguf"))
      #expect(throws: CheckpointError.self) { try Checkpoint(checkpoint.directory) }
      #expect(throws: CheckpointError.self) { try Checkpoint(checkpoint.directory.appending(path: "config.json")) }
    }
  }

  @Test func integerCodesBecomeBlocksWhereThatIsExact() throws {
    let weight = Matrix.random(rows: 6, columns: 128, key: "codes", scale: 0.02)
    func encoded(_ scheme: QuantizationScheme) throws -> (NamedTensor, QuantizedMatrix) {
      let quantized = RoundToNearest.quantize(weight, scheme: scheme)
      let tensors = try GGUFFormat().encode(Linear(weight: quantized), module: "model.layers.0.mlp.up_proj")
      #expect(tensors.count == 1 && tensors[0].name == "model.layers.0.mlp.up_proj.weight")
      return (tensors[0], quantized)
    }
    func half(_ bits: Int, _ size: Int, _ zero: QuantizationScheme.ZeroPoint = .none) -> QuantizationScheme {
      QuantizationScheme(bits: bits, granularity: .group(size), zeroPoint: zero, scaleType: .float16)
    }
    for (scheme, type) in [
      (half(4, 32), BlockType.q4_0), (half(4, 128), .q4_0), (half(5, 64), .q5_0), (half(8, 32), .q8_0), (half(4, 32, .real), .q4_1),
      (half(5, 32, .real), .q5_1), (.mx(bits: 4), .mxfp4),
    ] {
      let (named, quantized) = try encoded(scheme)
      #expect(named.blocks == type && named.info.shape == [6, 128])
      let blocks = BlockQuantizedMatrix(type, blocks: named.tensor)
      #expect(blocks.dense() == quantized.dense(), "\(scheme)")
    }
    for scheme in [half(4, 16), half(3, 32), half(8, 32, .real), QuantizationScheme(bits: 8, grid: .float, granularity: .channel), .nvfp4] {
      let error = #expect(throws: FormatError.self) { try encoded(scheme) }
      #expect("\(error!)".contains("the pass ggml"), "\(error!)")
    }
  }

  @Test func aScaleNoHalfCanHoldIsRefused() throws {
    let weight = Matrix.random(rows: 2, columns: 32, key: "tiny", scale: 1e-9)
    let quantized = RoundToNearest.quantize(weight, scheme: QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true))
    let error = #expect(throws: FormatError.self) { try GGUFFormat().encode(Linear(weight: quantized), module: "m") }
    #expect("\(error!)".contains("a half cannot hold"))
  }

  @Test func whatLlamaCppWouldComputeOtherwiseIsRefused() throws {
    func reason(_ json: String) -> String? {
      do {
        _ = try GGUFFormat().configuration(of: [], in: ModelConfig(text: json.utf8, path: "/nonexistent/config.json"))
        return nil
      } catch { return "\(error)" }
    }
    #expect(reason(llama) == nil)
    #expect(reason(llama.replacing("\"bos_token_id\":1", with: "\"hidden_act\":\"gelu_new\""))?.contains("silu") == true)
    #expect(reason(llama.replacing("\"llama\"", with: "\"opt\""))?.contains("layout of opt") == true)
    let fromGGUF = llama.replacing("\"bos_token_id\":1", with: "\"quantization_config\":{\"quant_method\":\"gguf\"}")
    #expect(reason(fromGGUF)?.contains("tokenizer.json") == true)
  }

  /// Metadata that is not that of a model this package computes.
  @Test func foreignMetadataIsRefused() async throws {
    let original = try TinyModel.checkpoint(dtype: .bfloat16)
    try await withGGUF(try Model(original).parts(), original.config) { checkpoint in
      let file = checkpoint.directory.appending(path: "model.gguf")
      let (own, bytes) = (try GGUFFile(file), try Data(contentsOf: file))
      func reason(_ key: String, _ value: GGUFValue?) throws -> String? {
        var metadata = own.metadata
        metadata[key] = value
        let header = GGUFHeader(layingOut: own.header.entries, metadata: metadata)
        try (Data(header.serialized()) + bytes[own.header.dataStart...]).write(to: file)
        do { _ = try Model(try Checkpoint(file)) } catch { return "\(error)" }
        return nil
      }
      #expect(try reason("general.name", .string("x")) == nil)
      for key in [
        "general.architecture", "llama.block_count", "llama.embedding_length", "llama.attention.head_count", "llama.context_length",
        "llama.attention.layer_norm_rms_epsilon", "llama.feed_forward_length",
      ] { #expect(try reason(key, nil)?.contains("\"\(key)\" is missing") == true, "\(key)") }
      #expect(try reason("general.architecture", .string("gemma3"))?.contains("gemma3") == true)
      #expect(try reason("llama.block_count", .string("two"))?.contains("whole number") == true)
      #expect(try reason("llama.attention.head_count", .uint32(0)) != nil)
      #expect(try reason("llama.attention.head_count", .uint32(3)) != nil)
      #expect(try reason("llama.attention.head_count_kv", .integers([2, 1]))?.contains("layers that differ") == true)
      #expect(try reason("llama.attention.head_count_kv", .integers([2, 2])) == nil)
      #expect(try reason("llama.block_count", .uint32(3))?.contains("model.layers.2.") == true)
      #expect(try reason("llama.block_count", .uint32(2_000_000_000))?.contains("2000000000 blocks") == true)
      #expect(try reason("llama.rope.dimension_count", .uint32(4))?.contains("whole heads") == true)
      #expect(try reason("llama.rope.scaling.type", .string("longrope"))?.contains("longrope") == true)
      #expect(try reason("llama.expert_count", .uint32(8))?.contains("experts") == true)
      #expect(try reason("llama.attention.value_length", .uint32(4)) != nil)
    }
  }
}
