import CompressKit
import Foundation
import TestSupport
import Testing

/// E4M3 with scales in tiles, as vendors release their models.
struct FP8BlockFormatTests {
  private static func reader(_ quantization: String) throws -> WeightReader {
    let json = #"{"model_type":"llama","quantization_config":{"quant_method":"fp8",\#(quantization)}}"#
    return try #require(try FP8BlockFormat().reader(for: ModelConfig(text: json.utf8)))
  }

  private static let codes: [UInt8] = (0..<35).map { (index: Int) -> UInt8 in
    let magnitude = UInt8(index * 3 + 8)
    return index % 3 == 0 ? magnitude | 128 : magnitude
  }

  /// Every weight is the number of its code times the scale of its tile; tiles at the edges are cut off.
  @Test(arguments: [DType.float32, .bfloat16, .float8E8M0]) func aWeightIsItsCodeTimesTheScaleOfItsTile(type: DType) throws {
    let scales: [Float] = [0.5, 2, 0.25, 1]
    let stored =
      type == .float8E8M0
      ? Tensor(dtype: .float8E8M0, shape: [2, 2], integers: scales.map { PowerOfTwoScale.code(of: $0) })
      : Tensor(scales, shape: [2, 2], dtype: type)
    let source = MemoryTensorSource([
      NamedTensor(name: "m.weight", tensor: Tensor(dtype: .float8E4M3, shape: [5, 7], integers: Self.codes)),
      NamedTensor(name: "m.weight_scale_inv", tensor: stored),
    ])
    let reader = try Self.reader(#""weight_block_size":[4,4],"activation_scheme":"dynamic","fmt":"e4m3""#)
    #expect(reader.holds("m", source) && !reader.holds("n", source))
    let weight = try reader.weight("m", source).dense()
    for row in 0..<5 {
      for column in 0..<7 {
        let code = Self.codes[row * 7 + column]
        let exponent = Int(code >> 3 & 15)
        let fraction = Double(code & 7) / 8
        let magnitude: Double = exponent == 0 ? fraction * 0.015625 : (1 + fraction) * pow(2.0, Double(exponent - 7))
        let scale = Double(scales[row / 4 * 2 + column / 4])
        #expect(Double(weight[row, column]) == (code >= 128 ? -magnitude : magnitude) * scale)
      }
    }
    #expect(try reader.input("m", source) == InputQuantization(bits: 8, grid: .float, granularity: .group(4)))
  }

  /// One scale for a matrix and a fixed one for its input, as Mistral has them.
  @Test func oneScaleForAllIsRead() throws {
    let source = MemoryTensorSource([
      NamedTensor(name: "m.weight", tensor: Tensor(dtype: .float8E4M3, shape: [5, 7], integers: Self.codes)),
      NamedTensor(name: "m.weight_scale_inv", tensor: Tensor([0.5], shape: [], dtype: .bfloat16)),
      NamedTensor(name: "m.activation_scale", tensor: Tensor([0.125], shape: [], dtype: .bfloat16)),
    ])
    let reader = try Self.reader(#""weight_block_size":null,"activation_scheme":"static""#)
    let weight = try #require(try reader.weight("m", source) as? QuantizedMatrix)
    #expect(weight.scheme.granularity == .tensor && weight.dense()[0, 1] == 0.5 * MiniFloat.e4m3.values[Int(Self.codes[1])])
    #expect(try reader.input("m", source)?.scale == 0.125)
  }

  @Test(arguments: [(40, 72), (128, 256), (130, 129)]) func whatIsWrittenReadsBackTheSame(_ rows: Int, _ columns: Int) throws {
    let scheme = QuantizationScheme(bits: 8, grid: .float, granularity: .block(rows: 128, columns: 128), scaleType: .float32)
    let weight = QuantizedMatrix.sample(scheme, rows: rows, columns: columns)
    let linear = Linear(weight: weight, inputQuantization: .fp8Group)
    let tensors = try FP8BlockFormat().encode(linear, module: "m")
    #expect(Set(tensors.map(\.name)) == ["m.weight", "m.weight_scale_inv"] && tensors["m.weight_scale_inv"]?.dtype == .float32)
    let reader = try Self.reader(#""weight_block_size":[128,128]"#)
    #expect(try reader.weight("m", MemoryTensorSource(tensors)) as? QuantizedMatrix == weight)
    #expect(try reader.input("m", MemoryTensorSource(tensors)) == .fp8Group)
  }

  @Test(arguments: [
    (#""weight_block_size":[128]"#, "weight_block_size"), (#""activation_scheme":"sometimes""#, "activation_scheme"),
    (#""fmt":"e5m2""#, "fmt"),
    (#""expert_dtype":"fp4""#, "expert_dtype"),
  ])
  func whatIsNotReadIsNamed(_ quantization: String, _ key: String) throws {
    let error = #expect(throws: CheckpointError.self) { try Self.reader(quantization) }
    #expect("\(try #require(error))".contains("quantization_config.\(key)"))
  }

  @Test func aMissingScaleIsNoWeight() throws {
    let source = MemoryTensorSource([
      NamedTensor(name: "m.weight", tensor: Tensor(dtype: .float8E4M3, shape: [5, 7], integers: Self.codes)),
      NamedTensor(name: "m.weight_scale_inv", tensor: Tensor([1, 1], shape: [1, 2], dtype: .float32)),
    ])
    let reader = try Self.reader(#""weight_block_size":[4,4]"#)
    #expect(throws: CheckpointError.wrongShape(tensor: "m.weight_scale_inv", expected: [2, 2], found: [1, 2])) {
      try reader.weight("m", source)
    }
  }

  /// transformers divides the sides of a matrix by those of its scales, see `findings/transformers-fp8-ragged-tiles.sh`.
  @Test func tilesThatAreCutOffAreTold() throws {
    func remarks(_ size: Int) throws -> [String] {
      let json = TinyModel.config.replacing("\"intermediate_size\":64", with: "\"intermediate_size\":\(size)")
      let config = try ModelConfig(text: json.utf8)
      return try FP8BlockFormat().remarks(on: ArchitectureCatalog.standard.describe(config), in: config)
    }
    #expect(try remarks(256).isEmpty)
    #expect(try remarks(192).first?.contains("6 linears, such as model.layers.0.mlp.down_proj [32 x 192]") == true)
  }

  @Test func otherWeightsAreRefused() throws {
    let rounded = QuantizedMatrix.sample(QuantizationScheme(bits: 4, granularity: .group(8)), rows: 8, columns: 16)
    let error = #expect(throws: FormatError.self) { try FP8BlockFormat().encode(Linear(weight: rounded), module: "m") }
    #expect("\(try #require(error))".contains("E4M3 weights in square tiles"))
    let tiles = QuantizationScheme(bits: 8, grid: .float, granularity: .block(rows: 8, columns: 8), scaleType: .float32)
    let plain = Linear(weight: QuantizedMatrix.sample(tiles, rows: 8, columns: 16))
    let input = #expect(throws: FormatError.self) { try FP8BlockFormat().encode(plain, module: "m") }
    #expect("\(try #require(input))".contains("quantize inputs to E4M3 by 8 features"))
  }
}
