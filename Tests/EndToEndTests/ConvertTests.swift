import CompressKit
import Foundation
import TestSupport
import Testing

/// The real command, from one format through others.
@Suite struct ConvertTests {
  private static let yaml = Job.yaml.replacing("{ bits: 4, group_size: 128 }", with: "{ bits: 4, group_size: 64, symmetric: false }")

  @Test func oneModelInManyFormatsScoresTheSame() async throws {
    try await Job.withTinyModel(Self.yaml) { job in
      #expect(try await job.run(settings: ["output.format=gptq"]).status == 0)
      #expect(FileManager.default.fileExists(atPath: job.output().appending(path: "quantize_config.json").path))
      let perplexity = try job.json("out", "report.json").object("evaluation").number("perplexity_after")
      var from = "out"
      for format in ["awq", "compressed-tensors", "gptq"] {
        let outcome = try await Command.run(
          ["convert", job.output(from).path, "--to", format, "--output", job.output(format).path, "--json", "--progress", "none"])
        #expect(outcome.status == 0 && outcome.errors.isEmpty, "\(outcome.errors)")
        let report = try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
        #expect(report.number("same_codes") == 14 && report.number("dense") == 2 && report["format"] as? String == format)
        let eval = try await Command.run(
          ["eval", job.output(format).path, "--tokens", "evaluation.npy", "--window", "32", "--json", "--progress", "none"], in: job.working
        )
        let figures = try #require(try JSONSerialization.jsonObject(with: Data(eval.output.utf8)) as? [String: Any])
        #expect(figures.number("perplexity") == perplexity, "\(format)")
        from = format
      }
      // Round the whole circle nothing has changed.
      #expect(try job.bytes("out", "model.safetensors") == job.bytes("gptq", "model.safetensors"))
      #expect(try job.bytes("out", "quantize_config.json") == job.bytes("gptq", "quantize_config.json"))

      let refused = try await Command.run(["convert", job.output().path, "--to", "mlx", "--output", job.output("mlx").path])
      #expect(refused.status == 64 && refused.error?.contains("zero_point: real") == true, "\(refused.errors)")
      let plain = try await Command.run(["convert", job.output().path, "--to", "safetensors"])
      #expect(plain.status == 0 && plain.output.contains("14 matrices dequantized"), "\(plain.errors)\(plain.output)")
      #expect(try job.left() == ["awq", "compressed-tensors", "gptq", "out", "out-safetensors"])
      let again = try await Command.run(["convert", job.output().path, "--to", "safetensors", "--progress", "none"])
      #expect(again.status == 64 && again.error?.contains("exists already") == true)
    }
  }

  @Test func sizesAreThoseOfTheFiles() async throws {
    try await Job.withTinyModel { job in
      // Numbers that deflate well.
      let zeros = NamedTensor(name: "zeros", tensor: Tensor([Float](repeating: 0, count: 1 << 18), shape: [1 << 18], dtype: .float32))
      try FileManager.default.removeItem(at: job.model)
      let writer = try SafetensorsWriter(to: job.model)
      try await writer.append(try TinyModel.tensors(ModelConfig(text: Job.config.utf8), dtype: .bfloat16) + [zeros])
      try await writer.finish(files: [CheckpointFile("config.json", .text(Job.config))])
      func size(_ file: URL) throws -> Double { Double(try file.resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0) }
      for (format, file) in [("hdf5", "model.h5"), ("npz", "model.npz"), ("safetensors", "model.safetensors")] {
        let outcome = try await Command.run(
          ["convert", job.model.path, "--to", format, "--output", job.output(format).path, "--json", "--progress", "none"])
        let report = try #require(try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
        #expect(report.number("bytes_before") == (try size(job.model.appending(path: "model.safetensors"))))
        #expect(report.number("bytes_after") == (try size(job.output(format).appending(path: file))))
        #expect(report.number("bytes_before") > 1_048_576 && (format == "hdf5") == (report.number("bytes_after") < 1_048_576), "\(format)")
      }
    }
  }

  @Test func tyingIsSettledByWhatIsStored() async throws {
    for isTied in [true, false] {
      let config = Job.config.replacing("\"tie_word_embeddings\":false,", with: "")
      // mlx-lm would tie what does not say that it is not.
      try await Job.withTinyModel(config: config) { job in
        if isTied {
          let tied = Job.config.replacing("\"tie_word_embeddings\":false", with: "\"tie_word_embeddings\":true")
          try FileManager.default.removeItem(at: job.model)
          try await TinyModel.write(to: job.model, tied)
        }
        for format in ["mlx", "safetensors", "npz"] {
          let outcome = try await Command.run(
            ["convert", job.model.path, "--to", format, "--output", job.output(format).path, "--progress", "none"])
          #expect(outcome.status == 0, "\(outcome.errors)")
          let written = try job.json(format, "config.json")
          #expect(written["tie_word_embeddings"] as? Bool == isTied && written.number("rope_theta") == 10_000, "\(format)")
        }
        let run = try await job.run()
        #expect(run.status == 0, "\(run.errors)")
        #expect(try job.json("out", "config.json")["tie_word_embeddings"] as? Bool == isTied)
      }
    }
  }

  @Test func whatCannotBeAskedForIsRefused() async throws {
    for (arguments, status, word) in [
      (["convert", "/nonexistent", "--to", "gptq"], 66, "no such file"), (["convert", "x", "--to", "gtpq"], 64, "did you mean \"gptq\""),
    ] as [([String], Int32, String)] {
      let outcome = try await Command.run(arguments)
      #expect(outcome.status == status && outcome.errors.contains(word), "\(outcome.errors)")
    }
    #expect(try await Command.run(["convert", "x"]).status == 64)
    #expect(try await Command.run(["convert", "--help"]).output.contains("USAGE: compress convert"))
  }
}
