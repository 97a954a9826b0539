import Foundation
import TestSupport
import Testing

@testable import CompressKit

/// Texts of a recipe, and the calibration sequences that are made of them.
@Suite struct TextSourceTests {
  private func recipe(_ calibration: String) throws -> Recipe {
    try Recipe(yaml: "passes: [rtn]\ncalibration: \(calibration)\n", file: "r.yaml", passes: .standard)
  }

  @Test func spellings() throws {
    #expect(try recipe("{ text: a.txt }").calibration?.text == "a.txt")
    #expect(try recipe("{ text: [a.txt, b.txt] }").calibration?.text?.files.map(\.file) == ["a.txt", "b.txt"])
    let mixture = try recipe(
      "{ text: [{ file: wiki.txt, weight: 50, separator: \"\\n\\n\" }, { file: c4.jsonl.gz, field: content, weight: 20 }], shuffle: true, packing: documents }"
    )
    let source = try #require(mixture.calibration)
    #expect(source.shuffle && source.packing == .documents)
    #expect(
      source.text?.files == [
        TextSource(file: "wiki.txt", separator: "\n\n", weight: 50), TextSource(file: "c4.jsonl.gz", field: "content", weight: 20),
      ])
    let again = try Recipe(yaml: mixture.yaml, file: "r.yaml", passes: .standard)
    #expect(again.calibration == source)
    #expect(try recipe("{ text: a.txt }").yaml.contains("text: a.txt"))
    let lone = try recipe("{ text: { file: c4.jsonl, field: content } }")
    #expect(lone.calibration?.text?.files == [TextSource(file: "c4.jsonl", field: "content")])
    #expect(try Recipe(yaml: lone.yaml, file: "r.yaml", passes: .standard).calibration == lone.calibration)
  }

  @Test(arguments: [
    ("{ text: [{ file: a, feild: b }] }", "feild"), ("{ text: { file: a, feild: b } }", "feild"), ("{ text: { field: b } }", "file"),
    ("{ text: [{ field: b }] }", "file"), ("{ text: [] }", "at least one file"),
    ("{ text: [{ file: a, weight: 0 }] }", "positive"), ("{ text: [{ file: a, separator: \"\" }] }", "not empty"),
    ("{ text: a, packing: docs }", "docs"), ("{ tokens: a.npy, packing: documents }", "documents need text"), ("{ text: 5 }", "text"),
  ])
  func mistakesAreNamed(_ calibration: String, _ words: String) {
    #expect { _ = try recipe(calibration) } throws: { "\($0)".contains(words) }
  }

  @Test func evaluationHasNoWeights() {
    #expect {
      try Recipe(yaml: "passes: [rtn]\nevaluation: { text: [{ file: a, weight: 2 }] }", file: "r.yaml", passes: .standard)
    } throws: {
      "\($0)".contains("weight")
    }
  }

  @Test func sharesAddUp() {
    #expect(CalibrationSource.shares(of: 10, [50, 20, 30]) == [5, 2, 3])
    #expect(CalibrationSource.shares(of: 10, [1, 1, 1]) == [4, 3, 3])
    #expect(CalibrationSource.shares(of: 1, [1, 2]) == [0, 1])
    #expect(CalibrationSource.shares(of: 128, [1]) == [128])
  }

  private static let beginning = "calibration: <s> stands before every sequence, as the tokenizer puts it before every text"

  @Test func whatStandsBeforeEveryPromptStandsBeforeEverySequence() throws {
    let text = ["t.txt": "abcdefghij"]
    let bare = try read(text, CalibrationSource(text: "t.txt", sequences: 2, length: 5), bos: false)
    #expect(bare.sequences == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]] && bare.remarks.isEmpty)
    let begun = try read(text, CalibrationSource(text: "t.txt", sequences: 2, length: 5))
    #expect(begun.sequences == [[26, 0, 1, 2, 3], [26, 4, 5, 6, 7]] && begun.remarks == [Self.beginning])
    // No text would be left of sequences of one token.
    #expect(throws: InvalidOption.self) { try read(text, CalibrationSource(text: "t.txt", sequences: 2, length: 1)) }
    let probes = try read(text, CalibrationSource(text: "t.txt", sequences: 9, length: 5), as: "probes")
    #expect(probes.remarks.count == 2 && probes.remarks[0].hasPrefix("probes: <s>"))
  }

  /// A directory with a tokenizer of single letters, which puts 26 before a text.
  private func read(
    _ files: [String: String], _ source: CalibrationSource, seed: UInt64 = 0, bos: Bool = true, as name: String = "calibration"
  ) throws -> CalibrationSource.Data {
    try Places.withTemporaryDirectory { directory in
      let letters = "abcdefghijklmnopqrstuvwxyz".enumerated().map { "\"\($1)\": \($0)" }.joined(separator: ", ")
      let tokenizer =
        "{\"added_tokens\": [{\"id\": 26, \"content\": \"<s>\", \"special\": true}], \"model\": {\"type\": \"BPE\", \"vocab\": {\(letters)}, \"merges\": []}}"
      try Data(tokenizer.utf8).write(to: directory.appending(path: "tokenizer.json"))
      try Data("{\"add_bos_token\": \(bos), \"bos_token\": \"<s>\"}".utf8).write(to: directory.appending(path: "tokenizer_config.json"))
      for (name, text) in files { try Data(text.utf8).write(to: directory.appending(path: name)) }
      let model = try TinyModel.checkpoint()
      return try source.read(
        for: Checkpoint(directory: directory, config: model.config, tensors: model.tensors), bases: [directory], seed: seed, as: name)
    }
  }

  @Test func documentsFollowEachOtherOrStandAlone() throws {
    let files = ["d.jsonl": "\"abc\"\n\"de\"\n\"f\"\n\"ghij\"\n"]
    let packed = try read(files, CalibrationSource(text: "d.jsonl", sequences: 3, length: 3))
    #expect(packed.sequences == [[26, 0, 1], [26, 2, 3], [26, 4, 5]] && packed.files == "d.jsonl")
    #expect(packed.remarks == [Self.beginning])
    let alone = try read(files, CalibrationSource(text: "d.jsonl", sequences: 9, length: 4, packing: .documents))
    #expect(alone.sequences == [[26, 0, 1, 2], [26, 3, 4], [26, 5], [26, 6, 7, 8]])
    #expect(alone.remarks == ["d.jsonl holds 4 of 9 calibration sequences of 4 tokens"])
    let separated = TextSources([TextSource(file: "t.txt", separator: "--")])
    let cut = try read(["t.txt": "ab--cd"], CalibrationSource(text: separated, sequences: 2, length: 8, packing: .documents))
    #expect(cut.sequences == [[26, 0, 1], [26, 2, 3]])
  }

  @Test func mixtures() throws {
    let text = TextSources([TextSource(file: "a.txt", weight: 3), TextSource(file: "b.txt", weight: 1)])
    let files = ["a.txt": String(repeating: "a", count: 40), "b.txt": String(repeating: "b", count: 40)]
    let data = try read(files, CalibrationSource(text: text, sequences: 4, length: 2))
    #expect(data.sequences == [[26, 0], [26, 0], [26, 0], [26, 1]] && data.files == "a.txt, b.txt")
  }

  @Test func theSeedDrawsTheOrder() throws {
    let source = CalibrationSource(text: "a.txt", sequences: 6, length: 3, shuffle: true)
    let files = ["a.txt": "abcdefghijklmnopqrstuvwxyz"]
    let first = try read(files, source, seed: 1).sequences
    #expect(try first == read(files, source, seed: 1).sequences && first != read(files, source, seed: 2).sequences)
    // Parts of a lone text stay whole, and none is taken twice.
    #expect(first.allSatisfy { $0[2] == $0[1] + 1 && $0[1] % 2 == 0 && $0[0] == 26 } && Set(first).count == 6)
    let documents = try read(
      ["d.jsonl": "\"ab\"\n\"cd\"\n\"ef\"\n\"gh\"\n"], CalibrationSource(text: "d.jsonl", sequences: 4, length: 3, shuffle: true))
    #expect(Set(documents.sequences) == [[26, 0, 1], [26, 2, 3], [26, 4, 5], [26, 6, 7]])
  }

  /// What is read is a small part of the file, and the sequences are those of all of it.
  @Test(.enabled(if: FileManager.default.fileExists(atPath: Places.pocketLlama.path), "Checkpoints/pocket-llama is absent"))
  func ofALongTextOnlyAsMuchIsReadAsIsNeeded() throws {
    try Places.withTemporaryDirectory { directory in
      let checkpoint = try Checkpoint(Places.pocketLlama)
      let tokenizer = try checkpoint.tokenizer()
      let part = try String(contentsOf: Places.pocketLlama.appending(path: "calibration.txt"), encoding: .utf8)
      let text = String(repeating: part, count: 12)
      let file = directory.appending(path: "long.txt")
      try Data(text.utf8).write(to: file)
      let whole = try tokenizer.encode(text, addingSpecialTokens: false)
      let source = TextSource(file: "long.txt")
      for count in [1, 1000, 200_000] {
        #expect(try source.firstTokens(in: file, count: count, tokenizer) == Array(whole.prefix(count)))
      }
      for bytes in stride(from: 5_000, through: 100_000, by: 7_777) {
        let (tokens, isWhole) = try source.tokens(in: file, bytes: bytes, tokenizer)
        #expect(!isWhole && whole.starts(with: tokens), "\(bytes)")
      }
      #expect(try source.firstTokens(in: file, count: .max, tokenizer) == whole)
      let calibration = CalibrationSource(text: "long.txt", sequences: 5, length: 100)
      let data = try calibration.read(for: checkpoint, bases: [directory], seed: 0)
      let (prefix, stretch) = (tokenizer.prefix, 100 - tokenizer.prefix.count)
      #expect(data.sequences == (0..<5).map { prefix + whole[$0 * stretch..<($0 + 1) * stretch] })
      #expect(data.remarks.filter { !$0.contains("stands before every sequence") }.isEmpty)
    }
  }

  @Test func whatIsDrawnFromAPartSaysSo() throws {
    let letters = "abcdefghijklmnopqrstuvwxyz"
    let long = String(repeating: letters, count: 700_000)
    let source = CalibrationSource(text: "a.txt", sequences: 2, length: 4, shuffle: true)
    func remarks(_ files: [String: String], _ source: CalibrationSource) throws -> [String] {
      try read(files, source).remarks.filter { !$0.contains("stands before every sequence") }
    }
    #expect(
      try remarks(["a.txt": long], source) == ["a.txt: calibration sequences were drawn from its first 16.8 MB, not from all of it"])
    #expect(try remarks(["a.txt": letters], source).isEmpty)
    let lines = String(repeating: "\"\(String(repeating: letters, count: 40_000))\"\n", count: 20)
    let documents = CalibrationSource(text: "d.jsonl", sequences: 2, length: 4, shuffle: true)
    #expect(try remarks(["d.jsonl": lines], documents).count == 1)
  }

  @Test func tooLittleTextIsAnError() {
    #expect(throws: CheckpointError.self) { try read(["a.txt": "ab"], CalibrationSource(text: "a.txt", sequences: 1, length: 4)) }
  }
}
