import CompressKit
import Foundation
import TestSupport
import Testing

/// A model that another program overwrites while it is read.
@Suite struct TruncatedFileTests {
  private static let config = Job.config.replacing("\"num_hidden_layers\":2", with: "\"num_hidden_layers\":12")

  /// The weights lose their second half once the first block is done.
  private func run(_ arguments: [String], _ job: Job, at sign: String) async throws -> Command.Outcome {
    let file = job.model.appending(path: "model.safetensors").path
    let size = try #require(try FileManager.default.attributesOfItem(atPath: file)[.size] as? Int)
    return try await Command.run(arguments + ["--progress", "plain", "--threads", "1"], in: job.working) { errors, _ in
      if errors.contains(sign) { truncate(file, off_t(size / 2)) }
    }
  }

  @Test func whileItIsCompressed() async throws {
    let yaml = Job.yaml.replacing("{ bits: 4, group_size: 128 }", with: "{ bits: 4, group_size: 128, refine: 8 }")
    try await Job.withTinyModel(yaml, config: Self.config) { job in
      let outcome = try await run(
        ["--recipe", job.recipe.path, "--model", job.model.path, "--output", job.output().path], job, at: "[2/")
      #expect(outcome.status == 65, "\(outcome.status) \(outcome.errors)")
      #expect(outcome.error?.contains("model.safetensors: another program cut the file short") == true, "\(outcome.errors)")
      #expect(try job.left() == [])
    }
  }

  @Test func whileItIsScored() async throws {
    try await Job.withTinyModel(config: Self.config) { job in
      let more = TinyModel.sequences(400, length: 32).flatMap { $0 }
      try TinyModel.write(tokens: more, to: job.directory.appending(path: "evaluation.npy"))
      let outcome = try await run(["eval", job.model.path, "--tokens", "evaluation.npy", "--window", "32"], job, at: "evaluate")
      #expect(outcome.status == 65 && outcome.output.isEmpty, "\(outcome.status) \(outcome.output) \(outcome.errors)")
      #expect(outcome.error?.contains("cut the file short") == true, "\(outcome.errors)")
    }
  }
}
