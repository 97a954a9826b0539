import CompressKit
import Foundation
import TestSupport
import Testing

private let row: [Float] = [0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 1, 2, 3, 4, 5, 6, 7, 8]
private let second: [Float] = [-0.01, 0.02, 0.03, 0.04, -0.05, 0.06, 0.07, 0.15, 0, 0, 0, 0, 0, 0, 0, 0]

/// Bytes that compressed-tensors 0.19 and 0.20 write for quantized inputs and float grids.
struct CompressedTensorsFloatTests {
  struct Golden: Sendable, CustomTestStringConvertible {
    var name: String
    var rows: [[Float]]
    var scheme: QuantizationScheme
    var input: InputQuantization?
    var tensors: [String: (DType, [Int], String)]
    var testDescription: String { name }
  }

  static func fp8(_ granularity: QuantizationScheme.Granularity, _ type: DType = .float32) -> QuantizationScheme {
    QuantizationScheme(bits: 8, grid: .float, granularity: granularity, scaleType: type)
  }

  static let cases = [
    Golden(
      name: "int8 channel", rows: [row, second], scheme: QuantizationScheme(bits: 8, granularity: .channel, scaleType: .float32),
      input: .int(8),
      tensors: [
        "weight": (.int8, [2, 16], "02fd05fa08f60bf3102030405060707f f8111922d6333b7f0000000000000000"),
        "weight_scale": (.float32, [2, 1], "8180803d ce339a3a"),
      ]),
    Golden(
      name: "fp8 tensor", rows: [row, second], scheme: fp8(.tensor), input: .fp8,
      tensors: [
        "weight": (.float8E4M3, [2, 16], "4bd358db5ee062e3666e7276797a7c7e b1393d41c34548500000000000000000"),
        "weight_scale": (.float32, [1], "2549923c"),
      ]),
    Golden(
      name: "fp8 block", rows: [row, second], scheme: fp8(.block(rows: 2, columns: 8)), input: .fp8Group,
      tensors: [
        "weight": (.float8E4M3, [2, 16], "66ee72f679fa7cfe666e7276797a7c7e cb53585bde60626a0000000000000000"),
        "weight_scale": (.float32, [1, 2], "a10eea3a 2549923c"),
      ]),
    Golden(
      name: "nvfp4", rows: [row.map { $0 / 8 }, row.map { $0 * 3 }], scheme: .nvfp4, input: nil,
      tensors: [
        "weight_packed": (.uint8, [2, 8], "8090919132546677 8090919132546677"),
        "weight_scale": (.float8E4M3, [2, 1], "59 7e"), "weight_global_scale": (.float32, [1], "0000e042"),
      ]),
    Golden(
      name: "mxfp4", rows: [row + second], scheme: .mx(bits: 4), input: nil,
      tensors: ["weight_packed": (.uint8, [1, 16], "80809091214354660800080000000000"), "weight_scale": (.uint8, [1, 1], "80")]),
    Golden(
      name: "mxfp8", rows: [row + second], scheme: .mx(bits: 8), input: .mx(bits: 8),
      tensors: [
        "weight": (.float8E4M3, [1, 32], "45cd52d558da5bdd60686c7072747678 aa32373abd3f414a0000000000000000"),
        "weight_scale": (.uint8, [1, 1], "7a"),
      ]),
  ]

  @Test(arguments: cases) func roundingToNearestGivesTheirBytes(_ golden: Golden) throws {
    let weight = Matrix(rows: golden.rows.count, columns: golden.rows[0].count, elements: golden.rows.flatMap { $0 })
    let quantized = RoundToNearest.quantize(weight, scheme: golden.scheme, scales: .minmax)
    let linear = Linear(weight: quantized, storageType: .float32, inputQuantization: golden.input)
    let tensors = try CompressedTensorsFormat().encode(linear, module: "m")
    #expect(Set(tensors.map(\.name)) == Set(golden.tensors.keys.map { "m." + $0 }))
    for tensor in tensors {
      let expected = try #require(golden.tensors[String(tensor.name.dropFirst(2))])
      #expect(tensor.tensor.dtype == expected.0 && tensor.tensor.shape == expected.1, "\(tensor.name)")
      #expect(Array(tensor.tensor.bytes) == bytes(expected.2), "\(tensor.name)")
    }
  }

  @Test(arguments: cases.indices) func whatIsWrittenIsReadBack(_ index: Int) throws {
    let golden = Self.cases[index]
    let format = CompressedTensorsFormat()
    let weight = Matrix.random(rows: 6, columns: 32, key: golden.name)
    let quantized = RoundToNearest.quantize(weight, scheme: golden.scheme)
    for input in [golden.input, .fp8Tensor.calibrated(amax: 3), .nvfp4.calibrated(amax: 3)] {
      // Weight-only layouts exist for some of them only; all can say how their input is quantized.
      let linear = Linear(weight: quantized, storageType: .float32, inputQuantization: input)
      let tensors = try format.encode(linear, module: "m")
      let modules = [StoredModule(name: "m", scheme: golden.scheme, input: input)]
      let json = try format.configuration(of: modules, in: try ModelConfig(text: "{\"model_type\":\"llama\"}".utf8))
      let reader = try #require(try format.reader(for: try ModelConfig(text: json.text().utf8)))
      let source = MemoryTensorSource(tensors)
      #expect(reader.holds("m", source))
      let back = try #require(try reader.weight("m", source) as? QuantizedMatrix)
      #expect(back.dense() == quantized.dense() && back.codes == quantized.codes && back.scales == quantized.scales)
      #expect(try reader.input("m", source) == input)
    }
  }

  @Test func everyPresetIsSpeltAndReadBack() throws {
    let format = CompressedTensorsFormat()
    for (name, preset) in QuantizationPreset.all.sorted(by: { $0.key < $1.key }) {
      let json = try format.configuration(
        of: [StoredModule(name: "m", scheme: preset.weights, input: preset.input)],
        in: try ModelConfig(text: "{\"model_type\":\"llama\"}".utf8))
      let group = try #require(json["quantization_config"]?["config_groups"]?["group_0"])
      #expect(group["format"]?.string == json["quantization_config"]?["format"]?.string, "\(name)")
      let short = "{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"\(name)\":[\"Linear\"]}}"
      for text in [json["quantization_config"]!.text(), short] {
        let config = try ModelConfig(text: "{\"model_type\":\"llama\",\"quantization_config\":\(text)}".utf8)
        let reader = try #require(try format.reader(for: config))
        let quantized = RoundToNearest.quantize(Matrix.random(rows: 4, columns: 128, key: name), scheme: preset.weights)
        let input = preset.input?.calibrated(amax: 2)
        let source = MemoryTensorSource(
          try format.encode(Linear(weight: quantized, storageType: .bfloat16, inputQuantization: input), module: "m"))
        #expect(try (reader.weight("m", source) as? QuantizedMatrix)?.dense() == quantized.dense(), "\(name)")
        #expect(try reader.input("m", source)?.granularity == preset.input?.granularity, "\(name)")
      }
    }
  }

  @Test func cachesHaveScalesOfTheirOwn() async throws {
    let format = CompressedTensorsFormat()
    let model = try TinyModel.model()
    var block = try model.block(0)
    block.cache = CacheQuantization(key: CacheScale(grid: .float, scale: 0.5), value: CacheScale(grid: .float, scale: 0.25))
    let tensors = try format.encode(block)
    #expect(tensors.first { $0.name == "model.layers.0.self_attn.k_scale" }?.tensor.floats() == [0.5])
    let json = try format.configuration(of: format.modules(of: block), in: try ModelConfig(text: "{\"model_type\":\"llama\"}".utf8))
    #expect(json["quantization_config"]?["kv_cache_scheme"]?["type"]?.string == "float")
    let reader = try #require(try format.reader(for: try ModelConfig(text: json.text().utf8)))
    #expect(try reader.cache("model.layers.0.self_attn", MemoryTensorSource(tensors)) == block.cache)
    #expect(throws: FormatError.self) { try PlainFormat().encode(block) }
  }

  @Test func cachesMayHaveScalesByHead() throws {
    let format = CompressedTensorsFormat()
    let model = try TinyModel.model()
    var block = try model.block(0)
    let cache = CacheQuantization(
      key: CacheScale(grid: .float, headScales: [0.5, 2]), value: CacheScale(grid: .float, headScales: [0.25, 1]))
    block.cache = cache
    let tensors = try format.encode(block)
    let stored = try #require(tensors.first { $0.name == "model.layers.0.self_attn.k_scale" }?.tensor)
    #expect(stored.shape == [2, 1, 1] && stored.floats() == [0.5, 2])
    let json = try format.configuration(of: format.modules(of: block), in: try ModelConfig(text: "{\"model_type\":\"llama\"}".utf8))
    #expect(json["quantization_config"]?["kv_cache_scheme"]?["strategy"]?.string == "attn_head")
    let reader = try #require(try format.reader(for: try ModelConfig(text: json.text().utf8)))
    #expect(try reader.cache("model.layers.0.self_attn", MemoryTensorSource(tensors)) == cache)
    // As many as there are heads, or the checkpoint does not fit together.
    var config = try ModelConfig(text: TinyModel.config.utf8)
    config.json["quantization_config"] = json["quantization_config"]
    for (scales, fits) in [([Float(1), 2], true), ([1, 2, 3], false)] {
      let others = (0..<2).flatMap { layer in
        ["k_scale", "v_scale"].map {
          NamedTensor(name: "model.layers.\(layer).self_attn.\($0)", tensor: Tensor(scales, shape: [scales.count, 1, 1], dtype: .bfloat16))
        }
      }
      let source = MemoryTensorSource(try TinyModel.tensors(config) + others)
      let opened = try Model(Checkpoint(directory: URL(filePath: "/nonexistent"), config: config, tensors: source))
      #expect(opened.carried.isEmpty)
      if fits {
        #expect(try opened.block(1).cache?.key.headScales == scales)
      } else {
        #expect(throws: CheckpointError.self) { try opened.block(1) }
      }
    }
  }

  @Test func whatHasNoSpellingIsRefused() {
    let weight = Matrix.random(rows: 4, columns: 32, key: "odd")
    let biased = RoundToNearest.quantize(weight, scheme: QuantizationScheme(granularity: .group(16), zeroPoint: .real))
    let sum = SumOfWeights([biased, weight])
    for weight in [biased, sum] as [any Weight] {
      #expect(throws: FormatError.self) { try CompressedTensorsFormat().encode(Linear(weight: weight), module: "m") }
    }
    let quantized = RoundToNearest.quantize(weight, scheme: QuantizationScheme(granularity: .group(16)))
    #expect(throws: FormatError.self) {
      try CompressedTensorsFormat().encode(Linear(weight: quantized, inputQuantization: .fp8Tensor), module: "m")
    }
    #expect(throws: FormatError.self) { try PlainFormat().encode(Linear(weight: quantized, inputQuantization: .fp8), module: "m") }
  }
}
