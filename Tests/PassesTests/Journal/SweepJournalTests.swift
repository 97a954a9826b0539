import CompressKit
import Foundation
import TestSupport
import Testing

/// A sink that ends the run when it is given some part.
private actor Breaking: PartSink {
  private var left: Int

  init(after count: Int) { left = count }

  func append(_ part: any ModelPart) throws {
    guard left > 0 else { throw CancellationError() }
    left -= 1
  }
}

/// Sweeps that are interrupted behind every part and taken up again make what undisturbed ones make.
@Suite struct SweepJournalTests {
  private static let mixture = """
    {"model_type":"mixtral","vocab_size":64,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":4,
     "num_key_value_heads":2,"num_local_experts":4,"num_experts_per_tok":2,"rms_norm_eps":1e-05,"max_position_embeddings":64,
     "tie_word_embeddings":false}
    """
  private static let hybrid = """
    {"model_type":"qwen3_next","vocab_size":64,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":3,"num_attention_heads":4,
     "num_key_value_heads":2,"head_dim":16,"linear_num_key_heads":2,"linear_num_value_heads":4,"linear_key_head_dim":8,
     "linear_value_head_dim":8,"linear_conv_kernel_dim":4,"full_attention_interval":3,"num_experts":0,"mlp_only_layers":[],
     "decoder_sparse_step":1,"moe_intermediate_size":16,"shared_expert_intermediate_size":16,"num_experts_per_tok":2,
     "rms_norm_eps":1e-06,"max_position_embeddings":64,"tie_word_embeddings":false,"partial_rotary_factor":0.25,"rope_theta":10000.0}
    """

  private static let sequences = TinyModel.sequences(8, length: 24)

  private static let recipes = [
    "{ gptq: { bits: 3, group_size: 16, drift_correction: 0.5, refine: 2 } }",
    "{ smoothquant: {} }, { rtn: { scheme: w8a8 } }",
    "{ rotate: {} }, { gptq: { bits: 4, group_size: 32 } }",
    "{ awq: { grid: 5 } }, { rtn: { bits: 4, group_size: 16, symmetric: false } }",
    "{ allocate: { target: 6bpw, probes: 2, candidates: [{ bits: 3, group_size: 16 }, { bits: 8, group_size: 16 }] } }",
    "{ sparsegpt: { sparsity: 0.5 } }, { gptq: { bits: 4, group_size: 16 } }",
    "{ prune_width: { ratio: 0.3 } }, { gptq: { bits: 4, group_size: 8 } }",
    "{ prune_depth: { ratio: 0.5, criterion: influence } }, { rtn: { bits: 4, group_size: 16 } }",
    "{ low_rank: { ratio: 0.4 } }",
    "{ rtn: { bits: 3, group_size: 16 } }, { lqer: { rank: 4 } }",
    "{ ggml: { type: q8_0 } }",
    "{ gptq: { bits: 2, group_size: 16 } }, { tune: { moves: [scales, norms], epochs: 1 } }",
    "{ rtn: { bits: 3, group_size: 16 } }, { distill: { epochs: 1, batch: 2 } }, { kv_cache: { scheme: fp8 } }",
  ]

  private static func passes(_ yaml: String) throws -> [any Pass] {
    try Recipe(yaml: "passes: [ \(yaml) ]", file: "test", passes: .standard).passes
  }

  private static func check(_ yaml: String, _ config: String) async throws {
    let model = try TinyModel.model(config)
    let pipeline = Pipeline(try passes(yaml))
    let whole = Shelf()
    let expected = try await pipeline.run(on: model, options: SweepOptions(calibration: sequences), into: whole)
    let parts = await whole.parts
    for count in 0..<parts.count {
      try await Places.withTemporaryDirectory { directory in
        let place = directory.appending(path: ".out.compress-journal")
        let broken = Breaking(after: count)
        var options = SweepOptions(calibration: sequences)
        options.journal = SweepJournal(try RunJournal(at: place, of: [("recipe", yaml)], fresh: false))
        await #expect(throws: CancellationError.self) { try await pipeline.run(on: model, options: options, into: broken) }
        let (resumed, again) = (Shelf(), try RunJournal(at: place, of: [("recipe", yaml)], fresh: false))
        options.journal = SweepJournal(again)
        let report = try await pipeline.run(on: model, options: options, into: resumed)
        #expect(report.remarks.contains { $0.hasPrefix("taken up again") }, "\(yaml) behind \(count): \(report.remarks)")
        #expect(!report.remarks.contains { $0.contains("could not be taken up") }, "\(report.remarks)")
        #expect(report.layers == expected.layers, "\(yaml) behind \(count)")
        #expect(report.training.map(\.lossAfter) == expected.training.map(\.lossAfter))
        #expect(report.blocks.map(\.block) == expected.blocks.map(\.block))
        let others = await resumed.parts
        try #require(others.count == parts.count)
        for (part, other) in zip(parts, others) { expectSame(part, other, "\(yaml) behind \(count)") }
      }
    }
  }

  private static func expectSame(_ part: any ModelPart, _ other: any ModelPart, _ what: String) {
    #expect(part.name == other.name && part.norms.weights == other.norms.weights && part.norms.biases == other.norms.biases, "\(what)")
    if let block = part as? Block, let again = other as? Block {
      #expect(block.description == again.description && block.cache == again.cache && block.cachePolicy == again.cachePolicy, "\(what)")
    }
    #expect(Set(part.linears.keys) == Set(other.linears.keys))
    for (name, linear) in part.linears {
      let again = other[name]
      #expect(type(of: linear.weight) == type(of: again.weight), "\(what): \(name)")
      #expect((linear.weight as? QuantizedMatrix) == (again.weight as? QuantizedMatrix), "\(what): \(name)")
      #expect(linear.weight.dense() == again.weight.dense(), "\(what): \(name)")
      #expect(linear.bias == again.bias && linear.inputQuantization == again.inputQuantization && linear.scaleType == again.scaleType)
    }
  }

  @Test(arguments: recipes) func interruptedBehindAnyPart(yaml: String) async throws { try await Self.check(yaml, TinyModel.config) }

  @Test(arguments: [mixture, hybrid]) func otherBlocks(config: String) async throws {
    try await Self.check("{ gptq: { bits: 4, group_size: 16, drift_correction: 0.5 } }", config)
  }

  /// What is damaged in a journal is an error that names the file, whichever byte it is: no trap, and no other result.
  @Test(arguments: [recipes[0], recipes[4], recipes[12]]) func aDamagedJournalIsRefused(yaml: String) async throws {
    let model = try TinyModel.model()
    let pipeline = Pipeline(try Self.passes(yaml))
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "journal")
      var options = SweepOptions(calibration: Self.sequences)
      options.journal = SweepJournal(try RunJournal(at: place, of: [], fresh: false))
      await #expect(throws: CancellationError.self) { try await pipeline.run(on: model, options: options, into: Breaking(after: 2)) }
      let names = try FileManager.default.contentsOfDirectory(atPath: place.path).filter { $0.hasSuffix(".safetensors") }.sorted()
      #expect(names.count >= 3)
      var randomness = KeyedRandomness(seed: 7, key: yaml)
      for name in names {
        let file = place.appending(path: name)
        let bytes = try Data(contentsOf: file)
        var damaged = [bytes.prefix(bytes.count / 2), bytes + [0], Data()]
        for _ in 0..<8 {
          var changed = bytes
          changed[Int.random(in: 0..<bytes.count, using: &randomness)] ^= 1 << UInt8.random(in: 0..<8, using: &randomness)
          damaged.append(changed)
        }
        for contents in damaged {
          try contents.write(to: file)
          let error = await #expect(throws: (any Error).self) { try await pipeline.run(on: model, options: options, into: Shelf()) }
          let cause = (error as? PipelineError)?.cause ?? error
          #expect((cause as? DamagedJournal)?.file == file.path, "\(name): \(String(describing: error))")
        }
        try bytes.write(to: file)
      }
      let report = try await pipeline.run(on: model, options: options, into: Shelf())
      #expect(report.remarks.contains { $0.hasPrefix("taken up again") })
    }
  }

  @Test func progressIsToldByPhase() async throws {
    let model = try TinyModel.model()
    let pipeline = Pipeline(try Self.passes(Self.recipes[12]))
    try await Places.withTemporaryDirectory { directory in
      let journal = try RunJournal(at: directory.appending(path: "journal"), of: [], fresh: false)
      var options = SweepOptions(calibration: Self.sequences)
      options.journal = SweepJournal(journal)
      #expect(SweepJournal.progress(of: journal).isEmpty && !SweepJournal.holdsWork(journal))
      await #expect(throws: CancellationError.self) { try await pipeline.run(on: model, options: options, into: Breaking(after: 1)) }
      let phases = SweepJournal.progress(of: journal)
      #expect(phases.map(\.passes) == [["rtn"], ["distill"], ["kv_cache"]])
      try #require(phases.count == 3)
      #expect(phases.map(\.parts) == [4, 4, 4] && phases.prefix(2).map(\.finished) == [4, 4])
      #expect((1...3).contains(phases[2].finished) && SweepJournal.holdsWork(journal))
    }
  }
}
