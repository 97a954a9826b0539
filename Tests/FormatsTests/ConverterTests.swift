import CompressKit
import Foundation
import TestSupport
import Testing

struct ConverterTests {
  /// Widths that every format has room for.
  private static let config = """
    {"model_type":"llama","vocab_size":64,"hidden_size":64,"intermediate_size":128,"num_hidden_layers":1,"num_attention_heads":2,
     "num_key_value_heads":1,"rms_norm_eps":1e-05,"max_position_embeddings":64,"tie_word_embeddings":false,"attention_bias":true}
    """

  private func write(
    _ scheme: QuantizationScheme, as format: any CheckpointFormat, to folder: URL, _ change: (inout QuantizedMatrix) -> Void = { _ in },
    carrying extra: [NamedTensor] = []
  ) async throws {
    let original = try TinyModel.checkpoint(Self.config, dtype: .bfloat16)
    let model = try Model(original)
    let blocks = try model.places.map { place in
      var block = try model.part(place)
      guard block is Block else { return block }
      for name in block.linears.keys {
        var quantized = RoundToNearest.quantize(block[name].weight.dense(), scheme: scheme, scales: .minmax)
        change(&quantized)
        block[name].weight = quantized
      }
      return block
    }
    let modules = blocks.flatMap { format.modules(of: $0) }
    let settled = format.settled(for: modules)
    let writer = try settled.makeWriter(into: try StagedDirectory(for: folder, overwrite: false), shardLimit: 1 << 30)
    for block in blocks { try await writer.append(try settled.encode(block)) }
    try await writer.append(extra)
    try await writer.finish(
      files: try settled.files(describing: modules, in: original.config) + [CheckpointFile("tokenizer.json", .text("{}"))])
  }

  private func weights(_ folder: URL) throws -> [String: any Weight] {
    let model = try Model(try Checkpoint(folder))
    return try Dictionary(
      uniqueKeysWithValues: model.places.flatMap { place in
        let block = try model.part(place)
        return block.linears.map { (block.fullName(of: $0), $1.weight) }
      })
  }

  struct Case: Sendable, CustomTestStringConvertible {
    var from: any CheckpointFormat, to: any CheckpointFormat, scheme: QuantizationScheme
    var testDescription: String { "\(type(of: from).name) to \(type(of: to).name), \(scheme)" }
  }

  private static func int(_ bits: Int, _ size: Int, _ zero: QuantizationScheme.ZeroPoint, _ type: DType = .bfloat16) -> QuantizationScheme {
    QuantizationScheme(bits: bits, granularity: .group(size), zeroPoint: zero, scaleType: type)
  }

  private static let cases: [Case] = {
    var cases: [Case] = []
    for bits in [4, 8] {
      for zero in [QuantizationScheme.ZeroPoint.none, .integer] {
        cases.append(Case(from: .compressedTensors, to: .gptq, scheme: int(bits, 32, zero)))
        cases.append(Case(from: .gptq, to: .compressedTensors, scheme: int(bits, 64, zero, .float16)))
      }
      cases.append(Case(from: .gptq, to: .mlx, scheme: int(bits, 32, .none, .float16)))
      cases.append(Case(from: .compressedTensors, to: .mlx, scheme: int(bits, 64, .none)))
      cases.append(Case(from: .mlx, to: .gptq, scheme: int(bits, 32, .none)))
    }
    for zero in [QuantizationScheme.ZeroPoint.none, .integer] {
      cases.append(Case(from: .gptq, to: .awq, scheme: int(4, 32, zero, .float16)))
      cases.append(Case(from: .awq, to: .gptq, scheme: int(4, 32, zero, .float16)))
      cases.append(Case(from: .awq, to: .compressedTensors, scheme: int(4, 64, zero, .float16)))
      cases.append(Case(from: .compressedTensors, to: .awq, scheme: int(4, 64, zero)))
    }
    cases.append(Case(from: .awq, to: .mlx, scheme: int(4, 64, .none, .float16)))
    for bits in [4, 8] {
      cases.append(Case(from: .compressedTensors, to: .mlx, scheme: .mx(bits: bits)))
      cases.append(Case(from: .mlx, to: .compressedTensors, scheme: .mx(bits: bits)))
    }
    return cases
  }()

  @Test(arguments: cases) func nothingIsLost(_ pair: Case) async throws {
    try await Places.withTemporaryDirectory { directory in
      let (from, to) = (directory.appending(path: "from"), directory.appending(path: "to"))
      let inverse = NamedTensor(name: "model.layers.0.extra", tensor: Tensor([1, 2], shape: [2], dtype: .float32))
      try await write(pair.scheme, as: pair.from, to: from, carrying: [inverse])
      let report = try await Converter(to: pair.to).run(try Checkpoint(from), to: to)
      #expect(report.sameCodes + report.sameNumbers == 7 && report.dense == 2 && report.dequantized == 0)
      #expect(report.carriedTensors == ["model.layers.0.extra"] && report.format == type(of: pair.to).name)
      let (before, after) = (try weights(from), try weights(to))
      for (name, weight) in before {
        let written = try #require(after[name])
        #expect(written.dense() == weight.dense(), "\(name)")
        guard let codes = weight as? QuantizedMatrix else { continue }
        #expect((written as? QuantizedMatrix)?.codes == codes.codes, "\(name)")
      }
      let files = try FileManager.default.contentsOfDirectory(atPath: to.path)
      #expect(files.contains("tokenizer.json") && !files.contains { $0.hasSuffix(".partial") })
      // Biases and norms keep their bytes, whatever type the scales have.
      let (source, target) = (try Checkpoint(from).tensors, try Checkpoint(to).tensors)
      for name in source.names where name.hasSuffix("norm.weight") || name.hasSuffix(".bias") || name.hasSuffix(".extra") {
        #expect(try source.tensor(name).bytes == target.tensor(name).bytes && source.info(name) == target.info(name), "\(name)")
      }
      // And back again: the first file's tensors, byte for byte, where that format would have written the same types.
      let back = directory.appending(path: "back")
      _ = try await Converter(to: pair.from).run(try Checkpoint(to), to: back)
      let again = try weights(back)
      for (name, weight) in before { #expect(again[name]?.dense() == weight.dense(), "\(name)") }
    }
  }

  @Test func packedWeightsBecomeTheirNumbers() async throws {
    try await Places.withTemporaryDirectory { directory in
      let (from, to) = (directory.appending(path: "from"), directory.appending(path: "to"))
      try await write(Self.int(4, 32, .integer, .float16), as: .awq, to: from)
      let report = try await Converter(to: PlainFormat()).run(try Checkpoint(from), to: to)
      #expect(report.dequantized == 7 && report.dense == 2 && report.roundedWeights > 0)
      let (before, after) = (try weights(from), try weights(to))
      var rounded = 0
      for (name, weight) in before {
        let (exact, stored) = (weight.dense().elements, try #require(after[name]).dense().elements)
        #expect(stored == exact.map(DType.bfloat16.rounded), "\(name)")
        rounded += zip(exact, stored).count { $0 != $1 }
      }
      #expect(report.roundedWeights == rounded)
      #expect(try Checkpoint(to).config.json["quantization_config"] == nil)
      // Dense to dense: every tensor as it was.
      let copy = directory.appending(path: "copy")
      let second = try await Converter(to: MLXFormat()).run(try Checkpoint(to), to: copy)
      #expect(second.dense == 9 && second.dequantized == 0)
      let (source, target) = (try Checkpoint(to).tensors, try Checkpoint(copy).tensors)
      #expect(Set(source.names) == Set(target.names))
      for name in source.names { #expect(try source.tensor(name).bytes == target.tensor(name).bytes, "\(name)") }
    }
  }

  private func expectRefusal(
    _ scheme: QuantizationScheme, from: any CheckpointFormat, to: any CheckpointFormat, _ word: String,
    _ change: (inout QuantizedMatrix) -> Void = { _ in }
  ) async throws {
    try await Places.withTemporaryDirectory { directory in
      let (source, target) = (directory.appending(path: "from"), directory.appending(path: "to"))
      try await write(scheme, as: from, to: source, change)
      let checkpoint = try Checkpoint(source)
      let error = await #expect(throws: FormatError.self) { try await Converter(to: to).run(checkpoint, to: target) }
      #expect(error?.description.contains(word) == true, "\(String(describing: error))")
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["from"])
    }
  }

  @Test func whatHasNoRoomIsRefusedAndNothingIsLeft() async throws {
    try await expectRefusal(Self.int(8, 32, .none, .float16), from: .gptq, to: .awq, "4 bits")
    try await expectRefusal(Self.int(4, 32, .real), from: .mlx, to: .gptq, "zero points are codes")
    try await expectRefusal(Self.int(4, 32, .integer), from: .compressedTensors, to: .mlx, "zero_point: real")
    try await expectRefusal(.nvfp4, from: .compressedTensors, to: .mlx, "scale of the whole matrix")
    try await expectRefusal(Self.int(4, 32, .none, .float16), from: .gptq, to: .compressedTensors, "activation order") { matrix in
      matrix = QuantizedMatrix(
        scheme: matrix.scheme, rows: matrix.rows, columns: matrix.columns, codes: matrix.codes, scales: matrix.scales, zeroPoints: nil,
        columnGroups: (0..<matrix.columns).map { Int32(($0 + 5) % matrix.columns / 32) })
    }
    // A power of two below F16's.
    try await expectRefusal(Self.int(4, 32, .none), from: .compressedTensors, to: .gptq, "F16 numbers") { matrix in
      matrix = QuantizedMatrix(
        scheme: matrix.scheme, rows: matrix.rows, columns: matrix.columns, codes: matrix.codes,
        scales: Matrix(rows: matrix.scales.rows, columns: matrix.scales.columns, repeating: 0x1p-30), zeroPoints: nil)
    }
  }

  /// A format whose reader does not give back what its writer was given.
  private struct Careless: CheckpointFormat {
    static let name = "careless"
    static let summary = ""
    func encode(_ linear: Linear, module: String) throws(FormatError) -> [NamedTensor] {
      guard let matrix = linear.weight as? QuantizedMatrix else { return try CompressedTensorsFormat().encode(linear, module: module) }
      var codes = matrix.codes
      codes[5] ^= 1
      let other = QuantizedMatrix(
        scheme: matrix.scheme, rows: matrix.rows, columns: matrix.columns, codes: codes, scales: matrix.scales,
        zeroPoints: matrix.zeroPoints)
      return try CompressedTensorsFormat().encode(Linear(weight: other), module: module)
    }
    func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? { try CompressedTensorsFormat().reader(for: config) }
    func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
      try CompressedTensorsFormat().configuration(of: modules, in: config)
    }
  }

  @Test func aChangedWeightIsNoticed() async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "from")
      try await write(Self.int(4, 32, .none, .float16), as: .gptq, to: source)
      let checkpoint = try Checkpoint(source)
      let error = await #expect(throws: ConversionMismatch.self) {
        try await Converter(to: Careless()).run(checkpoint, to: directory.appending(path: "to"))
      }
      #expect(error?.weights == 1)
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["from"])
    }
  }

  @Test func anOutputThatExistsIsKept() async throws {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "from")
      try await write(Self.int(4, 32, .none, .float16), as: .gptq, to: source)
      let checkpoint = try Checkpoint(source)
      await #expect(throws: CheckpointError.exists(path: source.path)) { try await Converter(to: .awq).run(checkpoint, to: source) }
      // What is read is never replaced, what this program has made is.
      await #expect(throws: CheckpointError.self) { try await Converter(to: .awq, overwrite: true).run(checkpoint, to: source) }
      let output = directory.appending(path: "to")
      _ = try await Converter(to: .gptq).run(checkpoint, to: output)
      _ = try await Converter(to: .awq, overwrite: true).run(checkpoint, to: output)
      #expect(try Checkpoint(output).config.json["quantization_config"]?["quant_method"]?.string == "awq")
      #expect(try Checkpoint(source).config.json["quantization_config"]?["quant_method"]?.string == "gptq")
    }
  }
}
