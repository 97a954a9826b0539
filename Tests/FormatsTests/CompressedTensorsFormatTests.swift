import CompressKit
import Foundation
import TestSupport
import Testing

private func encoded(_ weight: any Weight) throws -> [String: Tensor] {
  let tensors = try CompressedTensorsFormat().encode(Linear(weight: weight, storageType: .float32), module: "m")
  return Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0.tensor) })
}

/// Bytes that compressed-tensors 0.19 and 0.20 write.
struct CompressedTensorsGoldenTests {
  private static let weights: [Float] = [
    0.1, -0.2, 0.3, -0.4, 0.5, -0.6, 0.7, -0.8, 1, 2, 3, 4, 5, 6, 7, 8, -0.01, 0.02, 0.03, 0.04, -0.05, 0.06, 0.07, 0.15, 0, 0, 0, 0, 0, 0,
    0, 0,
  ]

  struct Case: Sendable, CustomTestStringConvertible {
    var name: String, bits: Int, symmetric: Bool, type: DType, scale: String, packed: String, zeros: [Int]?
    var testDescription: String { name }
  }

  @Test(arguments: [
    Case(
      name: "int4 sym", bits: 4, symmetric: true, type: .float32, scale: "0e74da3d 8988883f 0bd7a33c 00000034",
      packed: "694b2d0f a9cbedff 98a9b6fb 88888888", zeros: nil),
    Case(
      name: "int4 asym", bits: 4, symmetric: false, type: .float32, scale: "cdcccc3d 8988083f 0e745a3c 00000034",
      packed: "694b2d0f 4276b9fd 637680f9 88888888", zeros: [8, 0, 4, 8]),
    // One nibble is not theirs: they round -0.80078125 / 0.10693359 = -7.489 to BF16, -7.5, before they round it to a code; theirs is 0f.
    Case(
      name: "int4 sym BF16", bits: 4, symmetric: true, type: .bfloat16, scale: "db3d 893f a43c 003c",
      packed: "694b2d1f a9cbedff 98aab6fb 88888888",
      zeros: nil),
    Case(
      name: "int8 sym", bits: 8, symmetric: true, type: .float32, scale: "679acd3b 8180803d ce339a3a 00000034",
      packed: "9060b040d020f00090a0b0c0d0e0f0ff 789199a256b3bbff8080808080808080", zeros: nil),
  ])
  func roundingToNearestGivesTheirBytes(_ golden: Case) throws {
    let weight = Matrix(rows: 2, columns: 16, elements: Self.weights.map(golden.type.rounded))
    let scheme = QuantizationScheme(bits: golden.bits, granularity: .group(8), symmetric: golden.symmetric, scaleType: golden.type)
    let quantized = RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
    let tensors = try encoded(quantized)
    #expect(
      Set(tensors.keys)
        == Set(["m.weight_packed", "m.weight_scale", "m.weight_shape"] + (golden.zeros == nil ? [] : ["m.weight_zero_point"])))
    #expect(try Array(#require(tensors["m.weight_scale"]).bytes) == bytes(golden.scale))
    #expect(tensors["m.weight_scale"]?.dtype == golden.type)
    #expect(tensors["m.weight_scale"]?.shape == [2, 2])
    let packed = try #require(tensors["m.weight_packed"])
    #expect(Array(packed.bytes) == bytes(golden.packed))
    #expect(packed.shape == [2, golden.bits / 2])
    #expect(packed.dtype == .int32)
    #expect(try Array(#require(tensors["m.weight_shape"]).bytes) == bytes("0200000000000000 1000000000000000"))
    #expect(tensors["m.weight_shape"]?.dtype == .int64)
    if let zeros = golden.zeros {
      #expect(quantized.zeroPoints?.elements == zeros.map { Float($0) })
      #expect(tensors["m.weight_zero_point"]?.shape == [1, 2])
      // Two rows fill the low byte of a word: row 0 in its low half.
      let words = [zeros[0] | zeros[2] << 4, zeros[1] | zeros[3] << 4].map { Int32($0) }
      #expect(tensors["m.weight_zero_point"]?.integers(Int32.self) == words)
    }
  }

  @Test(arguments: [
    (4, Array(-8...7), "1032547698badcfe"), (2, [-2, -1, 0, 1, -2, -1, 0, 1, -2, -1, 0, 1], "e4e4e400"),
    (3, [-4, 1, -2, 3, 0, -3, 2, -1, -4, 1, -2, 3], "a8ce78a80e000000"),
    (5, [-16, -11, -6, -1, 4, 9, 14, -13, -8, -3, 2, 7], "a0a847b31fa8c90b"),
    (6, [-32, -27, -22, -17, -12, -7, -2, 3, 8, 13, 18, 23], "40a13c54e68d682bdf000000"),
    (7, Array(stride(from: -64, through: -9, by: 5)), "8082e241c97846a896ec0600"),
    (8, Array(stride(from: -128, through: -73, by: 5)), "00050a0f14191e23282d3237"),
  ])
  func packingIsTheirs(_ bits: Int, _ values: [Int], _ hex: String) throws {
    let scheme = QuantizationScheme(bits: bits, granularity: .channel, symmetric: true, scaleType: .float32)
    let matrix = QuantizedMatrix(
      scheme: scheme, rows: 1, columns: values.count, codes: values.map { UInt8($0 + 1 << (bits - 1)) },
      scales: Matrix(rows: 1, columns: 1, repeating: 1), zeroPoints: nil)
    #expect(try Array(#require(try encoded(matrix)["m.weight_packed"]).bytes) == bytes(hex))
    #expect(matrix.dense().elements == values.map { Float($0) })
  }

  @Test func zeroPointsArePackedDownTheColumns() throws {
    let column: [Float] = [-8, -7, 0, 7, 1, 2, 3, 4, -1].map { $0 + 8 }
    func zeros(_ columns: [[Float]]) throws -> Tensor {
      let scheme = QuantizationScheme(bits: 4, granularity: .group(8), symmetric: false, scaleType: .float32)
      let matrix = QuantizedMatrix(
        scheme: scheme, rows: 9, columns: 8 * columns.count, codes: [UInt8](repeating: 0, count: 72 * columns.count),
        scales: Matrix(rows: 9, columns: columns.count, repeating: 1),
        zeroPoints: Matrix(rows: columns.count, columns: 9, elements: columns.flatMap { $0 }).transposed())
      return try #require(try encoded(matrix)["m.weight_zero_point"])
    }
    let one = try zeros([column])
    #expect(one.shape == [2, 1])
    #expect(Array(one.bytes) == bytes("10f8a9cb 07000000"))
    let two = try zeros([column, column.reversed()])
    #expect(two.shape == [2, 2])
    #expect(Array(two.bytes) == bytes("10f8a9cb c7abf918 07000000 00000000"))
  }
}

struct CompressedTensorsFormatTests {
  private let format = CompressedTensorsFormat()

  private func config(_ extra: String = "") throws -> ModelConfig { try ModelConfig(text: "{\"model_type\":\"llama\"\(extra)}".utf8) }

  private func random(_ scheme: QuantizationScheme, rows: Int, columns: Int) -> QuantizedMatrix {
    var random = KeyedRandomness(seed: 2, key: "\(scheme)", "\(rows)")
    let groups = columns / scheme.groupSize(columns: columns)
    let top = UInt8((1 << scheme.bits) - 1)
    let scales = Matrix.random(rows: rows, columns: groups, key: "scales")
    let zeros = Matrix(
      rows: rows, columns: groups, elements: (0..<rows * groups).map { _ in Float(UInt8.random(in: 0...top, using: &random)) })
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: (0..<rows * columns).map { _ in .random(in: 0...top, using: &random) },
      scales: Matrix(rows: rows, columns: groups, elements: scales.elements.map(scheme.scaleType.rounded)),
      zeroPoints: scheme.symmetric ? nil : zeros)
  }

  @Test(arguments: [2, 3, 4, 8], [1, 5, 8, 9, 33])
  func whatIsWrittenReadsBackTheSame(_ bits: Int, _ rows: Int) throws {
    for (granularity, columns) in [
      (QuantizationScheme.Granularity.channel, 7), (.channel, 32), (.group(8), 40), (.group(5), 15), (.group(32), 96),
    ] {
      for symmetric in [true, false] {
        for type in [DType.bfloat16, .float16, .float32] {
          let scheme = QuantizationScheme(bits: bits, granularity: granularity, symmetric: symmetric, scaleType: type)
          let matrix = random(scheme, rows: rows, columns: columns)
          let tensors = try format.encode(Linear(weight: matrix, storageType: .bfloat16), module: "m")
          let json = try format.configuration(of: [StoredModule(name: "m", scheme: scheme)], in: try config())
          let reader = try #require(try format.reader(for: try ModelConfig(text: json.text().utf8)))
          let back = try #require(try reader.weight("m", MemoryTensorSource(tensors)) as? QuantizedMatrix)
          #expect(back == matrix, "\(scheme)")
        }
      }
    }
  }

  @Test func denseWeightsPassThrough() throws {
    let tensor = Tensor([1, 2, 3, 4], shape: [2, 2], dtype: .float16)
    let stored = try format.encode(Linear(weight: StoredWeight(tensor), storageType: .bfloat16), module: "m")
    #expect(stored.map(\.name) == ["m.weight"])
    #expect(stored[0].tensor.dtype == .float16)
    #expect(stored[0].tensor.bytes == tensor.bytes)
    let dense = try format.encode(Linear(weight: Matrix(rows: 1, columns: 2, elements: [1, 0.1]), storageType: .bfloat16), module: "m")
    #expect(dense[0].tensor.floats() == [1, 0.1].map(DType.bfloat16.rounded))
  }

  @Test func scalesOfOtherTypesAreRefused() {
    let scheme = QuantizationScheme(bits: 4, granularity: .channel, symmetric: true, scaleType: .float64)
    let matrix = random(QuantizationScheme(bits: 4, granularity: .channel, symmetric: true, scaleType: .float32), rows: 1, columns: 8)
    let odd = QuantizedMatrix(scheme: scheme, rows: 1, columns: 8, codes: matrix.codes, scales: matrix.scales, zeroPoints: nil)
    #expect(throws: FormatError.cannotStore(module: "m", format: "compressed-tensors", reason: "scales of F64")) {
      try format.encode(Linear(weight: odd, storageType: .bfloat16), module: "m")
    }
  }

  // MARK: The configuration

  private static let int4 = QuantizationScheme(bits: 4, granularity: .group(128), symmetric: true)
  private static let int8 = QuantizationScheme(bits: 8, granularity: .channel, symmetric: false)

  private func quantization(_ modules: [StoredModule], _ extra: String = "") throws -> JSON {
    try #require(try format.configuration(of: modules, in: try config(extra))["quantization_config"])
  }

  @Test func oneSchemeTargetsTheClass() throws {
    let modules = [
      StoredModule(name: "model.embed_tokens", scheme: nil, isEmbedding: true), StoredModule(name: "a.q_proj", scheme: Self.int4),
      StoredModule(name: "a.k_proj", scheme: Self.int4), StoredModule(name: "lm_head", scheme: nil),
    ]
    let json = try quantization(modules)
    #expect(json["quant_method"]?.string == "compressed-tensors")
    #expect(json["format"]?.string == "pack-quantized")
    #expect(json["quantization_status"]?.string == "compressed")
    #expect(json["ignore"]?.text() == "[\"lm_head\"]")
    #expect(json["config_groups"]?.members?.map(\.key) == ["group_0"])
    let group = try #require(json["config_groups"]?["group_0"])
    #expect(group["targets"]?.text() == "[\"Linear\"]")
    #expect(group["input_activations"] == .null)
    let weights = try #require(group["weights"])
    #expect(weights["num_bits"]?.integer == 4)
    #expect(weights["group_size"]?.integer == 128)
    #expect(weights["strategy"]?.string == "group")
    #expect(weights["symmetric"]?.bool == true)
    #expect(weights["type"]?.string == "int")
    #expect(weights["dynamic"]?.bool == false)
  }

  @Test func aTiedHeadIsIgnoredToo() throws {
    let modules = [
      StoredModule(name: "model.embed_tokens", scheme: nil, isEmbedding: true), StoredModule(name: "a.q_proj", scheme: Self.int4),
    ]
    #expect(try quantization(modules, ",\"tie_word_embeddings\":true")["ignore"]?.text() == "[\"lm_head\"]")
    #expect(try quantization(modules, ",\"tie_word_embeddings\":false")["ignore"]?.text() == "[]")
  }

  @Test func aSecondSchemeNamesItsModules() throws {
    let modules = [
      StoredModule(name: "model.embed_tokens", scheme: Self.int8, isEmbedding: true), StoredModule(name: "a.q_proj", scheme: Self.int4),
      StoredModule(name: "a.k_proj", scheme: Self.int4), StoredModule(name: "a.down_proj", scheme: Self.int8),
      StoredModule(name: "a.gate", scheme: nil), StoredModule(name: "lm_head", scheme: nil),
    ]
    let json = try quantization(modules)
    let groups = try #require(json["config_groups"]?.members).map(\.value)
    #expect(groups.map { $0["targets"]!.text() } == ["[\"model.embed_tokens\",\"a.down_proj\"]", "[\"Linear\"]"])
    #expect(groups[0]["weights"]?["strategy"]?.string == "channel")
    #expect(groups[0]["weights"]?["group_size"] == .null)
    #expect(groups[0]["weights"]?["symmetric"]?.bool == false)
    #expect(groups[1]["weights"]?["num_bits"]?.integer == 4)
    #expect(json["ignore"]?.text() == "[\"a.gate\",\"lm_head\"]")
  }

  @Test func anOldConfigurationIsReplacedOrRemoved() throws {
    let old = ",\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":3},\"vocab_size\":7"
    let json = try format.configuration(of: [StoredModule(name: "a", scheme: Self.int4)], in: try config(old))
    #expect(json["quantization_config"]?["quant_method"]?.string == "compressed-tensors")
    #expect(json["quantization_config"]?["bits"] == nil)
    #expect(json["vocab_size"]?.integer == 7)
    #expect(json.members?.map(\.key) == ["model_type", "vocab_size", "quantization_config"])
    let dense = try format.configuration(of: [StoredModule(name: "a", scheme: nil)], in: try config(old))
    #expect(dense.members?.map(\.key) == ["model_type", "vocab_size"])
  }

  // MARK: Reading

  private func reader(_ weights: String, targets: String = "[\"Linear\"]") throws -> WeightReader? {
    let group = "{\"targets\":\(targets),\"weights\":\(weights)}"
    return try format.reader(
      for: try config(",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":{\"group_0\":\(group)}}"))
  }

  @Test(arguments: [
    ("{\"num_bits\":4,\"strategy\":\"block\",\"group_size\":null}", "block_structure"),
    ("{\"num_bits\":4,\"strategy\":\"nonsense\"}", "strategy"), ("{\"num_bits\":4,\"type\":\"real\",\"strategy\":\"channel\"}", "type"),
    ("{\"num_bits\":6,\"type\":\"float\",\"strategy\":\"channel\"}", "num_bits"),
    ("{\"num_bits\":4,\"type\":\"float\",\"strategy\":\"channel\"}", "strategy"),
    ("{\"num_bits\":16,\"strategy\":\"channel\"}", "num_bits"),
    ("{\"num_bits\":1,\"strategy\":\"channel\"}", "num_bits"), ("{\"num_bits\":4,\"strategy\":\"group\"}", "group_size"),
    ("{\"num_bits\":4,\"strategy\":\"group\",\"group_size\":-1}", "group_size"),
  ])
  func schemesThatAreNotReadAreRefused(_ weights: String, _ key: String) {
    do throws(any Error) {
      _ = try reader(weights)
      Issue.record("accepted")
    } catch {
      guard case CheckpointError.unsupportedOption(let option, _, _) = error else {
        Issue.record("\(error)")
        return
      }
      #expect(option == "config_groups.group_0.weights.\(key)")
    }
  }

  @Test func strategiesMayBeImplied() throws {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(8), symmetric: true)
    let matrix = random(scheme, rows: 3, columns: 16)
    let source = MemoryTensorSource(try format.encode(Linear(weight: matrix, storageType: .bfloat16), module: "m"))
    let read = try #require(try reader("{\"num_bits\":4,\"group_size\":8,\"type\":\"INT\"}"))
    #expect(try read.weight("m", source) as? QuantizedMatrix == matrix)
  }

  @Test func namesWinOverExpressionsAndThoseOverTheClass() throws {
    func group(_ bits: Int, _ target: String) -> String {
      "{\"targets\":[\"\(target)\"],\"weights\":{\"num_bits\":\(bits),\"strategy\":\"channel\"}}"
    }
    let groups = "{\"x\":\(group(2, "Linear")),\"y\":\(group(4, "re:.*down_proj")),\"z\":\(group(8, "a.down_proj"))}"
    let read = try #require(
      try format.reader(for: try config(",\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"config_groups\":\(groups)}")))
    for (module, bits) in [("a.down_proj", 8), ("b.down_proj", 4), ("b.up_proj", 2)] {
      let matrix = random(QuantizationScheme(bits: bits, granularity: .channel, symmetric: true), rows: 3, columns: 16)
      let source = MemoryTensorSource(try format.encode(Linear(weight: matrix, storageType: .bfloat16), module: module))
      #expect(try read.weight(module, source) as? QuantizedMatrix == matrix, "\(module)")
    }
  }

  @Test func tensorsThatDoNotFitAreRefused() throws {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(8), symmetric: false)
    let tensors = try format.encode(Linear(weight: random(scheme, rows: 9, columns: 16), storageType: .bfloat16), module: "m")
    let read = try #require(try reader("{\"num_bits\":4,\"strategy\":\"group\",\"group_size\":8,\"symmetric\":false}"))
    func error(_ change: (inout [String: Tensor]) -> Void) -> CheckpointError? {
      var all = Dictionary(uniqueKeysWithValues: tensors.map { ($0.name, $0.tensor) })
      change(&all)
      do throws(CheckpointError) {
        _ = try read.weight("m", MemoryTensorSource(all.map { NamedTensor(name: $0.key, tensor: $0.value) }))
        return nil
      } catch { return error }
    }
    func integers(_ shape: [Int]) -> Tensor {
      Tensor(dtype: .int32, shape: shape, integers: [Int32](repeating: 0, count: shape.reduce(1, *)))
    }
    func shape(_ values: [Int64]) -> Tensor { Tensor(dtype: .int64, shape: [values.count], integers: values) }
    #expect(error { _ in } == nil)
    #expect(error { $0["m.weight_shape"] = nil } == .missingTensor(name: "m.weight_shape"))
    #expect(error { $0["m.weight_scale"] = nil } == .missingTensor(name: "m.weight_scale"))
    #expect(error { $0["m.weight_zero_point"] = nil } == .missingTensor(name: "m.weight_zero_point"))
    for bad in [integers([9, 3]), integers([8, 2]), integers([18])] {
      guard case .wrongShape("m.weight_packed", _, bad.shape) = error({ $0["m.weight_packed"] = bad }) else {
        Issue.record("packed \(bad.shape)")
        continue
      }
    }
    #expect(
      error { $0["m.weight_zero_point"] = integers([1, 2]) }
        == .wrongShape(tensor: "m.weight_zero_point", expected: [2, 2], found: [1, 2]))
    let scale = Tensor([Float](repeating: 1, count: 9), shape: [9, 1], dtype: .bfloat16)
    #expect(error { $0["m.weight_scale"] = scale } == .wrongShape(tensor: "m.weight_scale", expected: [9, 2], found: [9, 1]))
    for values: [Int64] in [[9], [9, 16, 1], [0, 16], [9, -16], [16, 9]] {
      #expect(error { $0["m.weight_shape"] = shape(values) } != nil, "\(values)")
    }
    guard case .unusableType("m.weight_shape", "I32", _) = error({ $0["m.weight_shape"] = integers([2]) }) else {
      Issue.record("a shape of int32 was read")
      return
    }
    #expect(error { $0["m.weight_packed"] = nil } == .missingTensor(name: "m.weight"))
    #expect(!read.holds("other", MemoryTensorSource(tensors)))
  }

  @Test func aShapeThatOverflowsIsRefused() throws {
    let read = try #require(try reader("{\"num_bits\":4,\"strategy\":\"channel\"}"))
    let tensors = [
      NamedTensor(name: "m.weight_shape", tensor: Tensor(dtype: .int64, shape: [2], integers: [Int64(1), .max])),
      NamedTensor(name: "m.weight_packed", tensor: Tensor(dtype: .int32, shape: [1, 1], integers: [Int32(0)])),
      NamedTensor(name: "m.weight_scale", tensor: Tensor([1], shape: [1, 1], dtype: .bfloat16)),
    ]
    #expect(throws: CheckpointError.self) { try read.weight("m", MemoryTensorSource(tensors)) }
  }
}
