import CompressKit
import Foundation
import TestSupport
import Testing

/// Bytes of MLX's own quantizer on its CPU.
struct MLXGoldenTests {
  /// 64 numbers in [-1, 1): a linear congruential generator's upper 24 bits.
  private static let values: [Float] = {
    var state: UInt32 = 12345
    return (0..<64).map { _ in
      state = state &* 1_664_525 &+ 1_013_904_223
      return (Float(state >> 8) - 8_388_608) / 8_388_608
    }
  }()

  /// MLX's affine quantizer by its formula, in single precision; see `affine_quantize` in its documentation.
  private func affine(_ group: ArraySlice<Float>, bits: Int) -> (codes: [UInt8], scale: Float, bias: Float) {
    let (low, high, top) = (group.min()!, group.max()!, Float(1 << bits - 1))
    var scale = max((high - low) / top, 1e-7)
    let isLow = abs(low) > abs(high)
    if !isLow { scale = -scale }
    let edge = isLow ? low : high
    let zero = (edge / scale).rounded(.toNearestOrEven)
    if zero != 0 { scale = edge / zero }
    let bias = zero == 0 ? 0 : edge
    return (group.map { UInt8(min(max((($0 - bias) / scale).rounded(.toNearestOrEven), 0), top)) }, scale, bias)
  }

  @Test(arguments: [
    (2, "68c3fcbe ec14f83e", "68c37c3f ec1478bf", "6fac769c22a4dbf7 e65cfbf7de6eee7e"),
    (3, "68c37cbe ec14783e", "68c37c3f ec1478bf", "3f9793d3858b458195eefef8 540f6b67dbdcf45c532cbf3b"),
    (4, "68c3fcbd ec14f83d", "68c37c3f ec1478bf", "ff67e178364ff0951a1a50899be52ffb 57f9d0559fbb2acfc7c5c937b7e8f62c"),
    (
      5, "68c37cbd ec14783d", "68c37c3f ec1478bf",
      "ff3f363a74ed7c14bc8a33cc00968457aadd8bfd 2fc90f72525fda4a8bcfefaa3bb333cf46ce3c26"
    ),
    (
      6, "68c3fcbc ec14f83c", "68c37c3f ec1478bf",
      "ffdf5d450e769ae343023f8da7600e4055826e59d97bc2fe 9e54fe803c51feb8aaa8c2cbdd5bb965cc35dd1ae6190f23"
    ),
    (
      8, "68c3fcbb dd43f43b", "68c37c3f ec1478bf",
      "fcfd755d16e481736737f74107ef4c8a9b09980b00569480b79453d9eb25b1ff 784a96fe00cd4d52fc8fafaca327f5ca76bf55bb96c8733376b088e665f4c322"
    ),
  ])
  func affinePackingIsTheirs(_ bits: Int, _ scales: String, _ biases: String, _ packed: String) throws {
    let groups = [affine(Self.values[..<32], bits: bits), affine(Self.values[32...], bits: bits)]
    let scheme = QuantizationScheme(bits: bits, granularity: .group(32), zeroPoint: .real, scaleType: .float32)
    let matrix = QuantizedMatrix(
      scheme: scheme, rows: 1, columns: 64, codes: groups.flatMap(\.codes),
      scales: Matrix(rows: 1, columns: 2, elements: groups.map(\.scale)),
      zeroPoints: Matrix(rows: 1, columns: 2, elements: groups.map(\.bias)))
    let tensors = try MLXFormat().tensors(matrix)
    #expect(tensors.map(\.name) == ["m.weight", "m.scales", "m.biases"])
    let weight = try #require(tensors["m.weight"])
    #expect(weight.dtype == .uint32 && weight.shape == [1, 2 * bits])
    #expect(Array(weight.bytes) == bytes(packed))
    #expect(try Array(#require(tensors["m.scales"]).bytes) == bytes(scales))
    // With 8 bits the second group's edge is another multiple of its scale, and the bias is the edge all the same.
    #expect(try Array(#require(tensors["m.biases"]).bytes) == bytes(biases))
    #expect(try MLXFormat().again(tensors, scheme) as? QuantizedMatrix == matrix)
  }

  /// One bit is quantized by a rule of its own; what it stands for is code · scale + bias as ever.
  @Test func oneBitIsTheirs() throws {
    let tensors = [
      "weight": Tensor(dtype: .uint32, shape: [1, 2], bytes: Data(bytes("9c5b3a24 2cdf3a6e"))),
      "scales": Tensor(dtype: .float32, shape: [1, 2], bytes: Data(bytes("5392fc3f 3b62f23f"))),
      "biases": Tensor(dtype: .float32, shape: [1, 2], bytes: Data(bytes("3e617cbf ec1478bf"))),
    ]
    let scheme = QuantizationScheme(bits: 1, granularity: .group(32), zeroPoint: .real, scaleType: .float32)
    let named = tensors.map { NamedTensor(name: "m." + $0, tensor: $1) }
    let matrix = try #require(try MLXFormat().again(named, scheme) as? QuantizedMatrix)
    // The first eight of `mx.dequantize`.
    let expected = bytes("3e617cbf3e617cbf68c37c3f68c37c3f68c37c3f3e617cbf3e617cbf68c37c3f")
    #expect(Array(Tensor(Array(matrix.dense().elements.prefix(8)), shape: [8], dtype: .float32).bytes) == expected)
    for written in try MLXFormat().tensors(matrix) {
      #expect(written.tensor.bytes == tensors[String(written.name.dropFirst(2))]?.bytes, "\(written.name)")
    }
  }

  @Test(arguments: [
    ("mxfp4", "7c7c", "ff41f728636ff7957b7b578aadf57ffd d9726fdd1755f467695d62ea59717bf6"),
    ("nvfp4", "22232221", "ff31e718625ff795 7a7a478aace46efc d9726fcd1744e357 595c62ea49717bf5"),
    (
      "mxfp8", "7676",
      "fefe63717dfcc8646c79fe787efe75e2ed7eec7e7e72ea9af6ea73fbfd7bf4fe e2f5697efe79f5f37e64737270fb7e79e376f3766a78e7f9e3735b7cee7e78fb"
    ),
  ])
  func floatPackingIsTheirs(_ mode: String, _ scales: String, _ packed: String) throws {
    let scheme: QuantizationScheme = mode == "nvfp4" ? .nvfp4 : .mx(bits: mode == "mxfp4" ? 4 : 8)
    let scaleCodes = bytes(scales)
    let (size, element) = (64 / scaleCodes.count, scheme.bits == 4 ? MiniFloat.e2m1 : .e4m3)
    let values = scaleCodes.map { mode == "nvfp4" ? MiniFloat.e4m3.values[Int($0)] : PowerOfTwoScale.value($0) }
    // Their elements follow from their scales.
    let codes = (0..<64).map { element.encode([Self.values[$0] * (1 / values[$0 / size])])[0] }
    let matrix = QuantizedMatrix(
      scheme: scheme, rows: 1, columns: 64, codes: codes, scales: Matrix(rows: 1, columns: values.count, elements: values), zeroPoints: nil,
      globalScale: mode == "nvfp4" ? 1 : nil)
    let tensors = try MLXFormat().tensors(matrix)
    #expect(tensors.map(\.name) == ["m.weight", "m.scales"])
    #expect(try Array(#require(tensors["m.weight"]).bytes) == bytes(packed))
    #expect(try Array(#require(tensors["m.scales"]).bytes) == scaleCodes)
    #expect(tensors["m.scales"]?.dtype == .uint8 && tensors["m.scales"]?.shape == [1, values.count])
    #expect(try MLXFormat().again(tensors, scheme) as? QuantizedMatrix == matrix)
  }
}

struct MLXFormatTests {
  @Test(arguments: [1, 2, 3, 4, 5, 6, 8], [32, 64, 128])
  func whatIsWrittenReadsBackTheSame(_ bits: Int, _ size: Int) throws {
    for (rows, groups) in [(1, 1), (7, 3), (32, 2)] {
      for type in [DType.bfloat16, .float16, .float32] {
        let scheme = QuantizationScheme(bits: bits, granularity: .group(size), zeroPoint: .real, scaleType: type)
        let matrix = QuantizedMatrix.sample(scheme, rows: rows, columns: groups * size)
        #expect(try MLXFormat().again(MLXFormat().tensors(matrix), scheme) as? QuantizedMatrix == matrix, "\(scheme) \(type)")
        // The middle of the grid is a power of two, so that a bias of so many scales has the scale's own mantissa.
        let symmetric = QuantizationScheme(bits: bits, granularity: .group(size), symmetric: true, scaleType: type)
        let whole = QuantizedMatrix.sample(symmetric, rows: rows, columns: groups * size)
        guard type != .float32 else { continue }
        let tensors = try MLXFormat().tensors(whole)
        let middle = Float(1 << (bits - 1))
        #expect(tensors["m.biases"]?.floats() == whole.scales.elements.map { -middle * $0 })
        #expect(try MLXFormat().again(tensors, symmetric) as? QuantizedMatrix == whole, "\(symmetric) \(type)")
      }
    }
    for scheme in [QuantizationScheme.mx(bits: 4), .mx(bits: 8), .nvfp4] {
      let matrix = QuantizedMatrix.sample(scheme, rows: 5, columns: 3 * size)
      #expect(try MLXFormat().again(MLXFormat().tensors(matrix), scheme) as? QuantizedMatrix == matrix, "\(scheme)")
    }
  }

  @Test func zeroPointsBecomeBiasesWhereNothingIsLost() throws {
    // Scales with few bits leave room for every zero point; those with all bits only for powers of two.
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: false, scaleType: .bfloat16)
    func matrix(_ scale: Float, _ zeros: [Float]) -> QuantizedMatrix {
      let sample = QuantizedMatrix.sample(scheme, rows: zeros.count, columns: 32)
      return QuantizedMatrix(
        scheme: scheme, rows: zeros.count, columns: 32, codes: sample.codes,
        scales: Matrix(rows: zeros.count, columns: 1, repeating: scale),
        zeroPoints: Matrix(rows: zeros.count, columns: 1, elements: zeros))
    }
    let exact = matrix(0.125, (0..<16).map { Float($0) })
    let tensors = try MLXFormat().tensors(exact)
    #expect(tensors["m.biases"]?.floats() == (0..<16).map { -0.125 * Float($0) })
    #expect(try MLXFormat().again(tensors, scheme) as? QuantizedMatrix == exact)
    let full = DType.bfloat16.rounded(1.9921875)
    #expect(throws: Never.self) { try MLXFormat().tensors(matrix(full, [0, 1, 2, 4, 8])) }
    #expect(refusal { _ = try MLXFormat().tensors(matrix(full, [0, 3])) }?.contains("zero_point: real") == true)
    // In F32 the product of code and scale is rounded itself, so the same numbers cannot be promised.
    let wide = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float32)
    #expect(refusal { _ = try MLXFormat().tensors(QuantizedMatrix.sample(wide, rows: 2, columns: 32)) }?.contains("F32") == true)
  }

  @Test func whatHasNoSpellingIsRefusedWithTheReason() {
    func reason(_ scheme: QuantizationScheme, columns: Int = 128, global: Float = 1, groups: [Int32]? = nil) -> String? {
      refusal {
        _ = try MLXFormat().tensors(QuantizedMatrix.sample(scheme, rows: 4, columns: columns, globalScale: global, columnGroups: groups))
      }
    }
    func int(_ bits: Int, _ granularity: QuantizationScheme.Granularity) -> QuantizationScheme {
      QuantizationScheme(bits: bits, granularity: granularity, symmetric: true)
    }
    #expect(reason(int(4, .group(64))) == nil && reason(.nvfp4) == nil)
    #expect(reason(int(7, .group(64)))?.contains("7") == true)
    #expect(reason(int(4, .group(16)))?.contains("groups of 32") == true)
    #expect(reason(int(4, .channel))?.contains("channel") == true)
    #expect(reason(int(4, .tensor))?.contains("tensor") == true)
    #expect(reason(QuantizationScheme(bits: 8, grid: .float, granularity: .channel))?.contains("mxfp8") == true)
    #expect(reason(.nvfp4, global: 112)?.contains("112") == true)
    #expect(reason(int(4, .group(64)), groups: (0..<128).map { Int32($0 % 2) })?.contains("gptq") == true)
    var linear = Linear(weight: QuantizedMatrix.sample(.mx(bits: 4), rows: 4, columns: 32))
    linear.inputQuantization = .mx(bits: 4)
    #expect(refusal { _ = try MLXFormat().encode(linear, module: "m") }?.contains("input is quantized") == true)
  }

  @Test func hostileTensorsAreTypedErrors() throws {
    for scheme in [QuantizationScheme(bits: 4, granularity: .group(32), zeroPoint: .real), .mx(bits: 4), .nvfp4] {
      let tensors = try MLXFormat().tensors(QuantizedMatrix.sample(scheme, rows: 3, columns: 64))
      func error(_ name: String, _ tensor: Tensor?) -> CheckpointError? {
        var changed = tensors
        changed[name] = tensor
        return checkpointError { _ = try MLXFormat().again(changed, scheme) }
      }
      for stored in tensors {
        #expect(error(stored.name, nil) == .missingTensor(name: stored.name))
        for shape in [[], [3], [0, 64], [3, 7], [2, stored.tensor.shape[1]], [3, 4, 2]] {
          guard case .wrongShape = error(stored.name, blank(stored.tensor.dtype, shape)) else {
            Issue.record("\(scheme): \(stored.name) of shape \(shape)")
            continue
          }
        }
        guard case .unusableType(stored.name, "I64", _) = error(stored.name, blank(.int64, stored.tensor.shape)) else {
          Issue.record("\(stored.name) of I64")
          continue
        }
      }
    }
  }

  @Test(arguments: [
    ("{\"bits\":7}", "bits"), ("{\"mode\":\"ternary\",\"bits\":2}", "mode"), ("{\"group_size\":0,\"bits\":4}", "group_size"),
    ("{\"mode\":\"mxfp4\",\"group_size\":64}", "group_size"), ("{\"mode\":\"nvfp4\",\"bits\":8}", "bits"),
  ])
  func numbersThatAreNoneAreRefused(_ json: String, _ key: String) {
    guard case .unsupportedOption("quantization.\(key)", _, _) = checkpointError({ _ = try MLXFormat().read(json, under: "quantization") })
    else {
      Issue.record("\(json) was read")
      return
    }
  }

  @Test func modulesMayDifferFromTheRest() throws {
    let json = #"{"bits":4,"group_size":64,"m":{"bits":8,"group_size":32,"mode":"affine"},"n":false,"o":true}"#
    let reader = try #require(try MLXFormat().read(json, under: "quantization"))
    for (module, bits, size) in [("m", 8, 32), ("o", 4, 64), ("p", 4, 64)] {
      let scheme = QuantizationScheme(bits: bits, granularity: .group(size), zeroPoint: .real)
      let matrix = QuantizedMatrix.sample(scheme, rows: 3, columns: 128)
      let source = MemoryTensorSource(try MLXFormat().tensors(matrix, module: module))
      #expect(reader.holds(module, source))
      #expect(try reader.weight(module, source) as? QuantizedMatrix == matrix, "\(module)")
    }
    let matrix = QuantizedMatrix.sample(QuantizationScheme(bits: 4, granularity: .group(64), zeroPoint: .real), rows: 3, columns: 128)
    let source = MemoryTensorSource(try MLXFormat().tensors(matrix, module: "n"))
    #expect(checkpointError { _ = try reader.weight("n", source) }?.description.contains("quantized all the same") == true)
    #expect(!reader.holds("q", source))
  }

  @Test func theConfigurationIsTheirs() async throws {
    let real = QuantizationScheme(bits: 4, granularity: .group(64), zeroPoint: .real)
    let modules = [
      StoredModule(name: "model.embed_tokens", scheme: real, isEmbedding: true), StoredModule(name: "a.q", scheme: real),
      StoredModule(name: "a.down", scheme: .mx(bits: 8)), StoredModule(name: "lm_head", scheme: nil),
    ]
    let config = try ModelConfig(text: #"{"model_type":"llama","architectures":["A"],"quantization_config":{"quant_method":"gptq"}}"#.utf8)
    let format = MLXFormat()
    let json = try format.configuration(of: modules, in: config)
    #expect(
      json["quantization"]?.text()
        == #"{"group_size":64,"bits":4,"mode":"affine","a.down":{"group_size":32,"bits":8,"mode":"mxfp8"},"lm_head":false}"#)
    #expect(json["quantization_config"] == json["quantization"])
    guard case .text(let text) = try format.files(describing: modules, in: config)[0].content else {
      Issue.record("config.json is no text")
      return
    }
    #expect(text.hasPrefix("{\n    \"architectures\": [\n        \"A\"\n    ],\n    \"model_type\""))
    let dense = try format.configuration(of: [StoredModule(name: "a", scheme: nil)], in: config)
    #expect(dense.text() == #"{"model_type":"llama","architectures":["A"]}"#)
    #expect(try format.reader(for: config) == nil)

    try await Places.withTemporaryDirectory { directory in
      let folder = directory.appending(path: "model")
      let writer = try format.makeWriter(into: try StagedDirectory(for: folder, overwrite: false), shardLimit: 1 << 30)
      try await writer.append(try format.tensors(QuantizedMatrix.sample(real, rows: 3, columns: 64)))
      try await writer.finish(files: [])
      let file = try Data(contentsOf: folder.appending(path: "model.safetensors"))
      #expect(String(decoding: file.dropFirst(8).prefix(40), as: UTF8.self).hasPrefix(#"{"__metadata__":{"format":"mlx"}"#))
      let index = try String(contentsOf: folder.appending(path: "model.safetensors.index.json"), encoding: .utf8)
      #expect(index.hasPrefix("{\n    \"metadata\": {\n        \"total_size\": 108\n"))
      #expect(try ShardedTensors(safetensors: folder.appending(path: "model.safetensors.index.json")).names.count == 3)
    }
  }
}
