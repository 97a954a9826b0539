import Foundation
import TestSupport
import Testing

/// Models whose files are links, of other kinds, or do not stay what they are.
@Suite struct InputFileTests {
  /// As the hub's cache keeps it: a snapshot of links into a folder of blobs.
  @Test func aModelInTheHubsCache() async throws {
    try await Job.withTinyModel { job in
      let files = FileManager.default
      let (blobs, snapshot) = (job.directory.appending(path: "hub/blobs"), job.directory.appending(path: "hub/snapshots/0f3a"))
      try Data("{\"eos_token_id\": 2}".utf8).write(to: job.model.appending(path: "generation_config.json"))
      try files.createDirectory(at: job.model.appending(path: "additional_chat_templates"), withIntermediateDirectories: true)
      try Data("{{ tools }}".utf8).write(to: job.model.appending(path: "additional_chat_templates/tool_use.jinja"))
      for place in [blobs, snapshot.appending(path: "additional_chat_templates")] {
        try files.createDirectory(at: place, withIntermediateDirectories: true)
      }
      for (number, name) in ["config.json", "model.safetensors", "generation_config.json", "additional_chat_templates/tool_use.jinja"]
        .enumerated()
      {
        try files.moveItem(at: job.model.appending(path: name), to: blobs.appending(path: "\(number)"))
        let up = String(repeating: "../", count: name.contains("/") ? 3 : 2)
        try files.createSymbolicLink(atPath: snapshot.appending(path: name).path, withDestinationPath: "\(up)blobs/\(number)")
      }
      #expect(mkfifo(snapshot.appending(path: "pipe").path, 0o600) == 0)
      try files.createSymbolicLink(atPath: snapshot.appending(path: "tokenizer.json").path, withDestinationPath: "../../blobs/absent")
      var cached = job
      cached.model = snapshot
      let outcome = try await cached.run("--progress", "none")
      #expect(outcome.status == 0, "\(outcome.errors)")
      #expect(try job.bytes("out", "generation_config.json") == Data("{\"eos_token_id\": 2}".utf8))
      #expect(try job.bytes("out", "additional_chat_templates/tool_use.jinja") == Data("{{ tools }}".utf8))
      let kinds = try files.subpathsOfDirectory(atPath: job.output().path).map {
        try files.attributesOfItem(atPath: job.output().appending(path: $0).path)[.type] as? FileAttributeType
      }
      #expect(!kinds.contains(.typeSymbolicLink))
      let remarks = try #require(try job.json("out", "report.json")["remarks"] as? [String])
      #expect(
        remarks.filter { !$0.hasPrefix("few calibration tokens") } == [
          "pipe of the model stays behind: it is a pipe", "tokenizer.json of the model stays behind: it is a link that leads nowhere",
        ])
      #expect(outcome.output.contains("pipe of the model stays behind"))
    }
  }

  @Test(arguments: ["vanished", "another file", "written to"])
  func aModelThatChangesMeanwhile(how: String) async throws {
    try await Job.withTinyModel(sequences: 200) { job in
      let (file, once) = (job.model.appending(path: "model.safetensors"), Once())
      let outcome = try await job.run(
        settings: ["calibration.sequences=200"], "--progress", "plain",
        watch: { errors, process in
          guard errors.contains("[1/4]") else { return }
          once {
            kill(process.processIdentifier, SIGSTOP)
            defer { kill(process.processIdentifier, SIGCONT) }
            let aside = job.directory.appending(path: "aside")
            if how == "written to" {
              try? FileManager.default.setAttributes([.modificationDate: Date(timeIntervalSinceNow: 9)], ofItemAtPath: file.path)
            } else {
              try? FileManager.default.moveItem(at: file, to: aside)
              if how == "another file" { try? FileManager.default.copyItem(at: aside, to: file) }
            }
          }
        })
      // The evaluation may be the first to miss it.
      #expect([65, 66].contains(outcome.status) && outcome.error?.contains("model.safetensors") == true, "\(outcome.errors)")
      if how != "vanished" { #expect(outcome.error?.contains(how) == true && outcome.errors.contains("hint: "), "\(outcome.errors)") }
      #expect(try job.left().isEmpty)
    }
  }

  /// What travels is copied before the work begins, and is whole whatever becomes of it.
  @Test func aTokenizerThatVanishesMeanwhile() async throws {
    try await Job.withTinyModel(sequences: 200) { job in
      let (file, once) = (job.model.appending(path: "generation_config.json"), Once())
      try Data("{}".utf8).write(to: file)
      let outcome = try await job.run(
        settings: ["calibration.sequences=200"], "--progress", "plain",
        watch: { errors, _ in if errors.contains("compress\n") { once { try? FileManager.default.removeItem(at: file) } } })
      #expect(outcome.status == 0, "\(outcome.errors)")
      #expect(try job.bytes("out", "generation_config.json") == Data("{}".utf8))
    }
  }

  @Test func aRecipeThatIsNoText() async throws {
    try await Job.withTinyModel { job in
      try Data([0x70, 0xFF, 0xFE]).write(to: job.recipe)
      try await job.expectFailure(65, saying: "recipe.yaml", "not UTF-8")
      try await job.expectFailure(65, saying: "this is a directory", recipe: job.model)
    }
  }
}
