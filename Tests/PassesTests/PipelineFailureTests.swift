import CompressKit
import Foundation
import Synchronization
import TestSupport
import Testing

/// Does as told in one block.
private struct Misbehaving: Pass {
  static let name = "misbehaving"
  enum Manner: String, Codable { case fails, cancels, fallsBack, takesTwo }
  struct Mishap: Error, Equatable {}

  var manner = Manner.fails
  var place = "model.layers.1"
  var usesCalibration: Bool { false }

  init() {}
  init(_ manner: Manner) { self.manner = manner }

  func run(on part: inout any ModelPart, in context: PassContext) throws {
    guard part.name == place else { return }
    switch manner {
    case .fails: throw Mishap()
    case .cancels: withUnsafeCurrentTask { $0?.cancel() }
    case .fallsBack:
      context.record("mlp.up_proj", in: part, ["loss": 1], scheme: "none")
      try context.recordFallback("mlp.up_proj", in: part, "it would not")
      context.record("mlp.up_proj", in: part, ["gain": 2])
    case .takesTwo: context.record("mlp.up_proj", in: part, ["loss": 1])
    }
  }
}

@Suite struct PipelineFailureTests {
  @Test func anErrorGetsItsPlace() async throws {
    let shelf = Shelf()
    let error = await #expect(throws: PipelineError.self) {
      try await Pipeline([Scaling(), Misbehaving()]).run(on: TinyModel.model(), into: shelf)
    }
    #expect(error?.pass == "misbehaving" && error?.block == "model.layers.1")
    #expect(error?.cause as? Misbehaving.Mishap == Misbehaving.Mishap())
    #expect(error?.description.hasPrefix("misbehaving failed in model.layers.1: ") == true)
    #expect(await shelf.parts.count <= 2)
  }

  @Test func cancellationEndsTheSweep() async throws {
    let shelf = Shelf()
    let task = Task {
      try await Pipeline([Misbehaving(.cancels), Scaling()]).run(on: TinyModel.model(), into: shelf)
    }
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(await shelf.parts.count <= 2)
  }

  @Test func cancellationReachesACalibrationInProgress() async throws {
    let options = SweepOptions(calibration: TinyModel.sequences(4, length: 8))
    let task = Task {
      try await Pipeline([CancelsAndAsks()]).run(on: TinyModel.model(), options: options, into: Shelf())
    }
    await #expect(throws: CancellationError.self) { try await task.value }
  }

  private struct CancelsAndAsks: BlockPass {
    static let name = "cancels-and-asks"
    func run(on block: inout Block, in context: PassContext) throws {
      withUnsafeCurrentTask { $0?.cancel() }
      _ = try context.statistic(InputNorm.self, of: block.inputGroups[0], in: block)
      Issue.record("the statistic came although the task was cancelled")
    }
  }

  @Test func aFallbackIsReported() async throws {
    let report = try await Pipeline([Misbehaving(.fallsBack)]).run(on: TinyModel.model(), into: Shelf())
    var expected = Report.LayerRecord(pass: "misbehaving", layer: "model.layers.1.mlp.up_proj")
    expected.metrics = ["loss": 1, "gain": 2]
    expected.scheme = "none"
    expected.fallback = "it would not"
    #expect(report.layers == [expected])
    #expect(report.fallbacks == [expected])
  }

  @Test func aStrictRunRefusesAFallback() async throws {
    let error = await #expect(throws: PipelineError.self) {
      try await Pipeline([Misbehaving(.fallsBack)]).run(on: TinyModel.model(), options: SweepOptions(strict: true), into: Shelf())
    }
    let cause = try #require(error?.cause as? UnwantedFallback)
    #expect(cause.layer == "model.layers.1.mlp.up_proj" && cause.reason == "it would not")
  }

  @Test func quantizingAnEmbeddingByGPTQIsAFallback() async throws {
    var gptq = GPTQ.gptq(groupSize: 32)
    gptq.layers = LayerSelector(include: ["embed_tokens", "o_proj"])
    let options = SweepOptions(calibration: TinyModel.sequences(4, length: 8))
    let shelf = Shelf()
    let report = try await Pipeline([gptq]).run(on: TinyModel.model(), options: options, into: shelf)
    #expect(report.fallbacks.map(\.layer) == ["model.embed_tokens"])
    #expect(await shelf.parts[0]["embed_tokens"].weight is QuantizedMatrix)
  }

  private actor FullShelf: PartSink {
    struct Full: Error {}
    var room = 2
    func append(_ part: any ModelPart) throws {
      room -= 1
      if room < 0 { throw Full() }
    }
  }

  @Test func theSinksErrorEndsTheSweep() async throws {
    await #expect(throws: FullShelf.Full.self) { try await Pipeline([Scaling()]).run(on: TinyModel.model(), into: FullShelf()) }
  }

  @Test(arguments: [PartPlace.embedding, .decoder(index: 1), .head])
  func aBlockThatCannotBeReadEndsTheSweep(broken: PartPlace) async throws {
    let whole = try TinyModel.model()
    let model = Model(description: whole.description) { place in
      if place == broken { throw CheckpointError.nonfiniteWeight(tensor: "w") }
      return try whole.part(place)
    }
    await #expect(throws: CheckpointError.nonfiniteWeight(tensor: "w")) { try await Pipeline([Scaling()]).run(on: model, into: Shelf()) }
  }

  @Test func damagedWeightsAreNamed() async throws {
    let config = try ModelConfig(text: TinyModel.config.utf8)
    let tensors = try TinyModel.tensors(config).map { named in
      guard named.name == "model.layers.1.mlp.gate_proj.weight" else { return named }
      var values = named.tensor.floats()
      values[7] = .nan
      return NamedTensor(name: named.name, tensor: Tensor(values, shape: named.tensor.shape, dtype: .float32))
    }
    let checkpoint = Checkpoint(directory: URL(filePath: "/nonexistent"), config: config, tensors: MemoryTensorSource(tensors))
    let model = try Model(checkpoint)
    await #expect(throws: CheckpointError.nonfiniteWeight(tensor: "model.layers.1.mlp.gate_proj.weight")) {
      try await Pipeline([Scaling()]).run(on: model, into: Shelf())
    }
  }
}
