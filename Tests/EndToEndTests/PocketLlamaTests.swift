import CompressKit
import Foundation
import TestSupport
import Testing

/// Every recipe of the repository on the bundled model, with less data.
@Suite(.enabled(if: FileManager.default.fileExists(atPath: Places.pocketLlama.path), "Checkpoints/pocket-llama is absent"))
struct PocketLlamaTests {
  static let folder = Places.root.appending(path: "Recipes")
  static let recipes = ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).filter { $0.hasSuffix(".yaml") }.sorted()
  static let settings = ["calibration.sequences=8", "calibration.length=64", "evaluation.limit=1024"]

  @Test(arguments: recipes)
  func theRecipeDoesWhatItSays(name: String) async throws {
    try await Places.withTemporaryDirectory { directory in
      let file = Self.folder.appending(path: name)
      let text = try String(contentsOf: file, encoding: .utf8)
      // A recipe without calibration stays one.
      let isCalibrated = try Recipe(yaml: text, file: name, passes: .standard).calibration != nil
      let settings = Self.settings.filter { isCalibrated || !$0.hasPrefix("calibration") }
      let recipe = try Recipe(yaml: text, file: name, settings: settings, passes: .standard)
      let job = Job(directory: directory, model: Places.pocketLlama, recipe: file, settings: settings, working: Self.folder)
      try FileManager.default.createDirectory(at: job.results, withIntermediateDirectories: true)
      for (output, threads) in [("one", "1"), ("two", "2")] {
        let outcome = try await job.run(to: output, "--threads", threads, "--progress", "plain")
        #expect(outcome.status == 0, "\(outcome.errors)")
      }
      let stored = job.output("one").appending(path: "recipe.yaml")
      #expect(try await job.run(to: "again", recipe: stored, settings: []).status == 0)
      #expect(try job.left() == ["again", "one", "two"])
      for file in [job.weights("one"), "config.json", "recipe.yaml"] {
        #expect(try job.bytes("one", file) == job.bytes("two", file), "\(file) with another number of threads")
        #expect(try job.bytes("one", file) == job.bytes("again", file), "\(file) from the stored recipe")
      }
      for companion in try Checkpoint(Places.pocketLlama).companions().files.map(\.name) where companion.hasPrefix("token") {
        #expect(try job.bytes("one", companion) == Data(contentsOf: Places.pocketLlama.appending(path: companion)), "\(companion)")
      }
      let evaluation = try #require(recipe.evaluation, "a recipe of the repository scores its result")
      let source = try TokenSource(text: evaluation.text, tokens: evaluation.tokens, bases: [Self.folder, Places.pocketLlama])
      try await checkResult(
        of: job, named: "one", tokens: [source.isText ? "--text" : "--tokens", source.file.path, "--limit", "1024"],
        window: evaluation.window, format: recipe.output.format, quantizes: !name.hasPrefix("kv-"))
      let figures = try job.json("one", "report.json").object("evaluation")
      if name.hasPrefix("kv-") {
        #expect(figures.number("cache_bytes_per_token_after") < 0.6 * figures.number("cache_bytes_per_token_before"))
        #expect(figures.number("kl_divergence") > 0)
      }
      if !name.hasPrefix("w3"), !name.hasPrefix("w2") {
        // 512 tokens say little about which weights matter: 1.35 at most was seen.
        let most = ["sparse", "prune", "gqa"].contains(where: name.hasPrefix) ? 1.5 : 1.3
        #expect(figures.number("perplexity_after") < most * figures.number("perplexity_before"))
        #expect(figures.number("perplexity_after") > 0.7 * figures.number("perplexity_before"))
      }
    }
  }

  @Test func aSignalMidSweepLeavesNothing() async throws {
    try await Places.withTemporaryDirectory { directory in
      let job = Job(
        directory: directory, model: Places.pocketLlama, recipe: Self.folder.appending(path: "w4a16.yaml"),
        settings: ["calibration.sequences=128", "calibration.length=512"], working: Self.folder)
      try FileManager.default.createDirectory(at: job.results, withIntermediateDirectories: true)
      let outcome = try await job.run(
        "--progress", "plain", watch: { errors, process in if errors.contains("[1/") { process.interrupt() } })
      #expect(outcome.status == 130, "\(outcome.errors)")
      #expect(try job.left().isEmpty)
    }
  }
}
