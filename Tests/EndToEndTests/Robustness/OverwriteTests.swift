import Foundation
import TestSupport
import Testing

/// What `--overwrite` replaces, and what it never does.
@Suite struct OverwriteTests {
  private func names(_ directory: URL) throws -> [String] { try FileManager.default.subpathsOfDirectory(atPath: directory.path).sorted() }

  @Test func theModelAndWhatHoldsItStay() async throws {
    try await Job.withTinyModel { job in
      let link = job.directory.appending(path: "link")
      try FileManager.default.createSymbolicLink(at: link, withDestinationURL: job.model)
      let before = try names(job.directory)
      for place in [job.model, job.directory, link, job.directory.appending(path: "results/../model")] {
        for arguments in [
          ["--recipe", job.recipe.path, "--model", job.model.path, "--output", place.path, "--overwrite"],
          ["--recipe", job.recipe.path, "--model", link.path, "--output", place.path, "--overwrite"],
          ["convert", job.model.path, "--to", "safetensors", "--output", place.path, "--overwrite"],
          ["convert", job.model.appending(path: "model.safetensors").path, "--to", "npz", "--output", place.path, "--overwrite"],
          ["calibrate", job.model.path, "--tokens", "calibration.npy", "--length", "32", "--output", place.path, "--overwrite"],
        ] {
          let outcome = try await Command.run(arguments + ["--progress", "none"], in: job.working)
          #expect(outcome.status == 64 && outcome.errors.contains("is not replaced: "), "\(arguments): \(outcome.errors)")
          #expect(outcome.errors.contains("hint: "))
        }
      }
      #expect(try names(job.directory) == before)
    }
  }

  @Test func foldersOfOthersStay() async throws {
    try await Job.withTinyModel { job in
      let (mine, file) = (job.output("mine"), job.output("file"))
      try FileManager.default.createDirectory(at: mine, withIntermediateDirectories: true)
      try Data("kept".utf8).write(to: mine.appending(path: "thesis.tex"))
      try Data("kept".utf8).write(to: file)
      for name in ["mine.partial", "mine.replaced"] { try FileManager.default.copyItem(at: mine, to: job.output(name)) }
      let before = try names(job.directory)
      for place in [mine, file, URL(filePath: "."), URL(filePath: ".."), URL(filePath: "/tmp"), URL(filePath: NSHomeDirectory())] {
        let outcome = try await Command.run(
          ["--recipe", job.recipe.path, "--model", job.model.path, "--output", place.relativePath, "--overwrite", "--progress", "none"],
          in: job.working)
        #expect(outcome.status == 64 && outcome.errors.contains("is not replaced: "), "\(place): \(outcome.errors)")
      }
      let calibrate = try await Command.run(
        ["calibrate", job.model.path, "--tokens", "calibration.npy", "--length", "32", "--output", file.path, "--overwrite"],
        in: job.working)
      #expect(calibrate.status == 64 && calibrate.errors.contains("no file of calibration statistics"), "\(calibrate.errors)")
      #expect(try names(job.directory) == before)
      // The folders beside it that older builds would have taken are none of ours.
      #expect(try await job.run(to: "fresh", "--progress", "none").status == 0)
      #expect(try job.left() == ["file", "fresh", "mine", "mine.partial", "mine.replaced"])
    }
  }

  @Test func outputsOfEveryCommandAreReplaced() async throws {
    try await Job.withTinyModel { job in
      let statistics = [
        "calibrate", job.model.path, "--tokens", "calibration.npy", "--sequences", "2", "--length", "32", "--output",
        job.output("s.h5").path,
      ]
      let convert = ["convert", job.model.path, "--to", "npz", "--output", job.output("npz").path]
      for arguments in [statistics, convert] {
        #expect(try await Command.run(arguments, in: job.working).status == 0)
        #expect(try await Command.run(arguments, in: job.working).status == 64)
        let again = try await Command.run(arguments + ["--overwrite"], in: job.working)
        #expect(again.status == 0, "\(again.errors)")
      }
      #expect(try await job.run(to: "npz", "--overwrite").status == 0)
      // A recipe may lie in what it makes anew.
      #expect(try await job.run(to: "npz", recipe: job.output("npz").appending(path: "recipe.yaml"), "--overwrite").status == 0)
      #expect(try job.left() == ["npz", "s.h5"] && job.holdsWholeOutput("npz"))
    }
  }

  @Test func aLinkThatLeadsNowhereIsSaidAtOnce() async throws {
    try await Job.withTinyModel { job in
      try FileManager.default.createSymbolicLink(atPath: job.output().path, withDestinationPath: "nowhere")
      let outcome = try await job.run("--progress", "plain")
      #expect(
        outcome.status == 74 && outcome.errors.contains("leads nowhere") && !outcome.errors.contains("preflight"), "\(outcome.errors)")
      #expect(try job.left() == ["out"])
    }
  }
}
