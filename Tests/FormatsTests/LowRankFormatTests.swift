import CompressKit
import Foundation
import TestSupport
import Testing

private actor Collected: PartSink {
  var blocks: [any ModelPart] = []
  func append(_ part: any ModelPart) { blocks.append(part) }
}

/// Checkpoints whose linears are two factors.
struct LowRankFormatTests {
  private func blocks(_ passes: String) async throws -> [any ModelPart] {
    let recipe = try Recipe(yaml: "passes: [ \(passes) ]", file: "test", passes: .standard)
    let sink = Collected()
    _ = try await Pipeline(recipe.passes).run(
      on: try TinyModel.model(), options: SweepOptions(calibration: TinyModel.sequences(8, length: 48)), into: sink)
    return await sink.blocks
  }

  private func checkpoint(_ blocks: [any ModelPart], as format: any CheckpointFormat) throws -> Checkpoint {
    let config = try format.configuration(
      of: blocks.flatMap { format.modules(of: $0) }, in: try ModelConfig(text: TinyModel.config.utf8))
    let tensors = try blocks.flatMap { try format.encode($0) }
    return Checkpoint(
      directory: URL(filePath: "/nonexistent"), config: try ModelConfig(text: config.text().utf8), tensors: MemoryTensorSource(tensors))
  }

  private static let factors = "{ low_rank: { rank_multiple: 4, share: always, layers: { exclude: ['layers.1.mlp.*'] } } }"

  @Test(arguments: [
    ("safetensors", factors), ("compressed-tensors", factors), ("compressed-tensors", factors + ", { gptq: { group_size: 4 } }"),
    ("compressed-tensors", factors + ", { rtn: { bits: 8, group_size: channel } }"),
    ("safetensors", "{ kv_latents: { heads_per_group: 1 } }"),
    ("compressed-tensors", "{ kv_latents: { heads_per_group: 1 } }, { gptq: { group_size: 4 } }"),
  ])
  func whatIsWrittenIsReadAgain(_ name: String, _ passes: String) async throws {
    let blocks = try await blocks(passes)
    let checkpoint = try checkpoint(blocks, as: FormatCatalog.standard[name]!)
    let model = try Model(checkpoint)
    #expect(model.carried.isEmpty)
    #expect(checkpoint.config.json["quantization_config"]?["quant_method"]?.string == "low_rank")
    for (index, place) in model.places.enumerated() {
      let (before, after) = (blocks[index], try model.part(place))
      for (name, linear) in before.linears {
        let again = after[name].weight
        #expect(linear.weight.dense() == again.dense(), "\(name)")
        guard let factors = linear.weight as? FactoredWeight else { continue }
        let read = try #require(again as? FactoredWeight)
        #expect(read.rank == factors.rank && read.groups == factors.groups && read.sharesInputOf == factors.sharesInputOf)
        #expect(read.isQuantized == factors.isQuantized)
        #expect(read.storedBits == factors.storedBits(denseAs: .float32))
      }
    }
  }

  @Test(arguments: ["gguf", "mlx", "gptq", "awq"]) func runtimesWithoutFactorsAreRefused(_ name: String) async throws {
    let blocks = try await blocks(Self.factors)
    let error = #expect(throws: FormatError.self) { _ = try FormatCatalog.standard[name]!.encode(blocks[1]) }
    #expect("\(error!)".contains("two low-rank factors"))
    _ = try FormatCatalog.standard[name]!.encode(blocks[1].merged())
  }

  @Test(arguments: [
    ("low_rank: { ratio: 0.4 }", true), ("low_rank: { ratio: 0.4, merge: true }", false), ("rtn: { bits: 8, group_size: 16 }", false),
  ])
  func aPlanSaysWhoReadsFactors(pass: String, isFactored: Bool) async throws {
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "model")
      try await TinyModel.write(to: place)
      try TinyModel.write(tokens: TinyModel.sequences(3, length: 32).flatMap { $0 }, to: place.appending(path: "t.npy"))
      let yaml = "calibration: { tokens: t.npy, sequences: 2, length: 32 }\npasses: [ { \(pass) } ]"
      let recipe = try Recipe(yaml: yaml, file: "test", passes: .standard)
      let remarks = try Compressor(recipe: recipe).plan(try Checkpoint(place)).remarks
      #expect(remarks.contains { $0.contains("which only this program reads") } == isFactored, "\(remarks)")
    }
  }

  @Test func theConfigurationIsChecked() async throws {
    let blocks = try await blocks(Self.factors)
    let good = try checkpoint(blocks, as: PlainFormat())
    var json = good.config.json
    json["quantization_config"]!["factors"] = .null
    let bad = Checkpoint(
      directory: good.directory, config: try ModelConfig(text: json.text().utf8), tensors: good.tensors)
    #expect(throws: CheckpointError.self) { _ = try Model(bad) }
    let lacking = Checkpoint(
      directory: good.directory, config: good.config,
      tensors: MemoryTensorSource(
        try good.tensors.names.filter { !$0.hasSuffix("o_proj.B.weight") }.map {
          NamedTensor(name: $0, tensor: try good.tensors.tensor($0))
        }))
    #expect(throws: CheckpointError.self) { _ = try Model(lacking).block(0) }
  }
}
