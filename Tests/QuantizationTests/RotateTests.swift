import CompressKit
import Foundation
import TestSupport
import Testing

private actor Parts: PartSink {
  var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }
}

/// The model that a sweep makes of another.
private func sweep(
  _ passes: [any Pass], on model: Model, seed: UInt64 = 0, strict: Bool = true, sequences: [[Int32]] = []
) async throws -> (model: Model, report: Report) {
  let sink = Parts()
  let options = SweepOptions(calibration: sequences, seed: seed, strict: strict)
  let report = try await Pipeline(passes).run(on: model, options: options, into: sink)
  let parts = Dictionary(uniqueKeysWithValues: await sink.parts.map { ($0.place, $0) })
  var description = model.description
  description.head = parts[.head]!.linears.keys.first?.rawValue
  return (Model(description: description) { parts[$0]! }, report)
}

/// The largest difference between two models' logits over the largest logit.
private func drift(_ a: Model, _ b: Model) throws -> Float {
  let tokens = TinyModel.sequences(1, length: 48)[0]
  let (x, y) = (try a.logits(of: tokens), try b.logits(of: tokens))
  return zip(x.elements, y.elements).reduce(0) { max($0, abs($1.0 - $1.1)) } / x.elements.reduce(0) { max($0, abs($1)) }
}

/// Every input norm of every group, by name of the group's first linear.
private struct Watching: BlockPass {
  static let name = "watching"
  var isExact: Bool { true }
  func run(on block: inout Block, in context: PassContext) throws {
    for group in block.inputGroups {
      let norms = try context.statistic(InputNorm.self, of: group, in: block).values
      context.record(group.linears[0], in: block, Dictionary(uniqueKeysWithValues: norms.enumerated().map { ("\($0)", Double($1)) }))
    }
  }
}

/// Records how far inputs are from those in the reference model, and changes nothing.
private struct Comparing: BlockPass {
  static let name = "comparing"
  var comparesInputs: Bool { true }
  func run(on block: inout Block, in context: PassContext) throws {
    for group in block.inputGroups {
      let drift = try context.drift(of: group, in: block)
      context.record(group.linears[0], in: block, ["drift": drift.cross.reduce(0) { max($0, abs($1)) }])
    }
  }
}

/// Changes nothing, though nobody promised that.
private struct Inert: Pass {
  static let name = "inert"
  var usesCalibration: Bool { false }
  func run(on part: inout any ModelPart, in context: PassContext) {}
}

/// Asks what the weights of the first block are.
private struct Peeking: BlockPass {
  struct Weights: Analysis {
    func answer(for model: Model, in context: AnalysisContext) async throws -> [String: Matrix] {
      let block = try model.block(0)
      return Dictionary(uniqueKeysWithValues: block.linears.map { ($0.key.rawValue, $0.value.weight.dense()) })
    }
  }
  static let name = "peeking"
  var usesCalibration: Bool { false }
  var analyses: [any Analysis] { [Weights()] }
  func run(on block: inout Block, in context: PassContext) {
    guard block.index == 0 else { return }
    for (name, seen) in context.answer(to: Weights()) {
      let isSame = block[LinearName(rawValue: name)].weight.dense() == seen
      context.record(LinearName(rawValue: name), in: block, ["same": isSame ? 1 : 0])
    }
  }
}

private let tied = TinyModel.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true")

struct RotateTests {
  static let models = [
    "grouped queries": TinyModel.config,
    "tied": tied,
    "biases everywhere": TinyModel.config.replacing("{\"model", with: "{\"attention_bias\":true,\"mlp_bias\":true,\"model"),
    "Qwen2, tied": tied.replacing("llama", with: "qwen2"),
    "Qwen3": TinyModel.config.replacing("\"model_type\":\"llama\"", with: "\"head_dim\":16,\"model_type\":\"qwen3\""),
    "orders of Paley": TinyModel.config.replacing("\"hidden_size\":32", with: "\"hidden_size\":60,\"head_dim\":12"),
  ]

  @Test(arguments: models.keys.sorted(), Rotate.Choice.allCases) func theModelComputesWhatItDid(
    _ name: String, _ choice: Rotate.Choice
  ) async throws {
    let model = try TinyModel.model(try #require(Self.models[name]))
    for values in Rotate.Choice.allCases where choice != .none || values != .none {
      let (rotated, report) = try await sweep([.rotate(hidden: choice, values: values)], on: model)
      #expect(try drift(model, rotated) < 1e-5, "\(choice) \(values)")
      #expect(rotated.description.head == (choice == .none ? model.description.head : "lm_head"))
      for place in rotated.places {
        let (before, after) = (try model.part(place), try rotated.part(place))
        for (norm, weight) in after.norms.weights {
          let isFolded = choice != .none && !norm.hasSuffix("q_norm") && !norm.hasSuffix("k_norm")
          #expect(weight == (isFolded ? weight.map { _ in 1 } : before.norms[norm]))
        }
        // Each linear is one that some rotation must touch, or one that none may.
        for (linear, old) in before.linears {
          let touched = choice != .none || ["self_attn.v_proj", "self_attn.o_proj"].contains(linear.rawValue)
          #expect((old.weight.dense() != after[linear].weight.dense()) == touched, "\(linear)")
          let record = report.layers.first { $0.layer == before.fullName(of: linear) }
          #expect((record?.metrics["incoherence_after"] ?? 0 > 0) == touched)
        }
      }
    }
  }

  @Test func theHiddenRotationIsOneAndTheValuesHaveOneEach() async throws {
    let model = try TinyModel.model()
    let (rotated, _) = try await sweep([.rotate(values: .none)], on: model, seed: 4)
    // Eᵀ·E' = Eᵀ·E·Q in every coordinate system; the embedding gives Q by its effect on the head's rows as well.
    var random = KeyedRandomness(seed: 4, key: "rotate", "hidden")
    let matrix = OrthogonalMatrix.hadamard(size: 32, using: &random)
    let table = try model.embedding()["embed_tokens"].weight.dense()
    #expect(try rotated.embedding()["embed_tokens"].weight.dense() == table.times([matrix]))
    let (block, old) = (try rotated.block(1), try model.block(1))
    #expect(
      block["mlp.up_proj"].weight.dense()
        == old["mlp.up_proj"].weight.dense().times([matrix], scaling: old.norms["post_attention_layernorm"]))
    #expect(block["mlp.down_proj"].weight.dense() == old["mlp.down_proj"].weight.dense().multiplied(onTheLeftByTransposeOf: [matrix]))
    let (values, _) = try await sweep([.rotate(hidden: .none, values: .random)], on: model, seed: 4)
    func gram(_ model: Model, _ layer: Int, _ head: Int) throws -> Matrix {
      let part = try model.block(layer)["self_attn.v_proj"].weight.dense().rows(head * 8..<head * 8 + 8).transposed()
      return part.times(transposed: part)
    }
    for layer in 0..<2 {
      for head in 0..<2 {
        let (a, b) = (try gram(model, layer, head), try gram(values, layer, head))
        #expect(zip(a.elements, b.elements).allSatisfy { abs($0 - $1) < 1e-5 }, "heads do not mix")
      }
    }
  }

  @Test func seedsDecideAndThreadsDoNot() async throws {
    let model = try TinyModel.model(tied)
    func weights(seed: UInt64, width: Int = 2) async throws -> [Matrix] {
      let (rotated, _) = try await Parallel.$width.withValue(width) { try await sweep([.rotate(hidden: .random)], on: model, seed: seed) }
      return try rotated.places.map { try rotated.part($0) }.flatMap { block in
        block.inputGroups.flatMap(\.linears).map { block[$0].weight.dense() }
      }
    }
    let first = try await weights(seed: 1)
    #expect(try await weights(seed: 1, width: 1) == first)
    let other = try await weights(seed: 2)
    #expect(zip(first, other).allSatisfy { $0 != $1 })
  }

  @Test func calibrationSeesTheRotatedModel() async throws {
    let (model, sequences) = (try TinyModel.model(tied), TinyModel.sequences(4, length: 32))
    func norms(_ passes: [any Pass]) async throws -> [String: [String: Double]] {
      let records = try await sweep(passes, on: model, sequences: sequences).report.layers.filter { $0.pass == "watching" }
      return Dictionary(records.map { ($0.layer, $0.metrics) }) { _, last in last }
    }
    let (plain, rotated) = (try await norms([Watching()]), try await norms([.rotate(values: .none), Watching()]))
    #expect(plain.count == 8)
    for (name, before) in plain {
      let after = try #require(rotated[name])
      // What the rotation of the hidden states leaves alone must come out the same in every feature, block after block.
      let same = before.keys.allSatisfy { abs(before[$0]! - after[$0]!) < 1e-4 * max(1, before[$0]!) }
      #expect(same == (name.hasSuffix("o_proj") || name.hasSuffix("down_proj")), "\(name)")
    }
    // A rotation of the values in between makes kept inputs stale.
    let twice = try await norms([Watching(), .rotate(hidden: .none), Watching()])
    let once = try await norms([.rotate(hidden: .none), Watching()])
    #expect(twice == once && twice["model.layers.0.self_attn.o_proj"] != plain["model.layers.0.self_attn.o_proj"])
  }

  @Test func theReferenceIsRotatedToo() async throws {
    let (model, sequences) = (try TinyModel.model(tied), TinyModel.sequences(3, length: 24))
    for passes in [[.rotate(), Comparing()], [Inert(), .rotate(), Inert(), Comparing()]] as [[any Pass]] {
      let drifts = try await sweep(passes, on: model, sequences: sequences).report.layers.filter { $0.pass == "comparing" }
      #expect(drifts.count == 8 && drifts.allSatisfy { $0.metrics["drift"] == 0 })
    }
    let quantized: [any Pass] = [.rotate(), RoundToNearest.rtn(bits: 3, groupSize: 16), Comparing()]
    let drifts = try await sweep(quantized, on: model, sequences: sequences).report.layers.filter { $0.pass == "comparing" }
    #expect(drifts.count { $0.metrics["drift"]! > 0 } == 7, "all but the first group")
  }

  @Test func analysesSeeTheRotatedModel() async throws {
    let (_, report) = try await sweep([.rotate(), Peeking()], on: try TinyModel.model(tied))
    let seen = report.layers.filter { $0.pass == "peeking" }
    #expect(seen.count == 7 && seen.allSatisfy { $0.metrics["same"] == 1 })
  }

  @Test func passesThatWouldBeMisledOrUndoneAreRefused() async throws {
    let model = try TinyModel.model(dtype: .bfloat16)
    func refusal(_ passes: [any Pass]) -> InvalidOption? {
      do { _ = try Pipeline(passes).plan(for: model) } catch { return (error as? PipelineError)?.cause as? InvalidOption }
      return nil
    }
    let (gptq, rtn) = (GPTQ.gptq(groupSize: 16), RoundToNearest.rtn(groupSize: 16))
    #expect(refusal([.rotate(), gptq]) == nil)
    #expect(refusal([rtn, .rotate()])?.reason.contains("int4 g16") == true)
    #expect(refusal([gptq, .rotate(hidden: .none)])?.reason.contains("put rotate before") == true)
    #expect(refusal([Watching(), .rotate()])?.reason.contains("watching would see") == true)
    #expect(refusal([Watching(), .rotate(hidden: .none)]) == nil)
    let cached: [any Pass] = [CacheCompression(), .rotate(hidden: .none)]
    for passes in [[rtn, .rotate()], [Watching(), .rotate()], cached] as [[any Pass]] {
      let error = await #expect(throws: PipelineError.self) { try await sweep(passes, on: model, sequences: [[1, 2, 3]]) }
      #expect(error?.cause is InvalidOption)
    }
    #expect(throws: InvalidOption.self) { try Rotate.rotate(hidden: .none, values: .none).validate() }
  }

  @Test func sizesWithoutAHadamardMatrixAreReported() async throws {
    let config = TinyModel.config.replacing("\"hidden_size\":32", with: "\"hidden_size\":46,\"head_dim\":8")
    let model = try TinyModel.model(config)
    let (rotated, report) = try await sweep([.rotate()], on: model, strict: false)
    #expect(try drift(model, rotated) < 1e-5)
    // Both ends and seven linears in each of two blocks.
    #expect(report.fallbacks.count == 16 && report.fallbacks.allSatisfy { $0.fallback!.contains("order 46") })
    await #expect(throws: PipelineError.self) { try await sweep([.rotate()], on: model) }
    #expect(try await sweep([.rotate(hidden: .random)], on: model).report.fallbacks.isEmpty)
  }

  @Test(arguments: [TinyModel.config, tied, tied.replacing("llama", with: "qwen2")]) func theWrittenCheckpointComputesTheSame(
    _ config: String
  ) async throws {
    try await Places.withTemporaryDirectory { directory in
      let (source, output) = (directory.appending(path: "model"), directory.appending(path: "rotated"))
      try await TinyModel.write(to: source, config, dtype: .float32)
      let recipe = try Recipe(
        yaml: "passes: [rotate]\noutput: { format: safetensors }", file: "rotate.yaml", passes: .standard)
      let checkpoint = try Checkpoint(source)
      let compressor = Compressor(recipe: recipe)
      let plan = try compressor.plan(checkpoint)
      let report = try await compressor.run(checkpoint, to: output)
      let (before, written) = (try Model(checkpoint), try Checkpoint(output))
      let after = try Model(written)
      #expect(try drift(before, after) < 1e-5)
      #expect(written.config.json["tie_word_embeddings"]?.bool == false && after.description.head == "lm_head")
      #expect(written.tensors.info("lm_head.weight")?.dtype == .float32)
      #expect(plan.estimate.outputBytes == report.sizes.bytesAfter)
      #expect(report.sizes.linearBitsPerWeight == 32)
      let added = before.description.head == nil ? 64 * 32 * 4 : 0
      #expect(report.sizes.bytesAfter == report.sizes.bytesBefore + added)
      #expect(report.remarks.contains { $0.contains("lm_head was tied") && $0.contains("8.19 kB more") } == (added > 0))
      #expect(plan.linears.filter { $0.sourceBits == 0 }.map(\.name) == (added > 0 ? ["lm_head"] : []))
    }
  }

  @Test func laterPassesWorkOnTheRotatedModel() async throws {
    var gptq = GPTQ.gptq(bits: 8, groupSize: .channel)
    gptq.layers = LayerSelector(include: ["*", "lm_head"])
    let model = try TinyModel.model(tied)
    let (result, report) = try await sweep([.rotate(), gptq], on: model, sequences: TinyModel.sequences(6, length: 40))
    #expect(try drift(model, result) < 0.02)
    #expect(try result.head()["lm_head"].weight is QuantizedMatrix)
    #expect(report.layers.count { $0.pass == "gptq" } == 15 && report.fallbacks.isEmpty)
  }
}
