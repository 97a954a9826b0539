import CompressKit
import Foundation
import TestSupport
import Testing

/// Weights as other libraries store them, held element by element to what these make of them (`tools/golden/prequantized.py`).
struct PrequantizedTests {
  private struct Fixture: Decodable {
    struct Stored: Decodable {
      var dtype: String
      var shape: [Int]
      var bytes: String
    }
    var shape: [Int]
    var tensors: [String: Stored]
    var dense: String?
    var digest: String?
    var rounded: String?
  }

  private static func text() throws -> Data {
    let url = try #require(Bundle.module.url(forResource: "prequantized", withExtension: "json", subdirectory: "Fixtures"))
    return try Data(contentsOf: url)
  }

  private static func fixture(_ name: String) throws -> (Fixture, JSON) {
    let data = try text()
    let fixture = try #require(try JSONDecoder().decode([String: Fixture].self, from: data)[name], "no case \(name)")
    return (fixture, try #require(try JSON(parsing: data)[name]))
  }

  /// The module `m` of a case, and what is read of it.
  static func read(
    _ format: some CheckpointFormat, _ name: String, without left: String? = nil, config: String = #""model_type":"llama""#
  ) throws -> (weight: any Weight, expected: [Float], source: MemoryTensorSource, reader: WeightReader) {
    let (fixture, json) = try fixture(name)
    let source = MemoryTensorSource(
      try fixture.tensors.filter { $0.key != left }.map { key, value in
        let dtype = try #require(DType(rawValue: value.dtype))
        return NamedTensor(name: "m." + key, tensor: Tensor(dtype: dtype, shape: value.shape, integers: bytes(value.bytes)))
      })
    var text = "{\(config)"
    if let quantization = json["quantization"] { text += ",\"quantization_config\":" + quantization.text() }
    let reader = try #require(try format.reader(for: ModelConfig(text: (text + "}").utf8)))
    #expect(fixture.tensors.keys.allSatisfy { reader.components.contains($0) } && reader.knowsAllComponents)
    #expect(reader.holds("m", source) && !reader.holds("n", source))
    let weight = try reader.weight("m", source)
    #expect([weight.rows, weight.columns] == fixture.shape)
    let expected = bytes(fixture.dense ?? "")
    let floats = Tensor(dtype: .float32, shape: [expected.count / 4], integers: expected).floats()
    if let digest = fixture.digest { #expect(Self.digest(weight.dense().elements) == digest, "\(name)") }
    return (weight, floats, source, reader)
  }

  /// FNV-1a over little-endian numbers.
  private static func digest(_ values: [Float]) -> String {
    var value: UInt64 = 0xCBF2_9CE4_8422_2325
    for number in values {
      for shift in stride(from: 0, to: 32, by: 8) {
        // Of the two zeros of FP4 the library's kernel makes one negative, and its table does not: they are one number.
        value = (value ^ UInt64((number + 0).bitPattern >> UInt32(shift) & 255)) &* 0x100_0000_01B3
      }
    }
    let text = String(value, radix: 16)
    return String(repeating: "0", count: 16 - text.count) + text
  }

  /// The largest difference, as a part of the largest of the numbers, in units of single precision's last place.
  private static func units(_ weight: any Weight, _ expected: [Float], in type: DType = .float32) -> Float {
    let largest = expected.map(\.magnitude).max() ?? 0
    return zip(weight.dense().elements, expected).map { (type.rounded($0) - $1).magnitude }.max()! / (largest * .ulpOfOne)
  }

  @Test(arguments: ["nf4", "fp4", "nf4-nested", "fp4-nested"])
  func codesOfBitsAndBytesAreItsNumbers(name: String) throws {
    // The digest is compared while it is read: every bit of every number.
    let weight = try Self.read(BitsAndBytesFormat(), name).weight
    let foreign = try #require(weight as? ForeignWeight)
    #expect(foreign.form == "\(name.prefix(3)) b64")
    let dense = foreign.dense()
    for row in 0..<foreign.rows { #expect(foreign.dense(row: row) == dense.rows(row..<row + 1).elements) }
  }

  @Test func integersOfBitsAndBytesKeepTheirCodes() throws {
    let (weight, expected, _, reader) = try Self.read(BitsAndBytesFormat(), "llm-int8")
    let quantized = try #require(weight as? QuantizedMatrix)
    #expect(quantized.scheme == QuantizationScheme(bits: 8, granularity: .channel, scaleType: .float32))
    // (code · SCB) / 127 there, code · (SCB / 127) here.
    #expect(Self.units(weight, expected) <= 2)
    #expect(reader.remarks.count == 1)
  }

  @Test func weightsOfModelOptAreItsNumbers() throws {
    let (fp8, expected, source, reader) = try Self.read(ModelOptFormat(), "modelopt-fp8")
    #expect((fp8 as? QuantizedMatrix)?.scheme.description == "fp8 tensor" && Self.units(fp8, expected) == 0)
    #expect(try reader.input("m", source)?.granularity == .tensor)
    let (nvfp4, numbers, tensors, inputs) = try Self.read(ModelOptFormat(), "modelopt-nvfp4")
    #expect((nvfp4 as? QuantizedMatrix)?.scheme == .nvfp4)
    // Scales are multiplied there and divided by the reciprocal here.
    #expect(Self.units(nvfp4, numbers) <= 2)
    let input = try #require(try inputs.input("m", tensors))
    let scale = try tensors.tensor("m.input_scale").floats()[0]
    #expect(input.description == "nvfp4" && input.scale == 1 / scale)
  }

  @Test(arguments: ["auto-round-w3", "auto-round-w4", "auto-round-w5", "auto-round-w4-gptq"])
  func packingOfAutoRoundIsItsNumbers(name: String) throws {
    let (weight, expected, _, _) = try Self.read(GPTQFormat(), name)
    #expect(weight.dense().elements == expected)
  }

  @Test(arguments: ["hqq4-g32-axis1", "hqq3-g32-axis1", "hqq2-g16-axis1", "hqq1-g32-axis1", "hqq8-g32-axis1"])
  func groupsOfHQQKeepTheirCodes(name: String) throws {
    let (weight, expected, _, _) = try Self.read(HQQFormat(), name)
    #expect((weight as? QuantizedMatrix)?.scheme.zeroPoint == .real)
    // One rounding of code · scale + bias against those of (code − zero) and of the product, at numbers up to twice as large.
    #expect(Self.units(weight, expected) <= 4)
  }

  /// Groups along columns, and groups of 48 that reach into the next row of 64.
  @Test(arguments: ["hqq4-g32-axis0", "hqq4-g48-axis1"]) func scatteredGroupsOfHQQAreItsNumbers(name: String) throws {
    let (weight, expected, _, _) = try Self.read(HQQFormat(), name)
    #expect(weight is ForeignWeight && weight.dense().elements == expected)
  }

  @Test(arguments: ["int8", "int8-g16", "float8", "int4"]) func weightsOfTorchAOAreItsNumbers(name: String) throws {
    let (weight, expected, _, _) = try Self.read(TorchAOFormat(), "torchao-\(name)")
    let schemes = ["int8": "int8 channel", "int8-g16": "int8 g16", "float8": "fp8 channel", "int4": "int4 g32 bias"]
    #expect((weight as? QuantizedMatrix)?.scheme.description == schemes[name])
    // Codes of 4 bits are counted from another zero.
    #expect(Self.units(weight, expected) <= (name == "int4" ? 4 : 0))
  }

  @Test(arguments: ["qint8", "qfloat8", "qfloat8_e5m2", "qint4", "qint2"]) func weightsOfQuantoAreItsNumbers(name: String) throws {
    let (_, json) = try Self.fixture("quanto-\(name)")
    try Places.withTemporaryDirectory { directory in
      // The model whose linears are as high as the fixture's is read for the shape of a packed one.
      let config =
        #"{"model_type":"llama","vocab_size":6,"hidden_size":\#(name == "qint4" ? 256 : 24),"intermediate_size":8,"#
        + #""num_hidden_layers":1,"num_attention_heads":2,"tie_word_embeddings":false,"rms_norm_eps":1e-5}"#
      let map = try #require(json["files"]?["quanto_qmap.json"]?["m"])
      try Data(#"{"lm_head":\#(map.text())}"#.utf8).write(to: directory.appending(path: "quanto_qmap.json"))
      try Data(config.utf8).write(to: directory.appending(path: "config.json"))
      let reader = try #require(try QuantoFormat().reader(for: ModelConfig(contentsOf: directory.appending(path: "config.json"))))
      let (fixture, _) = try Self.fixture("quanto-\(name)")
      #expect(fixture.tensors.keys.allSatisfy { reader.components.contains($0) } && reader.remarks.isEmpty)
      let source = MemoryTensorSource(
        try fixture.tensors.map { key, value in
          let dtype = try #require(DType(rawValue: value.dtype))
          return NamedTensor(name: "lm_head." + key, tensor: Tensor(dtype: dtype, shape: value.shape, integers: bytes(value.bytes)))
        })
      let weight = try reader.weight("lm_head", source)
      let data = bytes(try #require(fixture.dense))
      let expected = Tensor(dtype: .float32, shape: [data.count / 4], integers: data).floats()
      #expect([weight.rows, weight.columns] == fixture.shape && weight is QuantizedMatrix == (name != "qfloat8_e5m2"))
      // With a shift, one rounding here and two there.
      let type = fixture.rounded.flatMap { DType(rawValue: $0) } ?? .float32
      #expect(Self.units(weight, expected, in: type) <= (name.hasPrefix("qint") && name != "qint8" ? 4 : 0))
    }
  }

  /// Without any one of its tensors a weight is refused by name, or not found to be compressed at all; it is never read as something else.
  @Test(arguments: ["nf4", "nf4-nested", "llm-int8", "modelopt-fp8", "modelopt-nvfp4", "hqq4-g32-axis1", "torchao-float8", "torchao-int4"])
  func aWeightWithoutAPartOfItIsRefused(name: String) throws {
    let format: any CheckpointFormat =
      switch name.prefix(2) {
      case "nf", "ll": BitsAndBytesFormat()
      case "mo": ModelOptFormat()
      case "hq": HQQFormat()
      default: TorchAOFormat()
      }
    let needed: Set = [
      "weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map",
      "weight.quant_state.bitsandbytes__nf4", "SCB", "weight_scale", "weight_scale_2", "W_q", "scale", "zero", "shape", "nbits", "axis",
      "_weight_qdata", "_weight_scale",
    ]
    let (fixture, json) = try Self.fixture(name)
    let parts = fixture.tensors.keys.filter(needed.contains)
    #expect(parts.count >= 2)
    let quantization = try #require(json["quantization"])
    for part in parts {
      let source = MemoryTensorSource(
        try fixture.tensors.filter { $0.key != part }.map { key, value in
          let dtype = try #require(DType(rawValue: value.dtype))
          return NamedTensor(name: "m." + key, tensor: Tensor(dtype: dtype, shape: value.shape, integers: bytes(value.bytes)))
        })
      let reader = try #require(try format.read(quantization.text()))
      #expect(reader.holds("m", source), "\(name) without \(part)")
      #expect(throws: CheckpointError.self, "\(name) without \(part)") { try reader.weight("m", source) }
    }
  }

  @Test func otherKindsAreRefusedByName() throws {
    let algorithm = checkpointError { _ = try ModelOptFormat().read(#"{"quant_method":"modelopt","quant_algo":"W4A8_AWQ"}"#) }
    #expect("\(try #require(algorithm))".contains("W4A8_AWQ"))
    let packing = checkpointError {
      _ = try GPTQFormat().read(#"{"quant_method":"auto-round","packing_format":"auto_round:fp8_static","bits":8,"group_size":-1}"#)
    }
    #expect("\(try #require(packing))".contains("auto_round:fp8_static"))
    #expect(try AWQFormat().read(#"{"quant_method":"auto-round","packing_format":"auto_round:auto_gptq","bits":4,"group_size":32}"#) == nil)
    #expect(throws: FormatError.self) { try BitsAndBytesFormat().encode(Linear(weight: Matrix(rows: 1, columns: 1)), module: "m") }
  }
}
