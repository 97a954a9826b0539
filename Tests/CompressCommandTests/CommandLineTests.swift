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
    for arguments in [
      ["--help"], ["run", "--help"], ["eval", "--help"], ["inspect", "--help"], ["quantize", "--help"], ["list", "--help"],
    ] {
      let help = try await Command.run(arguments)
      #expect(help.status == 0 && help.errors.isEmpty && help.output.contains("USAGE: compress"))
    }
  }

  @Test(arguments: [
    [], ["run"], ["--recipe"], ["list"], ["list", "colours"], ["eval", "m"], ["eval", "m", "--text", "a", "--tokens", "b"],
    ["eval", "m", "--text", "a", "--window", "1"], ["eval", "m", "--text", "a", "--stride", "0"],
    ["eval", "m", "--text", "a", "--limit", "1"],
    ["eval", "m", "--text", "a", "--threads", "0"], ["frobnicate"], ["--recipe", "r", "--nonsense"], ["inspect"], ["quantize", "m"],
    ["quantize", "m", "--scheme", "w4"],
    ["quantize", "m", "--scheme", "w4a16", "--method", "gptq"], ["quantize", "m", "--scheme", "nvfp4"],
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

  /// What is no command is not taken for options of the default one.
  @Test(arguments: [("inspec", "inspect"), ("quantise", "quantize"), ("evla", "eval"), ("chat", nil), ("r.yaml", nil)])
  func aMistypedCommandIsNamed(_ word: String, _ nearest: String?) async throws {
    let outcome = try await Command.run([word, "m"])
    #expect(outcome.status == 64 && outcome.output.isEmpty)
    #expect(outcome.error?.contains("command: unknown \"\(word)\"; known: run, quantize, ") == true, "\(outcome.errors)")
    #expect(outcome.error?.contains("did you mean \"\(nearest ?? "")\"?") == (nearest != nil), "\(outcome.errors)")
  }

  @Test func optionsOfAPassAreExplained() async throws {
    let text = try await Command.run(["list", "passes", "gptq"])
    let options = try #require(PassCatalog.standard.options(of: "gptq"))
    #expect(text.status == 0 && text.output.hasPrefix("gptq: \(GPTQ.summary)\n"))
    for option in options {
      #expect(text.output.contains("\n\(option.path)  (") && text.output.contains(option.sentence!), "\(option.path)")
    }
    let json = try JSON(parsing: try await Command.run(["list", "passes", "gptq", "--json"]).output)
    #expect(json.elements?.map { $0["name"]?.string } == options.map(\.path))
    #expect(
      json.elements?.first { $0["name"]?.string == "order" }?["values"]?.elements?.compactMap(\.string) == [
        "activation", "group", "natural",
      ])
    #expect(
      try JSON(parsing: try await Command.run(["list", "formats", "--json"]).output).elements?.count == FormatCatalog.standard.names.count)
    #expect(try await Command.run(["list", "passes", "gtpq"]).error?.contains("did you mean \"gptq\"?") == true)
    #expect(try await Command.run(["list", "formats", "gguf"]).status == 64)
  }

  @Test func aRecipeFromStandardInput() async throws {
    let command = try Command.executable.get().path
    let printed = try await Command.run(
      ["-c", "echo 'passes: [{ rtn: { bits: 3 } }]' | '\(command)' --recipe - --print-recipe"], of: URL(filePath: "/bin/sh"))
    #expect(printed.status == 0 && printed.output.contains("bits: 3"), "\(printed.errors)")
    let wrong = try await Command.run(
      ["-c", "echo 'passes: [rnt]' | '\(command)' --recipe - --print-recipe"], of: URL(filePath: "/bin/sh"))
    #expect(wrong.status == 64 && wrong.error?.contains("standard input:1:10: unknown pass \"rnt\"") == true, "\(wrong.errors)")
    #expect(try await Command.run(["--recipe", "-"]).error?.contains("the recipe is empty") == true)
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
