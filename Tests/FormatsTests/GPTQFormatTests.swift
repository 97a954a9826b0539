import CompressKit
import Foundation
import TestSupport
import Testing

/// Bytes that AutoGPTQ packs, and GPTQModel unpacks.
struct GPTQGoldenTests {
  /// 32 outputs of 32 inputs, code (3i + 5o) mod 2^bits, scale 1.
  private func matrix(bits: Int, zeros: ((Int) -> Int)?) -> QuantizedMatrix {
    var codes: [UInt8] = []
    for output in 0..<32 {
      for input in 0..<32 { codes.append(UInt8((3 * input + 5 * output) % (1 << bits))) }
    }
    return QuantizedMatrix(
      scheme: QuantizationScheme(bits: bits, granularity: .group(32), symmetric: zeros == nil, scaleType: .float16), rows: 32, columns: 32,
      codes: codes, scales: Matrix(rows: 32, columns: 1, repeating: 1),
      zeroPoints: zeros.map { zero in Matrix(rows: 32, columns: 1, elements: (0..<32).map { Float(zero($0)) }) })
  }

  private func column(_ index: Int, _ tensor: Tensor) -> [UInt8] {
    let words = tensor.integers(UInt32.self)
    let column = stride(from: index, to: words.count, by: tensor.shape[1]).map { words[$0] }
    return Array(Tensor(dtype: .uint32, shape: [column.count], integers: column).bytes)
  }

  @Test(arguments: [
    (2, "6c6c6c6c6c6c6c6c", "b1b1b1b1b1b1b1b1", "5555555555555555", "2449922449922449", "799ee7799ee7799e"),
    (
      3, "98c3ab98c3ab98c3ab98c3ab", "c51c5ec51c5ec51c5ec51c5e", "dbb66ddbb66ddbb66ddbb66d", "88c61ad158231a6b44638d68",
      "d1583f1aeb4763fd68ac1f8d"
    ),
    (
      4, "3096fc52b81e74da3096fc52b81e74da", "85eb41a70d63c92f85eb41a70d63c92f", "77777777777777777777777777777777",
      "1032547698badc0e21436587a9cbed10", "21436587a9cbed1f32547698badcfe21"
    ),
    (
      8, "000306090c0f1215181b1e2124272a2d303336393c3f4245484b4e5154575a5d",
      "05080b0e1114171a1d202326292c2f3235383b3e4144474a4d505356595c5f62",
      "7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f",
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
      "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"
    ),
  ])
  func packingIsTheirs(
    _ bits: Int, _ first: String, _ second: String, _ symmetric: String, _ asymmetric1: String, _ asymmetric2: String
  ) throws {
    let plain = try GPTQFormat().tensors(matrix(bits: bits, zeros: nil))
    let codes = try #require(plain["m.qweight"])
    #expect(codes.shape == [bits, 32] && codes.dtype == .int32)
    #expect(column(0, codes) == bytes(first))
    #expect(column(1, codes) == bytes(second))
    #expect(try Array(#require(plain["m.qzeros"]).bytes) == bytes(symmetric))
    #expect(plain["m.qzeros"]?.shape == [1, bits])
    #expect(plain["m.scales"]?.shape == [1, 32] && plain["m.scales"]?.dtype == .float16)
    #expect(plain["m.g_idx"]?.integers(Int32.self) == [Int32](repeating: 0, count: 32))
    let shifted = matrix(bits: bits) { 1 + $0 % (1 << bits - 1) }
    #expect(try Array(#require(GPTQFormat(version: .v1).tensors(shifted)["m.qzeros"]).bytes) == bytes(asymmetric1))
    #expect(try Array(#require(GPTQFormat(version: .v2).tensors(shifted)["m.qzeros"]).bytes) == bytes(asymmetric2))
  }

  /// auto-round's own method with this packing is version 1, its `extra_config` what differs.
  @Test func autoRoundIsRead() throws {
    let zeros = { (output: Int) in 1 + output % 7 }
    let weight = matrix(bits: 3, zeros: zeros)
    let source = MemoryTensorSource(try GPTQFormat(version: .v1).encode(Linear(weight: weight), module: "layers.0.m"))
    let configuration = """
      {"quant_method":"auto-round","packing_format":"auto_round:auto_gptq","bits":4,"group_size":128,"sym":true,"data_type":"int",
       "extra_config":{"layers.0.m":{"bits":3,"group_size":32,"sym":false}}}
      """
    let reader = try #require(try GPTQFormat().read(configuration))
    #expect(try (reader.weight("layers.0.m", source) as? QuantizedMatrix)?.dense() == weight.dense())
    #expect(try AWQFormat().read(configuration) == nil)
    let other = configuration.replacing("auto_gptq", with: "auto_awq")
    #expect(try GPTQFormat().read(other) == nil)
    #expect(try AWQFormat().read(other) != nil)
  }

  /// 32 codes (5k + 1) mod 2^bits, in planes: the same in every column of codes and in the one row of zero points.
  @Test(arguments: [
    (3, "gptq_p", "3939393939393939 d2d2d2d2"), (5, "gptq_v2", "610ba54fe9832dc7610ba54fe9832dc7 781c87e3"),
    (6, "gptq_v2", "610ba54fe9832dc7610ba54fe9832dc7 4095fa0395ea0f54"),
    (7, "gptq", "610ba54fe9832dc7610ba54fe9832dc7 4095fa0395ea0f54 00e0ff03"), (3, "gptq_v2", "f1509df1509df1509df1509d"),
  ])
  func planesAreRead(_ bits: Int, _ version: String, _ hex: String) throws {
    let words = Tensor(dtype: .uint32, shape: [bits], bytes: Data(bytes(hex))).integers(UInt32.self)
    let source = MemoryTensorSource([
      NamedTensor(
        name: "m.qweight", tensor: Tensor(dtype: .int32, shape: [bits, 32], integers: words.flatMap { [UInt32](repeating: $0, count: 32) })),
      NamedTensor(name: "m.qzeros", tensor: Tensor(dtype: .int32, shape: [1, bits], integers: words)),
      NamedTensor(name: "m.scales", tensor: Tensor([Float](repeating: 0.5, count: 32), shape: [1, 32], dtype: .float16)),
    ])
    let reader = try #require(
      try GPTQFormat().read("{\"quant_method\":\"gptq\",\"bits\":\(bits),\"group_size\":-1,\"sym\":false,\"format\":\"\(version)\"}"))
    let weight = try #require(try reader.weight("m", source) as? QuantizedMatrix)
    let codes = (0..<32).map { UInt8((5 * $0 + 1) % (1 << bits)) }
    for row in 0..<32 { #expect(Array(weight.codes[row * 32..<(row + 1) * 32]) == codes) }
    let step = version == "gptq" ? 1 : 0
    #expect(weight.zeroPoints?.elements == codes.map { Float((Int($0) + step) % (1 << bits)) })
  }
}

struct GPTQFormatTests {
  @Test(arguments: [2, 3, 4, 8], [(32, 32), (32, 96), (96, 64), (64, 160)])
  func whatIsWrittenReadsBackTheSame(_ bits: Int, _ shape: (rows: Int, columns: Int)) throws {
    for granularity in [QuantizationScheme.Granularity.channel, .group(32), .group(16)] {
      for symmetric in [true, false] {
        let scheme = QuantizationScheme(bits: bits, granularity: granularity, symmetric: symmetric, scaleType: .float16)
        for version in [GPTQFormat.Version.v1, .v2] {
          let format = GPTQFormat(version: version)
          let matrix = QuantizedMatrix.sample(
            scheme, rows: shape.rows, columns: shape.columns, zeros: version == .v1 ? 1...UInt8(scheme.top) : nil)
          #expect(try format.again(format.tensors(matrix), scheme) as? QuantizedMatrix == matrix, "\(scheme) \(version)")
        }
      }
    }
  }

  @Test func scatteredGroupsAreKept() throws {
    let groups = (0..<64).map { Int32(($0 * 7 + 3) % 4 / 2) }
    for symmetric in [true, false] {
      let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: symmetric, scaleType: .float16)
      let matrix = QuantizedMatrix.sample(scheme, rows: 32, columns: 64, columnGroups: groups)
      let format = GPTQFormat(version: .v2)
      let tensors = try format.tensors(matrix)
      #expect(tensors["m.g_idx"]?.integers(Int32.self) == groups)
      let again = try #require(try format.again(tensors, scheme, hasColumnGroups: true) as? QuantizedMatrix)
      #expect(again == matrix)
      // By the definition, element by element.
      for (row, column) in [(0, 0), (3, 1), (31, 63), (17, 40)] {
        let group = Int(groups[column])
        let step = Float(matrix.codes[row * 64 + column]) - (matrix.zeroPoints?[row, group] ?? 8)
        #expect(again.dense()[row, column] == matrix.scales[row, group] * step)
      }
    }
  }

  @Test func theVersionFollowsFromTheSchemes() throws {
    let symmetric = QuantizationScheme(bits: 4, symmetric: true)
    let asymmetric = QuantizationScheme(bits: 4, symmetric: false)
    func version(_ schemes: QuantizationScheme?...) -> GPTQFormat.Version? {
      (GPTQFormat().settled(for: schemes.map { StoredModule(name: "m", scheme: $0) }) as? GPTQFormat)?.version
    }
    #expect(version(symmetric, nil, symmetric) == .v1)
    #expect(version(symmetric, asymmetric, nil) == .v2)
    #expect(version(nil) == .v1)
  }

  @Test func oldFilesWithoutGroupIndicesAreRead() throws {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float16)
    let matrix = QuantizedMatrix.sample(scheme, rows: 32, columns: 64)
    var tensors = try GPTQFormat().tensors(matrix)
    tensors["m.g_idx"] = nil
    #expect(try GPTQFormat().again(tensors, scheme) as? QuantizedMatrix == matrix)
  }

  @Test(arguments: [
    "\"bits\":4,\"group_size\":32,\"sym\":true", "\"w_bit\":4,\"q_group_size\":32",
    "\"wbits\":4,\"group_size\":32,\"checkpoint_format\":null",
    "\"bits\":4,\"group_size\":32,\"checkpoint_format\":\"gptq\",\"desc_act\":true,\"pack_dtype\":\"int32\"",
    "\"bits\":8,\"group_size\":128,\"dynamic\":{\"-:.*gate\":{},\"+:^m$\":{\"bits\":4,\"group_size\":32}}",
    "\"bits\":8,\"group_size\":128,\"dynamic\":{\"m\":{\"bits\":4,\"group_size\":32},\".*\":{\"bits\":2}}",
  ])
  func synonymsAndOverridesAreKnown(_ keys: String) throws {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float16)
    let matrix = QuantizedMatrix.sample(scheme, rows: 32, columns: 64)
    let reader = try #require(try GPTQFormat().read("{\"quant_method\":\"gptq\",\(keys)}"))
    let source = MemoryTensorSource(try GPTQFormat().tensors(matrix))
    #expect(reader.holds("m", source) && !reader.holds("other", source))
    #expect(try reader.weight("m", source) as? QuantizedMatrix == matrix)
  }

  @Test(arguments: [
    ("\"bits\":4,\"group_size\":128,\"checkpoint_format\":\"marlin\"", "checkpoint_format"),
    ("\"bits\":4,\"group_size\":128,\"format\":\"bitblas\"", "format"),
    ("\"bits\":4,\"group_size\":128,\"is_marlin_format\":true", "is_marlin_format"),
    ("\"bits\":4,\"group_size\":128,\"pack_dtype\":\"int16\"", "pack_dtype"), ("\"bits\":16,\"group_size\":128", "bits"),
    ("\"group_size\":128", "bits"),
    ("\"bits\":4", "group_size"), ("\"bits\":4,\"group_size\":0", "group_size"), ("\"bits\":4,\"group_size\":-2", "group_size"),
  ])
  func layoutsThatAreNotReadAreRefused(_ keys: String, _ key: String) {
    let error = checkpointError { _ = try GPTQFormat().read("{\"quant_method\":\"gptq\",\(keys)}") }
    guard case .unsupportedOption("quantization_config.\(key)", _, _) = error else {
      Issue.record("\(String(describing: error))")
      return
    }
  }

  @Test func otherMethodsAreOthers() throws {
    #expect(try GPTQFormat().read("{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":128}") == nil)
    #expect(try GPTQFormat().reader(for: try ModelConfig(text: "{\"model_type\":\"llama\"}".utf8)) == nil)
    let error = checkpointError { _ = try GPTQFormat().read("{\"quant_method\":\"marlin\",\"bits\":4,\"group_size\":128}") }
    #expect(error?.description.contains("GPU") == true)
  }

  @Test func hostileTensorsAreTypedErrors() throws {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: false, scaleType: .float16)
    let tensors = try GPTQFormat(version: .v2).tensors(QuantizedMatrix.sample(scheme, rows: 32, columns: 64))
    func error(_ name: String, _ tensor: Tensor?) -> CheckpointError? {
      var changed = tensors
      changed[name] = tensor
      return checkpointError { _ = try GPTQFormat(version: .v2).again(changed, scheme) }
    }
    for name in ["m.qweight", "m.qzeros", "m.scales"] {
      #expect(error(name, nil) == .missingTensor(name: name))
      for shape in [[], [0], [8], [0, 32], [7, 31], [1, 1], [2, 3, 4]] {
        guard case .wrongShape(name, _, shape) = error(name, blank(name == "m.scales" ? .float16 : .int32, shape)) else {
          Issue.record("\(name) of shape \(shape): \(String(describing: error(name, blank(.int32, shape))))")
          continue
        }
      }
      guard case .unusableType(name, "I64", _) = error(name, blank(.int64, [8, 32])) else {
        Issue.record("\(name) of I64")
        continue
      }
    }
    for stranger in [Int32(2), -1, .max, .min] {
      let groups = [stranger] + [Int32](repeating: 0, count: 63)
      guard case .unsupportedOption("m.g_idx", "\(stranger)", _) = error("m.g_idx", Tensor(dtype: .int32, shape: [64], integers: groups))
      else {
        Issue.record("group \(stranger)")
        continue
      }
    }
    #expect(error("m.g_idx", blank(.int32, [63])) == .wrongShape(tensor: "m.g_idx", expected: [64], found: [63]))
    #expect(error("m.g_idx", blank(.int64, [64])) == .unusableType(tensor: "m.g_idx", dtype: "I64", use: "I32"))
    let indivisible = checkpointError {
      let reader = try GPTQFormat().read("{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":48}")
      _ = try reader?.weight("m", MemoryTensorSource(tensors))
    }
    #expect(indivisible?.description.contains("64 inputs") == true)
  }

  @Test func whatHasNoSpellingIsRefusedWithTheReason() {
    func reason(_ scheme: QuantizationScheme, _ rows: Int = 32, _ columns: Int = 64, _ version: GPTQFormat.Version = .v2) -> String? {
      refusal { _ = try GPTQFormat(version: version).tensors(QuantizedMatrix.sample(scheme, rows: rows, columns: columns)) }
    }
    let good = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float16)
    #expect(reason(good) == nil)
    #expect(reason(good, 40)?.contains("multiples of 32") == true)
    #expect(
      reason(QuantizationScheme(bits: 4, granularity: .group(8), symmetric: true, scaleType: .float16), 32, 40)?.contains("multiples of 32")
        == true)
    #expect(reason(QuantizationScheme(bits: 5, granularity: .group(32), symmetric: true, scaleType: .float16))?.contains("not 5") == true)
    #expect(reason(.mx(bits: 4))?.contains("not integers") == true)
    #expect(reason(QuantizationScheme(bits: 4, granularity: .tensor, symmetric: true, scaleType: .float16))?.contains("every row") == true)
    #expect(
      reason(QuantizationScheme(bits: 4, granularity: .group(32), zeroPoint: .real, scaleType: .float16))?.contains("zero_point: integer")
        == true)
    #expect(
      reason(QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float32))?.contains("F16 numbers") == true)
    let asymmetric = QuantizationScheme(bits: 2, granularity: .group(32), symmetric: false, scaleType: .float16)
    #expect(reason(asymmetric, 32, 64, .v1)?.contains("version 2") == true)
    var linear = Linear(weight: QuantizedMatrix.sample(good, rows: 32, columns: 64))
    linear.inputQuantization = .int(8)
    #expect(refusal { _ = try GPTQFormat().encode(linear, module: "m") }?.contains("input is quantized") == true)
  }

  @Test func scalesOfAnotherTypeAreStoredWhereTheyAreExact() throws {
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .bfloat16)
    let matrix = QuantizedMatrix.sample(scheme, rows: 32, columns: 64)
    let again = try #require(try GPTQFormat().again(GPTQFormat().tensors(matrix), scheme) as? QuantizedMatrix)
    #expect(again.scheme.scaleType == .float16 && again.scales == matrix.scales && again.dense() == matrix.dense())
  }

  // MARK: The configuration

  @Test func theConfigurationNamesWhatDiffers() throws {
    let int4 = QuantizationScheme(bits: 4, granularity: .group(128), symmetric: true, scaleType: .float16)
    let int8 = QuantizationScheme(bits: 8, granularity: .channel, symmetric: false, scaleType: .float16)
    let modules = [
      StoredModule(name: "model.embed_tokens", scheme: nil, isEmbedding: true), StoredModule(name: "a.q_proj", scheme: int4),
      StoredModule(name: "a.k_proj", scheme: int4), StoredModule(name: "a.down_proj", scheme: int8),
      StoredModule(name: "a.gate", scheme: nil), StoredModule(name: "lm_head", scheme: nil),
    ]
    let config = try ModelConfig(text: "{\"model_type\":\"llama\",\"torch_dtype\":\"bfloat16\",\"quantization\":{\"bits\":2}}".utf8)
    let format = GPTQFormat(version: .v2)
    let files = try format.files(describing: modules, in: config)
    #expect(files.map(\.name) == ["config.json", "quantize_config.json"])
    let json = try format.configuration(of: modules, in: config)
    #expect(json["torch_dtype"]?.string == "bfloat16" && json["quantization"] == nil)
    let own = try #require(json["quantization_config"])
    guard case .text(let text) = files[1].content else {
      Issue.record("quantize_config.json is no text")
      return
    }
    #expect(try JSON(parsing: text.utf8) == own)
    for (key, value): (String, JSON) in [
      ("quant_method", .string("gptq")), ("bits", .integer(4)), ("group_size", .integer(128)), ("sym", .bool(true)),
      ("desc_act", .bool(false)),
      ("lm_head", .bool(false)), ("checkpoint_format", .string("gptq_v2")), ("pack_dtype", .string("int32")),
    ] { #expect(own[key] == value, "\(key)") }
    #expect(
      own["dynamic"]?.text()
        == #"{"+:^a\\.down_proj$":{"bits":8,"group_size":-1,"sym":false},"-:^a\\.gate$":{}}"#)
    let plain = try format.configuration(of: [StoredModule(name: "a", scheme: nil)], in: config)
    #expect(plain.text() == "{\"model_type\":\"llama\",\"torch_dtype\":\"bfloat16\"}")
    #expect(try format.files(describing: [StoredModule(name: "a", scheme: nil)], in: config).map(\.name) == ["config.json"])
    let embedding = StoredModule(name: "model.embed_tokens", scheme: int4, isEmbedding: true)
    #expect(refusal { _ = try format.configuration(of: [embedding], in: config) }?.contains("no quantized embedding") == true)
    let head = try format.configuration(of: [StoredModule(name: "lm_head", scheme: int4, hasColumnGroups: true)], in: config)
    #expect(head["quantization_config"]?["lm_head"] == .bool(true) && head["quantization_config"]?["desc_act"] == .bool(true))
  }

  @Test func aDenseModuleThatHasCodesIsRefused() throws {
    let reader = try #require(
      try GPTQFormat().read("{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"dynamic\":{\"-:m\":{}}}"))
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float16)
    let source = MemoryTensorSource(try GPTQFormat().tensors(QuantizedMatrix.sample(scheme, rows: 32, columns: 64)))
    #expect(checkpointError { _ = try reader.weight("m", source) }?.description.contains("quantized all the same") == true)
    let broken = try #require(
      try GPTQFormat().read("{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"dynamic\":{\"(\":{}}}"))
    #expect(checkpointError { _ = try broken.weight("m", source) }?.description.contains("no regular expression") == true)
  }

  /// AutoGPTQ once described its files beside config.json only, and named the weights after their numbers.
  @Test func theConfigurationMayBeAFileOfItsOwn() async throws {
    try await Places.withTemporaryDirectory { directory in
      let original = try TinyModel.checkpoint(dtype: .float16)
      let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float16)
      var tensors: [NamedTensor] = []
      var name = ""
      for place in try Model(original).places {
        var block = try Model(original).part(place)
        if place == .decoder(index: 1) {
          name = block.fullName(of: "mlp.up_proj")
          block["mlp.up_proj"].weight = RoundToNearest.quantize(block["mlp.up_proj"].weight.dense(), scheme: scheme)
        }
        tensors += try GPTQFormat().encode(block)
      }
      let folder = directory.appending(path: "model")
      let writer = try SafetensorsWriter(to: folder)
      try await writer.append(tensors)
      try await writer.finish(files: [
        CheckpointFile("config.json", .text(TinyModel.config)),
        CheckpointFile("quantize_config.json", .text("{\"bits\":4,\"group_size\":32,\"desc_act\":false}")),
      ])
      try FileManager.default.moveItem(
        at: folder.appending(path: "model.safetensors"), to: folder.appending(path: "gptq_model-4bit-32g.safetensors"))
      let checkpoint = try Checkpoint(folder)
      let weight = try Model(checkpoint).block(1)["mlp.up_proj"].weight
      #expect((weight as? QuantizedMatrix)?.scheme == scheme, "\(name)")
      #expect(checkpoint.companions().files.isEmpty)
    }
  }
}
