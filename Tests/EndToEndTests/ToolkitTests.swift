import CompressKit
import Foundation
import TestSupport
import Testing

/// What a third party adds to the toolkit is known to whoever is handed it: opened, compressed, checked, converted, calibrated, scored.
@Suite struct ToolkitTests {
  /// Llama whose head is called otherwise.
  private enum Stranger: Architecture {
    static let modelTypes = ["stranger"]

    static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
      var model = try config.decode(DecoderKeys.self).description(config)
      model.ownHead = "output"
      if model.head != nil { model.head = model.ownHead }
      return model
    }
  }

  /// Halves what it is told to.
  private struct Halving: Pass {
    static let name = "halving"
    static let summary = "halves weights"
    var layers = LayerSelector()
    var usesCalibration: Bool { false }

    func run(on part: inout any ModelPart, in context: PassContext) throws {
      for name in part.groups(layers).flatMap(\.linears) {
        let old = part[name].weight.dense()
        part[name].weight = Matrix(rows: old.rows, columns: old.columns, elements: old.elements.map { $0 / 2 })
        context.record(name, in: part, [:])
      }
    }
  }

  /// Dense weights under a method that nobody else reads.
  private struct Crate: DenseFormat {
    static let name = "crate"
    static let summary = "dense weights in a crate"

    func configuration(of modules: [StoredModule], in config: ModelConfig) throws(FormatError) -> JSON {
      var json = try PlainFormat().configuration(of: modules, in: config)
      json["quantization_config"] = .object([.init("quant_method", .string(Self.name))])
      return json
    }

    func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
      guard config.json["quantization_config"]?["quant_method"]?.string == Self.name else { return nil }
      return WeightReader(
        components: ["weight"], holds: { module, source in source.info(module + ".weight") != nil },
        weight: { module, source throws(CheckpointError) in StoredWeight(try source.tensor(module + ".weight")) })
    }
  }

  private static let toolkit = Toolkit.standard.adding(Stranger.self).adding(Halving.self).adding(Crate())

  /// A stranger's checkpoint, with token files beside it.
  private func withModel(_ body: (_ directory: URL, _ model: Checkpoint) async throws -> Void) async throws {
    try await Places.withTemporaryDirectory { directory in
      let text = TinyModel.config.replacing("\"llama\"", with: "\"stranger\"")
      let place = directory.appending(path: "model")
      let writer = try SafetensorsWriter(to: place)
      let config = try ModelConfig(text: text.utf8)
      try await writer.append(try TinyModel.tensors(config, dtype: .bfloat16, catalog: Self.toolkit.architectures))
      try await writer.finish(files: [CheckpointFile("config.json", .text(text))])
      try TinyModel.write(tokens: TinyModel.sequences(24, length: 32).flatMap { $0 }, to: directory.appending(path: "tokens.npy"))
      try await body(directory, try Checkpoint(place))
    }
  }

  private func recipe(_ passes: String, format: String) throws -> Recipe {
    try Recipe(
      yaml: """
        calibration: { tokens: tokens.npy, sequences: 16, length: 32 }
        passes: [\(passes)]
        output: { format: \(format) }
        evaluation: { tokens: tokens.npy, window: 32, limit: 256 }
        """, file: "recipe.yaml", passes: Self.toolkit.passes)
  }

  @Test func catalogsGrowByOneEach() {
    let (own, standard) = (Self.toolkit, Toolkit.standard)
    #expect(own.passes.names == standard.passes.names + ["halving"])
    #expect(own.formats.names == ["crate"] + standard.formats.names)
    #expect(own.architectures.modelTypes == (standard.architectures.modelTypes + ["stranger"]).sorted())
    #expect(own.format(named: "crate") is Crate && own.format(named: "awq") is AWQFormat && own.format(named: "box") == nil)
    #expect(standard.format(named: "crate") == nil)
  }

  @Test func aStrangerIsDescribedCompressedAndScored() async throws {
    try await withModel { directory, model in
      #expect(try Self.toolkit.model(model).description.head == "output")
      #expect(throws: CheckpointError.self) { try Toolkit.standard.model(model) }
      let output = directory.appending(path: "out")
      let passes = "{ halving: { layers: [v_proj] } }, { gptq: { bits: 4, group_size: 32 } }"
      let recipe = try recipe(passes, format: "compressed-tensors")
      let compressor = Compressor(recipe: recipe, toolkit: Self.toolkit, bases: [directory], memoryLimit: 1 << 30)
      let report = try await compressor.run(model, to: output)
      #expect(report.architecture == "stranger" && report.fallbackCount == 0)
      #expect(report.layers.contains { $0.pass == "halving" })
      #expect(try #require(report.evaluation).klDivergence > 0)
      let written = try Checkpoint(output)
      // The format has asked the toolkit what the head is called: transformers' own name for it is ignored besides.
      let ignored = try #require(written.config.json["quantization_config"]?["ignore"]?.elements).compactMap(\.string)
      #expect(Set(ignored) == ["lm_head", "output"])
      let again = try Evaluator(window: 32).evaluate(
        try Self.toolkit.model(written), against: try Self.toolkit.model(model), on: TinyModel.sequences(8, length: 32).flatMap { $0 })
      #expect(abs(try #require(again.divergence).mean - report.evaluation!.klDivergence) < 1e-9)
      await #expect(throws: CheckpointError.self) {
        try await Compressor(recipe: recipe, bases: [directory]).run(model, to: directory.appending(path: "other"))
      }
    }
  }

  @Test func aStrangerIsConverted() async throws {
    try await withModel { directory, model in
      let (packed, crate, plain) = (
        directory.appending(path: "packed"), directory.appending(path: "crate"), directory.appending(path: "plain")
      )
      let compressor = Compressor(
        recipe: try recipe("{ rtn: { bits: 4, group_size: 32 } }", format: "compressed-tensors"),
        toolkit: Self.toolkit, bases: [directory],
        memoryLimit: 1 << 30)
      _ = try await compressor.run(model, to: packed)
      let format = try #require(Self.toolkit.format(named: "crate"))
      let report = try await Converter(to: format, toolkit: Self.toolkit).run(try Checkpoint(packed), to: crate)
      #expect(report.format == "crate" && report.dequantized == 14)
      _ = try await Converter(to: PlainFormat(), toolkit: Self.toolkit).run(try Checkpoint(crate), to: plain)
      await #expect(throws: CheckpointError.self) {
        try await Converter(to: PlainFormat()).run(try Checkpoint(crate), to: directory.appending(path: "other"))
      }
      let tokens = TinyModel.sequences(1, length: 32)[0]
      let models = try [crate, plain].map { try Self.toolkit.model(try Checkpoint($0)) }
      #expect(try models[0].logits(of: tokens) == models[1].logits(of: tokens))
    }
  }

  @Test func statisticsOfAStrangerAreSaved() async throws {
    try await withModel { directory, model in
      let sequences = TinyModel.sequences(4, length: 32)
      let file = directory.appending(path: "statistics.h5")
      try await StatisticsCollector(sequences: sequences, source: "tokens", toolkit: Self.toolkit).run(model, to: file)
      #expect(FileManager.default.fileExists(atPath: file.path))
      await #expect(throws: CheckpointError.self) {
        try await StatisticsCollector(sequences: sequences, source: "tokens").run(model, to: directory.appending(path: "other.h5"))
      }
    }
  }
}
