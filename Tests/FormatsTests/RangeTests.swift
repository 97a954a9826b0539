import Foundation
import TestSupport
import Testing

@testable import CompressKit

/// What is stored in half precision has to fit it, and what comes in ggml's blocks has to be written somehow.
struct RangeTests {
  private func compressor(_ passes: String, format: String) throws -> Compressor {
    Compressor(
      recipe: try Recipe(yaml: "passes: [ \(passes) ]\noutput: { format: \(format) }", file: "r.yaml", passes: .standard), overwrite: true)
  }

  @Test(arguments: [
    ("rtn", "gptq"), ("rtn", "awq"), ("hqq", "gptq"), ("hqq", "awq"), ("ggml", "gguf"), ("rotate", "safetensors"),
  ])
  func oneLargeWeightIsRefused(_ pass: String, _ format: String) async throws {
    var checkpoint = try EditableCheckpoint(dtype: pass == "rotate" ? .float16 : .float32)
    let name = "model.layers.1.mlp.down_proj"
    let old = try #require(checkpoint[name + ".weight"])
    var values = old.floats()
    // A rotation adds what 32 numbers of 60000 are.
    for index in 0..<(pass == "rotate" ? 2048 : 1) { values[index] = pass == "rotate" ? 60_000 : 1e6 }
    checkpoint[name + ".weight"] = Tensor(values, shape: old.shape, dtype: old.dtype)
    let options = ["ggml": "type: q4_0", "rotate": "hidden: hadamard, values: none"][pass] ?? "group_size: 32, layers: down_proj"
    let recipe = try Recipe(yaml: "passes: [ { \(pass): { \(options) } } ]", file: "r.yaml", passes: .standard)
    let written = try #require(FormatCatalog.standard[format])
    var model = try checkpoint.model()
    model.scaleType = written.scaleType
    let sink = CheckpointSink(format: written, writer: nil)
    await #expect {
      _ = try await Pipeline(recipe.passes).run(on: model, into: sink)
    } throws: {
      // What rounds its scales to halves notices first, what stores halves at the latest.
      let words = "\($0)"
      return (words.contains("65504") || words.contains("would hold NaN or infinity")) && (words.contains(name) || pass == "rotate")
    }
  }

  /// 65504 · 7.5 is the most that a half scale of four bits covers.
  @Test func theLargestThatFitsIsWritten() async throws {
    for (value, fits) in [(Float(65504 * 7.5), true), (Float(65600 * 7.5), false)] {
      var checkpoint = try EditableCheckpoint()
      let name = "model.layers.1.mlp.down_proj.weight"
      var values = try #require(checkpoint[name]).floats()
      values[0] = value
      checkpoint[name] = Tensor(values, shape: [32, 64], dtype: .float32)
      let recipe = try Recipe(
        yaml: "passes: [ { rtn: { group_size: 32, scales: minmax, layers: down_proj } } ]", file: "r.yaml", passes: .standard)
      var model = try checkpoint.model()
      model.scaleType = .float16
      let sink = CheckpointSink(format: .gptq, writer: nil)
      var error: (any Error)?
      do { _ = try await Pipeline(recipe.passes).run(on: model, into: sink) } catch let found { error = found }
      #expect((error == nil) == fits)
    }
  }

  @Test(arguments: ["gptq", "awq"]) func theTypeTheModelComputesInStays(_ format: String) throws {
    let format = try #require(FormatCatalog.standard[format])
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .float16)
    let modules = [StoredModule(name: "model.layers.0.mlp.down_proj", scheme: scheme)]
    for key in ["dtype", "torch_dtype"] {
      let config = try ModelConfig(text: "{\"model_type\":\"llama\",\"\(key)\":\"bfloat16\"}".utf8)
      #expect(try format.configuration(of: modules, in: config)[key]?.string == "bfloat16")
    }
    let silent = try ModelConfig(text: "{\"model_type\":\"llama\"}".utf8)
    #expect(try format.configuration(of: modules, in: silent)["torch_dtype"] == nil)
  }

  @Test func whatStaysInBlocksIsWrittenAsItsNumbers() async throws {
    try await Places.withTemporaryDirectory { directory in
      let pocket = try Checkpoint(Places.root.appending(path: "Checkpoints/pocket-llama"))
      let (blocks, packed) = (directory.appending(path: "gguf"), directory.appending(path: "packed"))
      _ = try await compressor("{ ggml: { type: q8_0 } }", format: "gguf").run(pocket, to: blocks)
      let source = try Checkpoint(blocks)
      let before = try Model(source)
      for format in ["compressed-tensors", "gptq", "mlx", "safetensors"] {
        let zero = format == "mlx" ? ", symmetric: false, zero_point: real" : ""
        let report = try await compressor("{ rtn: { bits: 4, group_size: 32\(zero) } }", format: format).run(source, to: packed)
        let remark = try #require(report.remarks.first { $0.contains("come in ggml's blocks") })
        #expect(remark.hasPrefix("1 weights") || remark.hasPrefix("2 weights"), "\(remark)")
        let after = try Model(try Checkpoint(packed))
        let embedding = try (before.embedding(), after.embedding())
        #expect(embedding.0.linears.values.first!.weight.dense() == embedding.1.linears.values.first!.weight.dense())
      }
    }
  }

  @Test func scalesAndRotationsAreRefusedOverCodesBeforeAnythingIsDone() async throws {
    try await Places.withTemporaryDirectory { directory in
      let (model, packed) = (directory.appending(path: "model"), directory.appending(path: "packed"))
      try await TinyModel.write(to: model)
      _ = try await compressor("{ rtn: { group_size: 32 } }", format: "compressed-tensors").run(try Checkpoint(model), to: packed)
      let checkpoint = try Checkpoint(packed)
      for passes in [
        "{ awq: {} }, { rtn: { group_size: 16 } }", "{ smoothquant: { strength: 0.5 } }", "{ rotate: {} }", "{ slicegpt: {} }",
        "{ prune_width: {} }", "{ low_rank: {} }",
      ] {
        // There is no calibration data: what is refused is refused before it is looked for.
        #expect { try compressor(passes, format: "safetensors").plan(checkpoint) } throws: {
          "\($0)".contains("stored as int4 g32")
        }
      }
    }
  }
}
