import CompressKit
import Foundation
import TestSupport
import Testing

/// Every family through the whole program: checkpoint, recipe, compression, what was written reopened and scored.
struct FamilyRunTests {
  private func run(_ name: String, _ passes: String, format: String = "compressed-tensors", dtype: DType = .bfloat16, sequences: Int = 24)
    async throws
    -> (report: CompressionReport, config: JSON, tensors: [String: TensorInfo])
  {
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "model")
      try await TinyModel.write(to: source, Families.configuration(name), dtype: dtype)
      let tokens = TinyModel.sequences(24, length: 32).flatMap { $0 }
      try TinyModel.write(tokens: tokens, to: directory.appending(path: "calibration.npy"))
      try TinyModel.write(tokens: Array(tokens.reversed().prefix(256)), to: directory.appending(path: "evaluation.npy"))
      let yaml = """
        calibration: { tokens: calibration.npy, sequences: \(sequences), length: 32 }
        passes: [\(passes)]
        output: { format: \(format) }
        evaluation: { tokens: evaluation.npy, window: 32 }
        """
      let recipe = try Recipe(yaml: yaml, file: "recipe.yaml", passes: .standard)
      let output = directory.appending(path: "out")
      let report = try await Compressor(recipe: recipe, bases: [directory], memoryLimit: 1 << 30).run(try Checkpoint(source), to: output)
      let written = try Checkpoint(output)
      let infos = Dictionary(uniqueKeysWithValues: written.tensors.names.map { ($0, written.tensors.info($0)!) })
      return (report, written.config.json, infos)
    }
  }

  /// GPT-2's modules are stored transposed, which no packed format's runtimes know.
  @Test(arguments: ["compressed-tensors", "gptq", "awq", "mlx"]) func transposedModulesAreNotPacked(format: String) async throws {
    let passes = "{ rtn: { bits: 4, group_size: 32 } }"
    let error = await #expect(throws: (any Error).self) { try await run("gpt2", passes, format: format, sequences: 4) }
    #expect("\(try #require(error))".contains("no packed kind of this family's transposed modules"))
    let (report, _, tensors) = try await run("gpt2", passes, format: "safetensors", sequences: 4)
    #expect(try #require(report.distance) > 0 && tensors["transformer.h.0.mlp.c_fc.weight"]?.shape == [32, 64])
  }

  private static let packable = Families.names.filter { !$0.hasPrefix("gpt2") }

  @Test(arguments: packable) func fourBits(_ name: String) async throws {
    for passes in ["rtn: { bits: 4, group_size: 32 }", "gptq: { bits: 4, group_size: 32, drift_correction: 0.5 }"] {
      let (report, config, tensors) = try await run(name, "{ \(passes) }")
      let description = try Families.model(name).description
      if description.hasLogits {
        let figures = try #require(report.evaluation)
        #expect(figures.perplexityAfter.isFinite && figures.klDivergence.isFinite && figures.klDivergence > 0, "\(passes)")
        // Products of queries and keys are not made smaller in Gemma 4, so attention at random weights is all or nothing.
        #expect(figures.top1Agreement > (name.hasPrefix("gemma4") ? 0.2 : 0.3), "\(passes)")
      } else {
        let cosine = try #require(report.similarity).cosine
        #expect(report.evaluation == nil && cosine.sequences == 8 && cosine.tokens == 256)
        #expect(cosine.tokenwise.minimum > 0.9 && cosine.tokenwise.mean < 1 && cosine.pooled.mean > 0.9, "\(passes)")
      }
      #expect(report.carriedTensors.isEmpty)
      let isSensitive = description.blocks.contains { !$0.sensitive.isEmpty }
      #expect(report.remarks.contains { $0.contains("errors grow along the sequence") } == isSensitive)
      let isSeparated = Families.stacked.contains(name) && !["llama4", "qwen3.5-moe"].contains(name)
      #expect(report.remarks.contains { $0.contains("compressed experts are stored one by one") } == isSeparated)
      for block in description.blocks {
        for linear in block.linearShapes.keys {
          let isPacked = tensors[block.prefix + linear.rawValue + ".weight_packed"] != nil
          #expect(isPacked != block.namedOnly.contains(linear), "\(linear)")
        }
      }
      let ignored = config["quantization_config"]?["ignore"]?.elements?.compactMap(\.string) ?? []
      for block in description.blocks {
        for router in block.namedOnly {
          #expect(ignored.contains(block.prefix + router.rawValue))
          // transformers asks for what it calls the module, whatever the file does.
          #expect(ignored.contains((block.prefix + router.rawValue).replacing("backbone.", with: "model.")))
        }
      }
    }
  }

  /// The form in which vendors release models: read back, it scores what was scored before it was written.
  @Test(arguments: ["llama-yarn", "qwen3-moe", "glm4-moe", "gpt-oss"]) func tilesAsVendorsHaveThem(_ name: String) async throws {
    let passes = "{ rtn: { numbers: fp8, group_size: 128x128, activations: fp8_g128 } }"
    let (report, config, tensors) = try await run(name, passes, format: "fp8-block", sequences: 4)
    let figures = try #require(report.evaluation)
    #expect(figures.klDivergence > 0 && figures.klDivergence < 0.1)
    let quantization = try #require(config["quantization_config"])
    #expect(
      quantization["quant_method"]?.string == "fp8" && quantization["weight_block_size"]?.elements?.compactMap(\.integer) == [128, 128])
    let stay = Set(quantization["modules_to_not_convert"]?.elements?.compactMap(\.string) ?? [])
    for block in try Families.model(name).description.blocks {
      for linear in block.linearShapes.keys {
        let module = block.prefix + linear.rawValue
        let isNamedOnly = block.namedOnly.contains(linear)
        #expect(stay.contains(module) == isNamedOnly && (tensors[module + ".weight_scale_inv"] == nil) == isNamedOnly)
        #expect((tensors[module + ".weight"]?.dtype == .float8E4M3) != isNamedOnly)
      }
    }
  }

  /// An original with quantized inputs: rounded anew its inputs are what the recipe says, and as numbers alone it is read without that.
  @Test func originalsInTilesAreRoundedAnewAndTurnedIntoNumbers() async throws {
    try await Places.withTemporaryDirectory { directory in
      let (model, tiles, rounded, plain) = (
        directory.appending(path: "model"), directory.appending(path: "tiles"), directory.appending(path: "rounded"),
        directory.appending(path: "plain")
      )
      try await TinyModel.write(to: model, Families.configuration("qwen3-moe"))
      func run(_ passes: String, _ format: String, _ source: URL, _ output: URL) async throws {
        let yaml = "passes: [\(passes)]\noutput: { format: \(format) }\n"
        let recipe = try Recipe(yaml: yaml, file: "recipe.yaml", passes: .standard)
        _ = try await Compressor(recipe: recipe, bases: [directory], memoryLimit: 1 << 30).run(try Checkpoint(source), to: output)
      }
      try await run("{ rtn: { numbers: fp8, group_size: 128x128, activations: fp8_g128 } }", "fp8-block", model, tiles)
      let original = try Model(try Checkpoint(tiles))
      #expect(try original.block(0)["self_attn.q_proj"].inputQuantization == .fp8Group)

      try await run("{ rtn: { bits: 4, group_size: 32 } }", "compressed-tensors", tiles, rounded)
      let groups = try Checkpoint(rounded).config.json["quantization_config"]?["config_groups"]?.members ?? []
      #expect(groups.count == 1 && groups[0].value["input_activations"]?.isNull == true)
      #expect(groups[0].value["format"]?.string == "pack-quantized")

      // Pruned, its weights are numbers, which no format has quantized inputs for.
      let pruned = directory.appending(path: "pruned")
      try await run("{ magnitude: { sparsity: 0.5 } }", "compressed-tensors", tiles, pruned)
      let sparse = try Model(try Checkpoint(pruned)).block(0)["self_attn.q_proj"]
      #expect(sparse.inputQuantization == nil && sparse.weight is StoredWeight)

      let report = try await Converter(to: PlainFormat()).run(try Checkpoint(tiles), to: plain)
      #expect(report.remarks.contains { $0.contains("as numbers alone they are read without that") })
      let numbers = try Model(try Checkpoint(plain))
      for index in 0..<2 {
        let (before, after) = (try original.block(index), try numbers.block(index))
        for (name, linear) in before.linears {
          let expected = linear.weight.dense().elements.map { DType.bfloat16.rounded($0) }
          #expect(after[name].weight.dense().elements == expected && after[name].inputQuantization == nil, "\(name)")
        }
      }
    }
  }

  /// What is rounded and stored as numbers lies in the family's own tensors, as any reader of the family expects it.
  @Test(arguments: Families.stacked) func roundedStacksStayStacks(_ name: String) async throws {
    let (_, _, tensors) = try await run(name, "{ rtn: { bits: 4, group_size: 32 } }", format: "safetensors", sequences: 4)
    let expected = try Families.model(name).description.tensorShapes
    #expect(Set(tensors.keys) == Set(expected.map(\.name)))
    for (tensor, shape) in expected { #expect(tensors[tensor]?.shape == shape, "\(tensor)") }
  }

  /// Recurrences and convolutions, latents and gates: what stands between linears does not keep passes from them.
  @Test(arguments: Families.hybrids) func halfOfTheWeights(_ name: String) async throws {
    let (report, _, _) = try await run(name, "{ wanda: { sparsity: 0.5 } }", format: "safetensors", dtype: .float32)
    let figures = try #require(report.evaluation)
    #expect(figures.perplexityAfter.isFinite && figures.klDivergence.isFinite && figures.klDivergence > 0)
    let description = try Families.model(name).description
    let pruned = description.blocks.flatMap { block in
      block.linearShapes.keys.filter { !block.namedOnly.contains($0) }.map { block.prefix + $0.rawValue }
    }
    for layer in pruned {
      #expect(report.layers.contains { $0.layer == layer && abs(($0.metrics["sparsity"] ?? 0) - 0.5) < 0.02 }, "\(layer)")
    }
  }

  /// Blocks are unlike each other; one of them goes, and the configuration says which kinds are left.
  @Test(arguments: Families.hybrids) func aBlockFewer(_ name: String) async throws {
    let (report, config, _) = try await run(name, "{ prune_depth: { count: 1 } }", format: "safetensors", dtype: .float32, sequences: 4)
    #expect(try #require(report.evaluation).perplexityAfter.isFinite)
    let description = try Families.model(name).description
    #expect(report.blocks.count { $0.block.contains("layers.") } == description.blocks.count - 1)
    let written = try ArchitectureCatalog.standard.describe(ModelConfig(text: config.text().utf8))
    let smaller = description.blocks.indices.map { gone in
      description.blocks.indices.filter { $0 != gone }.map { description.blocks[$0].mixers }
    }
    #expect(smaller.contains(written.blocks.map(\.mixers)))
  }

  /// mlx-lm and llama.cpp store these mixers in ways of their own.
  @Test(arguments: Families.hybrids, ["mlx", "gguf"]) func othersLayMixersOutTheirOwnWay(_ name: String, format: String) async throws {
    let error = await #expect(throws: (any Error).self) {
      try await run(name, "{ rtn: { bits: 4, group_size: 32 } }", format: format, sequences: 4)
    }
    let text = "\(try #require(error))"
    #expect(text.contains(format == "mlx" ? "in a way of its own" : "layout of"), "\(text)")
  }

  /// A model that nothing is done to keeps every bit.
  @Test(arguments: Families.names) func plainCopiesAreExact(_ name: String) async throws {
    try await Places.withTemporaryDirectory { directory in
      let (source, output) = (directory.appending(path: "model"), directory.appending(path: "out"))
      try await TinyModel.write(to: source, Families.configuration(name), dtype: .float32)
      _ = try await Converter(to: PlainFormat()).run(try Checkpoint(source), to: output)
      let (before, after) = (try Checkpoint(source).tensors, try Checkpoint(output).tensors)
      #expect(Set(before.names) == Set(after.names))
      for tensor in before.names { #expect(try before.tensor(tensor).bytes == after.tensor(tensor).bytes, "\(tensor)") }
    }
  }

  @Test(arguments: Families.names) func transformsAreExactOrRefused(_ name: String) async throws {
    let description = try Families.model(name).description
    let isLinear = description.norm.kind == .rootMeanSquare && description.blocks.allSatisfy { $0.norms.afterAttention == nil }
    let turnsValues = description.blocks.allSatisfy { $0.attention != nil && $0.valueObstacle == nil }
    let scales = description.blocks.contains { $0.attention?.normalizesValues == true }
    guard isLinear || turnsValues || scales else { return }
    let rotation = "{ rotate: { hidden: \(isLinear ? "hadamard" : "none"), values: \(turnsValues ? "hadamard" : "none") } }, "
    let passes = (isLinear || turnsValues ? rotation : "") + "{ smoothquant: { strength: 0.5, producers: all } }"
    let (report, _, _) = try await run(name, passes, format: "safetensors", dtype: .float32, sequences: 4)
    #expect(try #require(report.distance) < 1e-5)
    if !isLinear || !turnsValues {
      await #expect(throws: (any Error).self) {
        try await run(name, "{ rotate: {} }", format: "safetensors", dtype: .float32, sequences: 4)
      }
    }
    let awq = "{ awq: { grid: 2, tokens: 64, sequences: 4 } }, { rtn: { bits: 4, group_size: 32 } }"
    let (scaled, _, _) = try await run(name, awq, format: "safetensors", sequences: 4)
    #expect(try #require(scaled.distance).isFinite)
  }
}

extension CompressionReport {
  /// How far the output is from the original: the divergence, or what an encoder's cosines lack.
  fileprivate var distance: Double? { evaluation?.klDivergence ?? similarity.map { 1 - $0.cosine.tokenwise.mean } }
}
