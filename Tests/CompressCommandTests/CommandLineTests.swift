import CompressCommand
import CompressKit
import Foundation
import TestSupport
import Testing

/// A pass of one's own.
private struct Nothing: Pass {
  static let name = "nothing"
  static let summary = "leaves everything as it is"
  func run(on part: inout any ModelPart, in context: PassContext) throws {}
}

/// The main function of an executable with passes of its own, as the guide shows it.
private func ownMain() async {
  await CompressCommand.main(toolkit: .standard.adding(Nothing.self))
}

@Suite struct CommandLineTests {
  @Test func theCommandLineIsALibraryFunction() {
    let entry: () async -> Void = ownMain
    _ = entry
    #expect(PassCatalog.standard.adding(Nothing.self).names == PassCatalog.standard.names + ["nothing"])
  }

  @Test func helpAndVersionAreResults() async throws {
    let version = try await Command.run(["--version"])
    #expect(version.status == 0 && version.output == "\(toolkitVersion)\n" && version.errors.isEmpty)
    for arguments in [["--help"], ["run", "--help"], ["eval", "--help"], ["inspect", "--help"], ["list", "--help"]] {
      let help = try await Command.run(arguments)
      #expect(help.status == 0 && help.errors.isEmpty && help.output.contains("USAGE: compress"))
    }
  }

  @Test(arguments: [
    [], ["run"], ["--recipe"], ["list"], ["list", "colours"], ["eval", "m"], ["eval", "m", "--text", "a", "--tokens", "b"],
    ["eval", "m", "--text", "a", "--window", "1"], ["eval", "m", "--text", "a", "--stride", "0"],
    ["eval", "m", "--text", "a", "--limit", "1"],
    ["eval", "m", "--text", "a", "--threads", "0"], ["frobnicate"], ["--recipe", "r", "--nonsense"], ["inspect"],
  ])
  func usageErrorsAre64(arguments: [String]) async throws {
    let outcome = try await Command.run(arguments)
    #expect(outcome.status == 64, "\(outcome.errors)")
    #expect(outcome.output.isEmpty && !outcome.errors.isEmpty)
  }

  @Test func listsWhatMayBeNamed() async throws {
    let passes = try await Command.run(["list", "passes"])
    #expect(passes.status == 0)
    let lines = passes.output.split(separator: "\n")
    #expect(lines.map { String($0.split(separator: " ")[0]) } == PassCatalog.standard.names)
    #expect(lines.allSatisfy { $0.split(separator: " ").count > 3 }, "each pass has a summary")
    let formats = try await Command.run(["list", "formats"]).output
    #expect(formats.hasPrefix("compressed-tensors ") && formats.contains("\nsafetensors "))
    let architectures = try await Command.run(["list", "architectures"]).output.split(separator: "\n").map(String.init)
    #expect(Set(architectures).isSuperset(of: ["llama", "mistral", "qwen2", "qwen3"]) && architectures == architectures.sorted())
  }

  @Test func missingFilesAre66() async throws {
    for arguments in [["--recipe", "/nonexistent/r"], ["inspect", "/nonexistent/m"], ["eval", "/nonexistent/m", "--text", "x"]] {
      let outcome = try await Command.run(arguments)
      #expect(outcome.status == 66)
      #expect(outcome.error?.contains("/nonexistent/") == true && outcome.error?.hasSuffix("no such file") == true)
      #expect(outcome.output.isEmpty)
    }
  }
}
