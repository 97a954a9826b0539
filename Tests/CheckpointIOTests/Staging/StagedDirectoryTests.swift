import Foundation
import TestSupport
import Testing

@testable import CheckpointIO

private let files = FileManager.default

private func listing(_ url: URL) throws -> [String] { try files.contentsOfDirectory(atPath: url.path).sorted() }

private func write(_ text: String, _ url: URL) throws {
  try files.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
  try Data(text.utf8).write(to: url)
}

/// An output of this program, with one file.
private func makeOutput(_ url: URL, _ text: String = "old", overwrite: Bool = false) throws {
  let stage = try StagedDirectory(for: url, overwrite: overwrite)
  try stage.write(CheckpointFile("a.txt", .text(text)))
  try stage.publish()
}

private func refusal(_ body: () throws -> Void) -> CheckpointError? {
  do {
    try body()
    return nil
  } catch { return error as? CheckpointError }
}

/// What is said of a destination that is not replaced.
private func refusal(replacing url: URL, inputs: [URL] = []) -> String {
  guard case .cannotReplace(_, let reason) = refusal({ _ = try StagedDirectory(for: url, overwrite: true, inputs: inputs) }) else {
    return ""
  }
  return reason
}

struct StagedDirectoryTests {
  @Test func filesAppearTogetherUnderTheFinalName() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      let stage = try StagedDirectory(for: output, overwrite: false)
      try stage.write(CheckpointFile("a.txt", .text("a")))
      try stage.write(CheckpointFile("folder/b.txt", .copy(of: stage.url("a.txt"))))
      #expect(!files.fileExists(atPath: output.path))
      try stage.publish()
      #expect(try listing(directory) == ["out"])
      #expect(try listing(output) == [OutputMarker.name, "a.txt", "folder"])
      #expect(try String(contentsOf: output.appending(path: "folder/b.txt"), encoding: .utf8) == "a")
      let marker = try String(contentsOf: output.appending(path: OutputMarker.name), encoding: .utf8)
      #expect(marker.contains("\"a.txt\"") && marker.contains("\"folder/b.txt\"") && !marker.contains("\(getpid())"))
    }
  }

  @Test func oneOutputIsMadeByOneRunAtATime() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      let first = try StagedDirectory(for: output, overwrite: false)
      #expect(refusal { _ = try StagedDirectory(for: output, overwrite: false) } == .busy(path: output.path, holder: "process \(getpid())"))
      // By another name of the same place, and whatever overwriting would allow.
      let link = directory.appending(path: "link")
      try files.createSymbolicLink(at: link, withDestinationURL: directory)
      let other = refusal { _ = try StagedDirectory(for: link.appending(path: "out"), overwrite: true) }
      guard case .busy = other else {
        Issue.record("\(String(describing: other))")
        return
      }
      _ = try StagedDirectory(for: directory.appending(path: "other"), overwrite: false)
      first.abandon()
      #expect(try listing(directory) == ["link"])
      try makeOutput(output)
    }
  }

  /// As after a crash: the files are there and nobody holds them.
  @Test func whatKilledRunsLeftIsCleared() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      try write(#"{"program":"compress","process":1,"host":"elsewhere"}"#, directory.appending(path: ".out.compress-lock"))
      try write(OutputMarker.unfinished, directory.appending(path: ".out.partial-0123abcd/" + OutputMarker.name))
      try write("shard", directory.appending(path: ".out.partial-0123abcd/shard-0"))
      try write("", directory.appending(path: ".out.partial-00000001/" + OutputMarker.name))
      try files.createDirectory(at: directory.appending(path: ".out.partial-00000002"), withIntermediateDirectories: true)
      try makeOutput(output)
      #expect(try listing(directory) == ["out"])
    }
  }

  @Test func anOutputThatWasAboutToBeReplacedGetsItsNameBack() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      try makeOutput(output)
      try files.moveItem(at: output, to: directory.appending(path: ".out.replaced-0123abcd"))
      #expect(refusal { try makeOutput(output, "new") } == .exists(path: output.path))
      #expect(try String(contentsOf: output.appending(path: "a.txt"), encoding: .utf8) == "old")
      #expect(try listing(directory) == ["out"])
    }
  }

  @Test func whatOthersHaveThereStays() throws {
    try Places.withTemporaryDirectory { directory in
      let theirs = [
        "out.partial/mine", "out.replaced/mine", ".out.partial-0123abcd/mine", ".out.replaced-0123abcd/mine", ".out.partial-mine/mine",
        ".out.partial-0123abcz", "out.lock",
      ]
      for name in theirs { try write("mine", directory.appending(path: name)) }
      try makeOutput(directory.appending(path: "out"))
      try makeOutput(directory.appending(path: "out"), "new", overwrite: true)
      for name in theirs { #expect(try String(contentsOf: directory.appending(path: name), encoding: .utf8) == "mine", "\(name)") }
      let lock = directory.appending(path: ".out.compress-lock")
      try write("mine", lock)
      guard case .cannotWrite(lock.path, _) = refusal({ try makeOutput(directory.appending(path: "out"), overwrite: true) }) else {
        Issue.record("a file in the way of the lock was not named")
        return
      }
      #expect(try String(contentsOf: lock, encoding: .utf8) == "mine")
    }
  }

  @Test func onlyOutputsAreReplaced() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      try makeOutput(output)
      #expect(refusal { try makeOutput(output) } == .exists(path: output.path))
      try makeOutput(output, "new", overwrite: true)
      #expect(try String(contentsOf: output.appending(path: "a.txt"), encoding: .utf8) == "new")
      try write("mine", output.appending(path: "notes/today.md"))
      #expect(refusal(replacing: output).contains("notes/today.md, which this program did not put there"))
      let foreign = directory.appending(path: "foreign")
      try write("mine", foreign.appending(path: "a.txt"))
      #expect(refusal(replacing: foreign).contains("this program did not make it"))
      #expect(refusal(replacing: foreign.appending(path: "a.txt")).contains("no directory"))
      try write("{}", foreign.appending(path: "report.json"))
      try write("passes: [rtn]", foreign.appending(path: "recipe.yaml"))
      #expect(refusal(replacing: foreign).contains("this program did not make it"))
      #expect(try listing(directory) == ["foreign", "out"])
    }
  }

  /// Builds up to 0.9 left no list of their files.
  @Test func outputsOfOlderBuildsAreReplaced() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      try write(#"{"toolkit_version":"0.9.0","instruction_set":"avx2","sizes":{},"layers":[]}"#, output.appending(path: "report.json"))
      try write("passes: [rtn]", output.appending(path: "recipe.yaml"))
      try write("table", output.appending(path: "table.txt"))
      try makeOutput(output, overwrite: true)
      #expect(try listing(output) == [OutputMarker.name, "a.txt"])
    }
  }

  @Test func whatIsReadIsNeverReplaced() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "group/out")
      try makeOutput(output)
      let link = directory.appending(path: "link")
      try files.createSymbolicLink(at: link, withDestinationURL: output)
      #expect(refusal(replacing: output, inputs: [output]).contains("it is what is read"))
      #expect(refusal(replacing: link, inputs: [output]).contains("it is what is read"))
      #expect(refusal(replacing: output, inputs: [link.appending(path: "a.txt")]).contains("which is read"))
      #expect(refusal(replacing: directory, inputs: [output]).contains("which is read"))
      #expect(refusal(replacing: output, inputs: [directory, directory.appending(path: "group/out2")]).isEmpty)
      #expect(refusal(replacing: URL(filePath: files.currentDirectoryPath)).contains("working directory"))
      #expect(refusal(replacing: URL(filePath: "/")).contains("working directory"))
      #expect(try listing(output) == [OutputMarker.name, "a.txt"])
    }
  }

  @Test func linksAreFollowedToWhereTheyLead() throws {
    try Places.withTemporaryDirectory { directory in
      let (real, link) = (directory.appending(path: "disk/real"), directory.appending(path: "link"))
      try makeOutput(real)
      try files.createSymbolicLink(at: link, withDestinationURL: real)
      try makeOutput(link, "new", overwrite: true)
      #expect(try String(contentsOf: real.appending(path: "a.txt"), encoding: .utf8) == "new")
      #expect(try files.destinationOfSymbolicLink(atPath: link.path) == real.path)
      try files.removeItem(at: real)
      guard case .cannotWrite(link.path, let reason) = refusal({ try makeOutput(link) }), reason.contains("leads nowhere") else {
        Issue.record("a link that leads nowhere was written to")
        return
      }
    }
  }

  @Test func abandoningTakesAwayWhatWasMadeForIt() throws {
    try Places.withTemporaryDirectory { directory in
      let stage = try StagedDirectory(for: directory.appending(path: "a/b/out"), overwrite: false)
      let spool = try stage.scratchFile()
      try spool.write(contentsOf: Data("x".utf8))
      #expect(try listing(stage.directory) == [OutputMarker.name], "what is spooled has no name")
      stage.abandon()
      #expect(try listing(directory).isEmpty)
      // So does letting go of it.
      _ = try StagedDirectory(for: directory.appending(path: "a/b/out"), overwrite: false)
      #expect(try listing(directory).isEmpty)
    }
  }

  @Test func longNamesAreNames() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: String(repeating: "n", count: 255))
      try makeOutput(output)
      try makeOutput(output, "new", overwrite: true)
      #expect(try listing(directory) == [output.lastPathComponent])
    }
  }
}

struct FileStampTests {
  @Test func whatBecameOfAFileIsNoticed() throws {
    try Places.withTemporaryDirectory { directory in
      let (file, link) = (directory.appending(path: "a"), directory.appending(path: "link"))
      try Data("1234".utf8).write(to: file)
      try files.createSymbolicLink(at: link, withDestinationURL: file)
      func complaint(_ change: () throws -> Void) throws -> String {
        let stamp = try #require(FileStamp(of: link))
        try stamp.check()
        try change()
        guard case .changed(link.path, let reason) = refusal({ try stamp.check() }) else { return "" }
        return reason
      }
      func overwrite(_ text: String) throws {
        let handle = try FileHandle(forUpdating: file)
        try handle.write(contentsOf: Data(text.utf8))
        try handle.close()
      }
      #expect(try complaint { try overwrite("12345") }.contains("5 bytes"))
      #expect(
        try complaint {
          try overwrite("abcde")
          try files.setAttributes([.modificationDate: Date(timeIntervalSinceNow: 5)], ofItemAtPath: file.path)
        }.contains("written to"))
      #expect(
        try complaint {
          try files.moveItem(at: file, to: directory.appending(path: "b"))
          try Data("abcde".utf8).write(to: file)
        }.contains("another file"))
      #expect(try complaint { try files.removeItem(at: file) }.contains("vanished"))
      #expect(FileStamp(of: link) == nil)
    }
  }
}
