import CompressKit
import Foundation
import TestSupport
import Testing

struct ModelFormatTests {
  private func quantized(_ model: Model, _ scheme: QuantizationScheme) throws -> [any ModelPart] {
    try model.places.map { place in
      var block = try model.part(place)
      guard block is Block else { return block }
      for name in block.linears.keys { block[name].weight = RoundToNearest.quantize(block[name].weight.dense(), scheme: scheme) }
      return block
    }
  }

  private func checkpoint(_ blocks: [any ModelPart], _ format: any CheckpointFormat, _ config: ModelConfig) throws -> Checkpoint {
    let tensors = try blocks.flatMap { try format.encode($0) }
    let json = try format.configuration(of: blocks.flatMap { format.modules(of: $0) }, in: config)
    return Checkpoint(
      directory: Places.root, config: try ModelConfig(text: json.text().utf8), tensors: MemoryTensorSource(tensors))
  }

  @Test(arguments: [false, true], [3, 4]) func aQuantizedModelOpensAgain(_ tied: Bool, _ bits: Int) throws {
    let json = TinyModel.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":\(tied)")
      .replacing("\"bos_token_id\":1", with: "\"attention_bias\":true")
    let original = try TinyModel.checkpoint(json, dtype: .bfloat16)
    let scheme = QuantizationScheme(bits: bits, granularity: .group(16), symmetric: false)
    let blocks = try quantized(try Model(original), scheme)
    let packed = try checkpoint(blocks, .compressedTensors, original.config)
    #expect(packed.tensors.info("model.layers.0.mlp.up_proj.weight") == nil)
    #expect(packed.tensors.info("model.layers.0.self_attn.q_proj.bias") == TensorInfo(dtype: .bfloat16, shape: [32]))
    let model = try Model(packed)
    #expect(model.carried.isEmpty)
    for (place, block) in zip(model.places, blocks) {
      let again = try model.part(place)
      #expect(again.norms.weights == block.norms.weights)
      for (name, linear) in block.linears {
        #expect(again[name].weight.dense() == linear.weight.dense())
        #expect(again[name].bias == linear.bias)
        #expect((again[name].weight as? QuantizedMatrix) == (linear.weight as? QuantizedMatrix))
      }
    }
    // The same numbers, stored dense: exactly those that the scheme stands for, rounded to the checkpoint's type.
    let dense = try Model(try checkpoint(blocks, PlainFormat(), original.config))
    for (name, linear) in blocks[1].linears {
      #expect(
        try dense.block(0)[name].weight.dense().elements == linear.weight.dense().elements.map(DType.bfloat16.rounded))
    }
  }

  @Test(arguments: [false, true]) func anEmbeddingIsPackedOnlyWhereTheHeadIsNotTiedToIt(_ tied: Bool) throws {
    let json = TinyModel.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":\(tied)")
    let original = try TinyModel.checkpoint(json)
    let model = try Model(original)
    let format = CompressedTensorsFormat()
    let modules = try model.places.flatMap { place in
      var block = try model.part(place)
      if place == .embedding {
        let scheme = QuantizationScheme(bits: 8, granularity: .channel, scaleType: .float32)
        for name in block.linears.keys { block[name].weight = RoundToNearest.quantize(block[name].weight.dense(), scheme: scheme) }
      }
      return format.modules(of: block)
    }
    if tied {
      let error = #expect(throws: FormatError.self) { try format.configuration(of: modules, in: original.config) }
      #expect(error?.description.contains("model.embed_tokens") == true)
    } else {
      let written = try format.configuration(of: modules, in: original.config)
      #expect(written["quantization_config"]?["config_groups"]?["group_0"]?["targets"] == .array([.string("model.embed_tokens")]))
    }
  }

  @Test func plainModelsKeepEveryByte() throws {
    let original = try TinyModel.checkpoint(dtype: .float16)
    let model = try Model(original)
    let copy = try checkpoint(try model.places.map { try model.part($0) }, PlainFormat(), original.config)
    #expect(Set(copy.tensors.names) == Set(original.tensors.names))
    for name in original.tensors.names { #expect(try copy.tensors.tensor(name).bytes == original.tensors.tensor(name).bytes, "\(name)") }
    #expect(copy.config.json == original.config.json)
  }

  @Test func plainWeightsForgetTheirQuantization() throws {
    let config = try ModelConfig(
      text: "{\"model_type\":\"llama\",\"quantization_config\":{\"quant_method\":\"compressed-tensors\"},\"a\":1}".utf8)
    #expect(try PlainFormat().configuration(of: [], in: config).text() == "{\"model_type\":\"llama\",\"a\":1}")
    #expect(try PlainFormat().reader(for: config) == nil)
  }

  @Test(arguments: ["\"quanto\"", "\"bitnet\"", "null"]) func anUnknownMethodIsRefused(_ method: String) throws {
    let json = TinyModel.config.replacing("\"bos_token_id\":1", with: "\"quantization_config\":{\"quant_method\":\(method)}")
    let checkpoint = try TinyModel.checkpoint(json)
    do throws(CheckpointError) {
      _ = try Model(checkpoint)
      Issue.record("opened")
    } catch {
      guard case .unsupportedOption("quantization_config.quant_method", let value, let reason) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(value == (method == "null" ? "(missing)" : method.filter { $0 != "\"" }))
      #expect(reason.contains("compressed-tensors"))
    }
  }

  @Test func aConfigurationOfNullIsNone() throws {
    let json = TinyModel.config.replacing("\"bos_token_id\":1", with: "\"quantization_config\":null")
    #expect(throws: Never.self) { try Model(try TinyModel.checkpoint(json)) }
  }

  @Test func damagedScalesAreRefused() throws {
    let original = try TinyModel.checkpoint(dtype: .bfloat16)
    let blocks = try quantized(try Model(original), QuantizationScheme(bits: 4, granularity: .channel, symmetric: true))
    let packed = try checkpoint(blocks, .compressedTensors, original.config)
    let name = "model.layers.1.mlp.up_proj.weight_scale"
    let tensors = try packed.tensors.names.map { each in
      let tensor = try packed.tensors.tensor(each)
      guard each == name else { return NamedTensor(name: each, tensor: tensor) }
      let damaged = Tensor([Float](repeating: .nan, count: tensor.elementCount), shape: tensor.shape, dtype: .bfloat16)
      return NamedTensor(name: each, tensor: damaged)
    }
    let model = try Model(Checkpoint(directory: packed.directory, config: packed.config, tensors: MemoryTensorSource(tensors)))
    #expect(throws: CheckpointError.nonfiniteWeight(tensor: "model.layers.1.mlp.up_proj.weight")) { try model.block(1) }
  }

  @Test func formatsAreFoundByName() {
    for name in FormatCatalog.standard.names { #expect(FormatCatalog.standard[name].map { type(of: $0).name } == name) }
    #expect(Set(FormatCatalog.standard.names).count == FormatCatalog.standard.names.count)
    #expect(FormatCatalog.standard["safetensors"] is PlainFormat)
    #expect(FormatCatalog.standard["gguff"] == nil)
  }
}
