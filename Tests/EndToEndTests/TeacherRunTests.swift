import CompressKit
import Foundation
import TestSupport
import Testing

/// Learning from a checkpoint other than the one that is worked on.
@Suite struct TeacherRunTests {
  private static let distilling = """
    calibration: { tokens: calibration.npy, sequences: 6, length: 32 }
    passes:
      - distill: { teacher: original, moves: [weights, scales, norms], epochs: 2, batch: 2, scale_rate: 0.01, validate_every: 1 }
    """

  /// A checkpoint that was quantized before learns from the original: its codes are read, moved and written again.
  @Test func aCompressedCheckpointLearnsFromItsOriginal() async throws {
    try await Job.withTinyModel(Job.yaml.replacing("gptq: { bits: 4", with: "rtn: { bits: 2")) { job in
      #expect(try await job.run(to: "small").status == 0)
      let recipe = job.directory.appending(path: "distill.yaml")
      try Data((Self.distilling + "\nevaluation: { tokens: evaluation.npy, window: 32 }\n").utf8).write(to: recipe)
      try FileManager.default.createSymbolicLink(at: job.directory.appending(path: "original"), withDestinationURL: job.model)
      var student = job
      student.model = job.output("small")
      let outcome = try await student.run(to: "learned", recipe: recipe)
      #expect(outcome.status == 0, "\(outcome.errors)")
      let training = try #require(try job.json("learned", "report.json").list("training").first)
      #expect(training.number("loss_after") < training.number("loss_before"))
      let (old, new) = (try Model(try Checkpoint(job.output("small"))), try Model(try Checkpoint(job.output("learned"))))
      for index in old.description.blocks.indices {
        for (name, linear) in try new.block(index).linears {
          let (own, before) = (linear.weight as? QuantizedMatrix, try old.block(index)[name].weight as? QuantizedMatrix)
          #expect(own != nil && own?.scheme == before?.scheme, "\(name)")
        }
      }
    }
  }

  @Test func aTeacherOfOtherTokensIsRefused() async throws {
    try await Job.withTinyModel(Self.distilling) { job in
      let original = job.directory.appending(path: "original")
      try await TinyModel.write(to: original, Job.config.replacing(#""vocab_size":64"#, with: #""vocab_size":96"#))
      try await job.expectFailure(64, saying: "teacher", "96 tokens", "recipe.yaml:3")
    }
  }

  /// Not even where its place was asked for.
  @Test func aTeacherIsNeverReplaced() async throws {
    try await Job.withTinyModel { job in
      #expect(try await job.run().status == 0)
      let before = try job.bytes("out", "model.safetensors")
      let recipe = job.directory.appending(path: "distill.yaml")
      try Data(Self.distilling.replacing("original", with: "results/out").utf8).write(to: recipe)
      let outcome = try await job.run(recipe: recipe, settings: nil, "--overwrite", "--progress", "none")
      #expect(outcome.status != 0 && outcome.errors.contains("results/out"), "\(outcome.errors)")
      #expect(try job.bytes("out", "model.safetensors") == before && job.left() == ["out"])
      // Anywhere else it may be learned from.
      #expect(try await job.run(to: "other", recipe: recipe).status == 0)
    }
  }

  @Test func aTeacherThatIsNotThereIsSaid() async throws {
    try await Job.withTinyModel(Self.distilling) { job in
      try await job.expectFailure(66, saying: "original")
    }
  }
}
