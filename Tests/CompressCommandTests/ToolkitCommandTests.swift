import ArgumentParser
import CompressKit
import Foundation
import TestSupport
import Testing

@testable import CompressCommand

/// Commands know what the toolkit they are run with knows.
@Suite struct ToolkitCommandTests {
  private enum Stranger: Architecture {
    static let modelTypes = ["stranger"]
    static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
      try config.decode(DecoderKeys.self).description(config)
    }
  }

  private struct Crate: DenseFormat {
    static let name = "crate"
    static let summary = "dense weights in a crate"
  }

  private static let toolkit = Toolkit.standard.adding(Stranger.self).adding(Crate())

  @Test func listsNameWhatWasAdded() throws {
    func names(_ subject: String) throws -> [String] { try ListCommand.parse([subject]).rows.map(\.name) }
    let (formats, architectures, passes) = try CompressCommand.$toolkit.withValue(Self.toolkit) {
      (try names("formats"), try names("architectures"), try names("passes"))
    }
    #expect(formats.first == "crate" && passes == PassCatalog.standard.names)
    #expect(architectures == Self.toolkit.architectures.modelTypes)
    #expect(try !names("formats").contains("crate") && !names("architectures").contains("stranger"))
  }

  @Test func aStrangerIsInspected() async throws {
    try await Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "model")
      let text = TinyModel.config.replacing("\"llama\"", with: "\"stranger\"")
      let writer = try SafetensorsWriter(to: place)
      try await writer.append(try TinyModel.tensors(try ModelConfig(text: text.utf8), catalog: Self.toolkit.architectures))
      try await writer.finish(files: [CheckpointFile("config.json", .text(text))])
      let command = try InspectCommand.parse([place.path, "--json"])
      let report = try CompressCommand.$toolkit.withValue(Self.toolkit) { try command.report() }
      #expect(try JSON(parsing: report.utf8)["model_type"]?.string == "stranger")
      // Without it, its tensors are listed and no more is known.
      #expect(try JSON(parsing: command.report().utf8)["model_type"]?.string == nil)
    }
  }
}
