import Foundation
import Tensors
import TestSupport
import Testing

@testable import CheckpointIO

@Suite struct RunJournalTests {
  private static let run: RunJournal.Identity = [("recipe", "passes:\n  - gptq:\n      bits: 4\n"), ("model", "0123")]

  private static func left(_ directory: URL) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
  }

  @Test func theSameRunFindsItAgain() throws {
    try Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "j")
      let journal = try RunJournal(at: place, of: Self.run, fresh: false)
      try Data("x".utf8).write(to: journal.directory.appending(path: "part"))
      _ = try RunJournal(at: place, of: Self.run, fresh: false)
      #expect(try Self.left(place) == ["journal.json", "part"])
      #expect(RunJournal(at: place)?["model"] == "0123")
      _ = try RunJournal(at: place, of: Self.run, fresh: true)
      #expect(try Self.left(place) == ["journal.json"])
      journal.remove()
      #expect(try Self.left(directory).isEmpty && RunJournal(at: place) == nil)
    }
  }

  @Test func anotherRunIsToldWhatDiffers() throws {
    try Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "j")
      _ = try RunJournal(at: place, of: Self.run, fresh: false)
      let other: RunJournal.Identity = [("recipe", "passes:\n  - gptq:\n      bits: 3\n"), ("model", "4567")]
      let error = #expect(throws: OtherRun.self) { try RunJournal(at: place, of: other, fresh: false) }
      #expect(error?.differences == ["recipe: bits: 4 then, bits: 3 now", "model: 0123 then, 4567 now"])
      // It is not touched.
      #expect(RunJournal(at: place)?["model"] == "0123")
      _ = try RunJournal(at: place, of: other, fresh: true)
      #expect(RunJournal(at: place)?["model"] == "4567")
    }
  }

  @Test func whatIsNoJournalIsLeftAlone() throws {
    try Places.withTemporaryDirectory { directory in
      let place = directory.appending(path: "j")
      try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
      try Data("mine".utf8).write(to: place.appending(path: "file"))
      for fresh in [false, true] {
        #expect(throws: CheckpointError.self) { try RunJournal(at: place, of: Self.run, fresh: fresh) }
      }
      #expect(try Self.left(place) == ["file"])
      // A run that died while it began one has left a directory, or a file on its way.
      try FileManager.default.removeItem(at: place.appending(path: "file"))
      try Data("{".utf8).write(to: place.appending(path: "journal.json.new"))
      _ = try RunJournal(at: place, of: Self.run, fresh: false)
      #expect(try Self.left(place) == ["journal.json"])
    }
  }

  @Test func theStateOfAnOutput() throws {
    try Places.withTemporaryDirectory { directory in
      let output = directory.appending(path: "out")
      #expect(try OutputState(of: output) == .absent)
      do {
        let stage = try StagedDirectory(for: output, overwrite: false)
        guard case .beingMade(let holder) = try OutputState(of: output) else {
          Issue.record("the output is being made")
          return
        }
        #expect(holder == "process \(getpid())")
        let journal = try RunJournal(at: stage.journalPlace, of: Self.run, fresh: false)
        stage.abandon()
        #expect(try OutputState(of: output) == .interrupted)
        journal.remove()
      }
      #expect(try OutputState(of: output) == .absent)
      let stage = try StagedDirectory(for: output, overwrite: false)
      let journal = try RunJournal(at: stage.journalPlace, of: Self.run, fresh: false)
      try stage.publish(removing: journal)
      #expect(try OutputState(of: output) == .complete)
      #expect(try Self.left(directory) == ["out"])
      // A run that was to replace it died on the way, and another one behind its last step.
      let place = try OutputState.journalPlace(of: output)
      let other = try RunJournal(at: place, of: Self.run, fresh: false)
      #expect(try OutputState(of: output) == .replacementInterrupted)
      try other.markDone(by: output)
      #expect(try OutputState(of: output) == .complete)
      let again = try StagedDirectory(for: output, overwrite: true)
      #expect(RunJournal(at: place) == nil)
      again.abandon()
      try Data().write(to: output.appending(path: "mine"))
      guard case .foreign = try OutputState(of: output) else {
        Issue.record("what holds a stranger's file is foreign")
        return
      }
    }
  }
}

@Suite struct TensorArchiveTests {
  @Test func whatIsWrittenIsRead() throws {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "a.safetensors")
      let matrix = Matrix.random(rows: 3, columns: 5, key: "archive")
      let codes = Tensor(dtype: .uint8, shape: [2, 2], bytes: Data([1, 2, 3, 255]))
      let pending = try TensorArchive.write(
        [.init("m", matrix), .init("codes", codes)], words: ["a": "b\n\"c\""], to: url)
      // Not there before it is committed.
      #expect(!FileManager.default.fileExists(atPath: url.path))
      try pending.commit()
      let archive = try TensorArchive(url)
      #expect(try archive.matrix("m") == matrix && archive.tensor("codes").bytes == codes.bytes && archive.words == ["a": "b\n\"c\""])
      #expect(archive.info("x") == nil && archive.names.sorted() == ["codes", "m"])
      #expect(throws: CheckpointError.self) { try archive.matrix("codes") }
      #expect(throws: CheckpointError.self) { try archive.tensor("x") }
      // What was read stays readable when another takes its place.
      try TensorArchive.write([.init("m", Matrix(rows: 1, columns: 1, elements: [7]))], words: [:], to: url).commit()
      #expect(try archive.matrix("m") == matrix && TensorArchive(url).matrix("m").elements == [7])
    }
  }
}
