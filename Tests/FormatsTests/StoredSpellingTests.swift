import CompressKit
import Foundation
import TestSupport
import Testing

/// Checkpoints whose names are not quite those of their family.
struct StoredSpellingTests {
  private func renamed(_ json: String, _ rename: (String) -> String?) throws -> Checkpoint {
    let config = try ModelConfig(text: json.utf8)
    let tensors = try TinyModel.tensors(config).compactMap { named in rename(named.name).map { NamedTensor(name: $0, tensor: named.tensor) }
    }
    return Checkpoint(directory: URL(filePath: "/nonexistent"), config: config, tensors: MemoryTensorSource(tensors))
  }

  private let tokens = TinyModel.sequences(1, length: 20)[0]

  /// As llm-compressor 0.14 saves the experts it has taken apart.
  private static func asLLMCompressor(_ name: String) -> String {
    guard name.contains(".experts.") else { return name }
    return name.replacing(".w1.", with: ".gate_proj.").replacing(".w3.", with: ".up_proj.").replacing(".w2.", with: ".down_proj.")
  }

  @Test func expertsOfMixtralHaveTwoSpellings() async throws {
    let json = try Families.configuration("mixtral")
    let checkpoint = try renamed(json, Self.asLLMCompressor)
    let model = try Model(checkpoint)
    #expect(model.remarks.count == 1 && model.remarks[0].contains("gate_proj (here w1)"), "\(model.remarks)")
    #expect(model.carried.isEmpty)
    #expect(try model.outputs(of: tokens) == TinyModel.model(json).outputs(of: tokens))
    // What is written has the family's names.
    try await Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      _ = try await Converter(to: PlainFormat()).run(checkpoint, to: output)
      #expect(Set(try Checkpoint(output).tensors.names) == Set(try TinyModel.checkpoint(json).tensors.names))
    }
  }

  @Test func theirConfigurationGoesByTheirNames() throws {
    let json = try Families.configuration("mixtral")
    let original = try TinyModel.model(json)
    let scheme = QuantizationScheme(bits: 4, granularity: .group(16))
    var tensors: [NamedTensor] = []
    var expected: [String: Matrix] = [:]
    for place in original.places {
      var block = try original.part(place)
      for name in block.linears.keys where name.rawValue.contains(".experts.") {
        let quantized = RoundToNearest.quantize(block[name].weight.dense(), scheme: scheme)
        expected[block.fullName(of: name)] = quantized.dense()
        block[name].weight = quantized
      }
      tensors += try CompressedTensorsFormat().encode(block)
    }
    var config = try ModelConfig(text: json.utf8)
    config.json["quantization_config"] = try JSON(
      parsing: Data(
        """
        {"quant_method":"compressed-tensors","format":"pack-quantized","ignore":["lm_head"],"config_groups":{"group_0":{
         "targets":["re:.*experts.*(gate|up|down)_proj"],"weights":{"num_bits":4,"type":"int","strategy":"group","group_size":16}}}}
        """.utf8))
    let stored = tensors.map { NamedTensor(name: Self.asLLMCompressor($0.name), tensor: $0.tensor) }
    let model = try Model(Checkpoint(directory: URL(filePath: "/nonexistent"), config: config, tensors: MemoryTensorSource(stored)))
    #expect(model.carried.isEmpty && !expected.isEmpty)
    for place in model.places {
      let block = try model.part(place)
      for name in block.linears.keys {
        if let weight = expected[block.fullName(of: name)] { #expect(block[name].weight.dense() == weight, "\(name.rawValue)") }
      }
    }
  }

  private static let tied = TinyModel.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true")

  @Test func aTiedMatrixMayLieUnderTheHeadsName() throws {
    // `save_model` of safetensors keeps one name of what shares its memory.
    let checkpoint = try renamed(Self.tied) { $0 == "model.embed_tokens.weight" ? "lm_head.weight" : $0 }
    let model = try Model(checkpoint)
    #expect(model.description.isTied && model.carried.isEmpty && model.remarks.count == 1)
    let embedding = try model.embedding().linears.values.first?.weight.dense()
    #expect(embedding == (try checkpoint.tensors.tensor("lm_head.weight")).matrix)
    // An untied model without embedding is still damaged.
    let untied = try renamed(TinyModel.config) { $0 == "model.embed_tokens.weight" ? nil : $0 }
    #expect(throws: CheckpointError.missingTensor(name: "model.embed_tokens.weight")) { try Model(untied) }
  }

  @Test func aPackedHeadIsNotDroppedForATie() async throws {
    var config = try ModelConfig(text: Self.tied.utf8)
    config.json["quantization"] = try JSON(parsing: Data("{\"group_size\":32,\"bits\":4}".utf8))
    let head = RoundToNearest.quantize(
      Matrix.random(rows: 64, columns: 32, key: "head"), scheme: QuantizationScheme(bits: 4, granularity: .group(32), zeroPoint: .real))
    var tensors = try TinyModel.tensors(config)
    tensors += try MLXFormat().encode(Linear(weight: head), module: "lm_head")
    let checkpoint = Checkpoint(directory: URL(filePath: "/nonexistent"), config: config, tensors: MemoryTensorSource(tensors))
    let model = try Model(checkpoint)
    #expect(!model.description.isTied && model.remarks.first?.contains("read as untied") == true)
    #expect(try model.head().linears.values.first?.weight.dense() == head.dense())
    // And what is written of it says so.
    try await Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      _ = try await Converter(to: MLXFormat()).run(checkpoint, to: output)
      #expect(try Checkpoint(output).config.json["tie_word_embeddings"]?.bool == false)
      #expect(try Model(Checkpoint(output)).outputs(of: tokens) == model.outputs(of: tokens))
    }
  }

  @Test func aPackedTableUnderBothNamesIsTied() throws {
    var config = try ModelConfig(text: Self.tied.utf8)
    config.json["quantization"] = try JSON(parsing: Data("{\"group_size\":32,\"bits\":4}".utf8))
    let table = RoundToNearest.quantize(
      Matrix.random(rows: 64, columns: 32, key: "table"), scheme: QuantizationScheme(bits: 4, granularity: .group(32), zeroPoint: .real))
    var tensors = try TinyModel.tensors(config).filter { !$0.name.contains("embed_tokens") }
    for module in ["model.embed_tokens", "lm_head"] { tensors += try MLXFormat().encode(Linear(weight: table), module: module) }
    let model = try Model(Checkpoint(directory: URL(filePath: "/nonexistent"), config: config, tensors: MemoryTensorSource(tensors)))
    #expect(model.description.isTied && model.remarks.isEmpty && model.carried.isEmpty)
  }
}

extension Tensor {
  fileprivate var matrix: Matrix { Matrix(rows: shape[0], columns: shape[1], elements: floats()) }
}
