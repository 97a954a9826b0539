import CompressKit
import Foundation
import TestSupport
import Testing

struct AWQFormatTests {
  private static let asymmetric = QuantizationScheme(bits: 4, granularity: .group(8), symmetric: false, scaleType: .float16)

  /// 32 outputs of 16 inputs in groups of 8, as AutoAWQ's own packing routine stores them.
  @Test func packingIsTheirs() throws {
    var codes: [UInt8] = []
    var zeros: [Float] = []
    for output in 0..<32 {
      for input in 0..<16 { codes.append(UInt8((3 * input + 5 * output) % 16)) }
      zeros += [Float(output % 16), Float((7 * output + 3) % 16)]
    }
    let scales = [[Float]](repeating: [0.5, 0.25], count: 32).flatMap { $0 }
    let matrix = QuantizedMatrix(
      scheme: Self.asymmetric, rows: 32, columns: 16, codes: codes, scales: Matrix(rows: 32, columns: 2, elements: scales),
      zeroPoints: Matrix(rows: 32, columns: 2, elements: zeros))
    let tensors = try AWQFormat().tensors(matrix)
    #expect(tensors.map(\.name) == ["m.qweight", "m.qzeros", "m.scales"])
    let packed = try #require(tensors["m.qweight"])
    #expect(packed.shape == [16, 4] && packed.dtype == .int32)
    func row(_ index: Int) -> [UInt8] { Array(Array(packed.bytes)[index * 16..<(index + 1) * 16]) }
    #expect(row(0) == bytes("a0e4f539 286c7db1 a0e4f539 286c7db1"))
    #expect(row(1) == bytes("d317286c 5b9fa0e4 d317286c 5b9fa0e4"))
    #expect(row(15) == bytes("7db1c206 f5394a8e 7db1c206 f5394a8e"))
    #expect(
      try Array(#require(tensors["m.qzeros"]).bytes)
        == bytes("20643175 a8ecb9fd 20643175 a8ecb9fd 13df8a46 9b5702ce 13df8a46 9b5702ce"))
    #expect(
      try Array(#require(tensors["m.scales"]).bytes) == bytes(String(repeating: "0038", count: 32) + String(repeating: "0034", count: 32)))
    #expect(tensors["m.scales"]?.shape == [2, 32])
    #expect(try AWQFormat().again(tensors, matrix.scheme) as? QuantizedMatrix == matrix)
  }

  @Test(arguments: [(8, 32), (32, 96), (40, 160), (24, 7)])
  func whatIsWrittenReadsBackTheSame(_ rows: Int, _ columns: Int) throws {
    for granularity in [QuantizationScheme.Granularity.channel, .group(32), .group(1)] where columns % 32 == 0 || granularity != .group(32)
    {
      for symmetric in [true, false] {
        let scheme = QuantizationScheme(bits: 4, granularity: granularity, symmetric: symmetric, scaleType: .float16)
        let matrix = QuantizedMatrix.sample(scheme, rows: rows, columns: columns)
        #expect(try AWQFormat().again(AWQFormat().tensors(matrix), scheme) as? QuantizedMatrix == matrix, "\(scheme)")
      }
    }
  }

  /// The layout for one vector: everything lies output dimension first and in order, groups padded to eights.
  @Test(arguments: [(64, 1), (128, 3), (256, 8), (96, 12)])
  func theLayoutForVectorsIsRead(_ columns: Int, _ groups: Int) throws {
    let size = columns / groups
    guard columns % groups == 0 else { return }
    let scheme = QuantizationScheme(bits: 4, granularity: .group(size), symmetric: false, scaleType: .float16)
    let matrix = QuantizedMatrix.sample(scheme, rows: 5, columns: columns)
    let width = (groups + 7) / 8
    // Written out by the definition: nibble k of word w holds element 8w + k.
    func words(_ rows: Int, _ perRow: Int, _ element: (Int, Int) -> UInt8) -> [UInt32] {
      (0..<rows).flatMap { row in
        (0..<perRow).map { word in (0..<8).reduce(UInt32(0)) { $0 | UInt32(element(row, 8 * word + $1)) << UInt32(4 * $1) } }
      }
    }
    let zeros = words(5, width) { $1 < groups ? UInt8(matrix.zeroPoints![$0, $1]) : 0 }
    let scales = (0..<5).flatMap { row in (0..<8 * width).map { $0 < groups ? matrix.scales[row, $0] : 0 } }
    let source = MemoryTensorSource([
      NamedTensor(
        name: "m.qweight",
        tensor: Tensor(dtype: .int32, shape: [5, columns / 8], integers: words(5, columns / 8) { matrix.codes[$0 * columns + $1] })),
      NamedTensor(name: "m.qzeros", tensor: Tensor(dtype: .int32, shape: [5, width], integers: zeros)),
      NamedTensor(name: "m.scales", tensor: Tensor(scales, shape: [5, 8 * width], dtype: .float16)),
    ])
    let reader = try #require(
      try AWQFormat().read("{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":\(size),\"version\":\"GEMV\"}"))
    #expect(try reader.weight("m", source) as? QuantizedMatrix == matrix)
  }

  @Test(arguments: [
    "\"bits\":4,\"group_size\":8,\"version\":\"GEMM\"", "\"w_bit\":4,\"q_group_size\":8", "\"bits\":4,\"group_size\":8,\"format\":\"gemm\"",
    "\"bits\":4,\"group_size\":8,\"checkpoint_format\":\"gemm\",\"sym\":false,\"pack_dtype\":\"int32\"",
  ])
  func synonymsAreKnown(_ keys: String) throws {
    let matrix = QuantizedMatrix.sample(Self.asymmetric, rows: 8, columns: 16)
    let reader = try #require(try AWQFormat().read("{\"quant_method\":\"awq\",\(keys)}"))
    #expect(try reader.weight("m", MemoryTensorSource(try AWQFormat().tensors(matrix))) as? QuantizedMatrix == matrix)
  }

  @Test(arguments: [
    ("\"bits\":4,\"group_size\":128,\"version\":\"gemv_fast\"", "version"),
    ("\"bits\":4,\"group_size\":128,\"version\":\"marlin\"", "version"),
    ("\"bits\":3,\"group_size\":128", "bits"), ("\"group_size\":128", "bits"), ("\"bits\":4", "group_size"),
    ("\"bits\":4,\"group_size\":0", "group_size"),
  ])
  func layoutsThatAreNotReadAreRefused(_ keys: String, _ key: String) {
    let error = checkpointError { _ = try AWQFormat().read("{\"quant_method\":\"awq\",\(keys)}") }
    guard case .unsupportedOption("quantization_config.\(key)", _, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func hostileTensorsAreTypedErrors() throws {
    let tensors = try AWQFormat().tensors(QuantizedMatrix.sample(Self.asymmetric, rows: 8, columns: 16))
    func error(_ name: String, _ tensor: Tensor?, version: String = "gemm") -> CheckpointError? {
      var changed = tensors
      changed[name] = tensor
      return checkpointError {
        let reader = try AWQFormat().read("{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":8,\"version\":\"\(version)\"}")
        _ = try reader?.weight("m", MemoryTensorSource(changed))
      }
    }
    for name in ["m.qweight", "m.qzeros", "m.scales"] {
      #expect(error(name, nil) == .missingTensor(name: name))
      for shape in [[], [0], [8], [0, 8], [24, 3], [2, 3, 4]] {
        for version in ["gemm", "gemv"] {
          guard case .wrongShape = error(name, blank(name == "m.scales" ? .float16 : .int32, shape), version: version) else {
            Issue.record("\(name) of shape \(shape), \(version)")
            continue
          }
        }
      }
      guard case .unusableType(name, "I64", _) = error(name, blank(.int64, [16, 1])) else {
        Issue.record("\(name) of I64")
        continue
      }
    }
    let scaled = checkpointError {
      let reader = try AWQFormat().read("{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":8}")
      var more = tensors.map { NamedTensor(name: "mlp.down." + $0.name.dropFirst(2), tensor: $0.tensor) }
      more["mlp.act.scales"] = blank(.float16, [16])
      _ = try reader?.weight("mlp.down", MemoryTensorSource(more))
    }
    guard case .unsupportedOption("mlp.act.scales", _, _) = scaled else {
      Issue.record("a scaled activation was read: \(String(describing: scaled))")
      return
    }
  }

  @Test func whatHasNoSpellingIsRefusedWithTheReason() {
    func reason(_ scheme: QuantizationScheme, _ rows: Int = 32, groups: [Int32]? = nil) -> String? {
      refusal { _ = try AWQFormat().tensors(QuantizedMatrix.sample(scheme, rows: rows, columns: 64, columnGroups: groups)) }
    }
    func int4(_ granularity: QuantizationScheme.Granularity, _ zero: QuantizationScheme.ZeroPoint = .none, _ type: DType = .float16)
      -> QuantizationScheme
    {
      QuantizationScheme(bits: 4, granularity: granularity, zeroPoint: zero, scaleType: type)
    }
    #expect(reason(int4(.group(32))) == nil)
    #expect(reason(int4(.group(32)), 36)?.contains("multiple of 8") == true)
    #expect(reason(QuantizationScheme(bits: 8, granularity: .group(32), symmetric: true, scaleType: .float16))?.contains("4 bits") == true)
    #expect(reason(.mx(bits: 4))?.contains("integers of 4 bits") == true)
    #expect(reason(int4(.tensor))?.contains("every row") == true)
    #expect(reason(int4(.group(32), .real))?.contains("zero_point: integer") == true)
    #expect(reason(int4(.group(32), .none, .float32))?.contains("F16 numbers") == true)
    #expect(reason(int4(.group(32)), groups: (0..<64).map { Int32($0 % 2) })?.contains("gptq") == true)
  }

  @Test func theConfigurationIsOneForAll() throws {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float16)
    let config = try ModelConfig(text: "{\"model_type\":\"llama\"}".utf8)
    let modules = [
      StoredModule(name: "model.embed_tokens", scheme: nil, isEmbedding: true), StoredModule(name: "a.q", scheme: scheme),
      StoredModule(name: "a.o", scheme: nil), StoredModule(name: "lm_head", scheme: nil),
    ]
    let json = try AWQFormat().configuration(of: modules, in: config)
    #expect(json["torch_dtype"] == nil)
    #expect(
      json["quantization_config"]?.text()
        == #"{"quant_method":"awq","bits":4,"group_size":32,"zero_point":true,"version":"gemm","modules_to_not_convert":["a.o","lm_head"]}"#
    )
    // A linear that stays dense in some blocks only has to be named in full.
    let blocks = [(0, true), (1, false)].flatMap { index, dense in
      [
        StoredModule(name: "b.\(index).attn.o", scheme: dense ? nil : scheme), StoredModule(name: "b.\(index).mlp.up", scheme: nil),
        StoredModule(name: "b.\(index).mlp.down", scheme: scheme),
      ]
    }
    let some = try AWQFormat().configuration(of: blocks, in: config)
    #expect(some["quantization_config"]?["modules_to_not_convert"]?.text() == #"["b.0.attn.o","mlp.up"]"#)
    let hidden = [StoredModule(name: "b.0.gate", scheme: nil), StoredModule(name: "b.0.gate_proj", scheme: scheme)]
    #expect(refusal { _ = try AWQFormat().configuration(of: hidden, in: config) }?.contains("part of") == true)
    var other = scheme
    other.granularity = .group(64)
    func reason(_ extra: StoredModule) -> String? {
      refusal { _ = try AWQFormat().configuration(of: modules + [extra], in: config) }
    }
    #expect(reason(StoredModule(name: "a.k", scheme: other))?.contains("same group size") == true)
    #expect(reason(StoredModule(name: "a.k", scheme: other))?.hasSuffix("such as 32") == true)
    #expect(reason(StoredModule(name: "x", scheme: scheme, isEmbedding: true))?.contains("embedding or head") == true)
    #expect(reason(StoredModule(name: "lm_head", scheme: scheme))?.contains("embedding or head") == true)
  }
}
