import Foundation
import TestSupport
import Testing

@testable import CompressCommand
@testable import CompressKit

/// `report.json` is what `docs/report.md` says, and the README's exit codes are the program's.
@Suite struct ReportSchemaTests {
  /// A report in which nothing is absent.
  private func full() throws -> CompressionReport {
    var layer = Report.LayerRecord(pass: "gptq", layer: "model.layers.0.mlp.up_proj")
    (layer.scheme, layer.fallback, layer.metrics) = ("int4 g128", "rounded", ["damping": 0.01])
    let data = CompressionReport.Calibration(source: "a.txt", sequences: 1, tokens: 2)
    let summary = #"{"mean": 0.5, "minimum": 0.25, "fifthPercentile": 0.375}"#
    let cosine = #"{"pooled": \#(summary), "tokenwise": \#(summary), "sequences": 2, "tokens": 4}"#
    let block = #"[{"block": "model.layers.0", "seconds": 1, "forwardPasses": 1, "expertTokens": [1]}]"#
    return CompressionReport(
      toolkitVersion: "1", format: "gguf", architecture: "llama", seed: 0, instructionSet: "scalar",
      sizes: .init(
        bytesBefore: 2, bytesAfter: 1, fileBytesBefore: 2, fileBytesAfter: 1, linearBitsPerWeight: 4, bitsPerWeight: 5,
        linearParametersBefore: 1, linearParametersAfter: 1),
      calibration: data, probes: data,
      evaluation: .init(
        source: "e.txt", window: 2, chunk: 1, cacheBytesPerTokenBefore: 2, cacheBytesPerTokenAfter: 1, tokens: 2, perplexityBefore: 2,
        perplexityAfter: 3, intervalBefore: [1, 3], intervalAfter: [2, 4], klDivergence: 0.1, klStandardError: 0.01, top1Agreement: 0.9),
      similarity: .init(
        source: "e.txt", window: 2, cosine: try JSONDecoder().decode(EmbeddingSimilarity.self, from: Data(cosine.utf8))),
      layers: [layer],
      training: [
        .init(
          pass: "distill", lossBefore: 2, lossAfter: 1, bestStep: 1, seconds: 1, curve: [.init(step: 1, tokens: 2, loss: 1, lossKeptOut: 1)]
        )
      ],
      kinds: [
        .init(kind: "up_proj", modules: 1, schemes: ["int4 g128": 1], bitsPerWeight: 4, relativeLayerLoss: 0.1, sparsity: 0.5, fallbacks: 1)
      ],
      blocks: try JSONDecoder().decode([Report.BlockRecord].self, from: Data(block.utf8)), fallbackCount: 1, carriedTensors: ["v"],
      remarks: ["r"], sweepSeconds: 1, peakMemoryBytes: 1,
      run: .init(
        arguments: ["compress"], recipe: "passes: [rtn]\n",
        model: .init(path: "/m", configurationSha256: "0", weightsFingerprint: "0"),
        teachers: [.init(path: "/t", configurationSha256: "0", weightsFingerprint: "0")],
        data: [.init(use: .evaluation, path: "/e.txt", bytes: 1, sha256: "0")], startedAt: "", endedAt: "",
        phases: [.init(name: "plan", seconds: 1)],
        machine: .init(processor: "p", cores: 1, threads: 1, memoryBytes: 1, system: "s")))
  }

  @Test func thePageHasEveryKeyAndNoOther() throws {
    let documented = try ReportKeys.documented().keys
    let keys = ReportKeys.paths(of: try JSON(parsing: try full().json))
    #expect(keys.subtracting(documented).isEmpty && documented.subtracting(keys).isEmpty)
    #expect(keys.count > 80)
  }

  @Test func aReportIsReadBackAsItWas() throws {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    #expect(try decoder.decode(CompressionReport.self, from: Data(try full().json.utf8)) == full())
  }

  @Test func thePageSaysTheVersionOfItsKeys() throws {
    let page = try String(contentsOf: Places.root.appending(path: "docs/report.md"), encoding: .utf8)
    #expect(page.contains("| `schema` | | the version of these keys: \(CompressionReport.schemaVersion) |"))
  }

  @Test func theREADMEHasTheExitCodes() throws {
    let page = try String(contentsOf: Places.root.appending(path: "README.md"), encoding: .utf8)
    let table = Failure.Code.allCases.map { "| \($0.rawValue) | \($0.meaning) |" }.joined(separator: "\n")
    #expect(page.contains("| exit code | |\n|---|---|\n\(table)\n\n"))
  }

  @Test func mistakesOfUsersAreNoDefectsOfTheProgram() {
    #expect(Failure(StatisticsMismatch(path: "s.h5", what: "data", stored: "0", found: "1")).code == .data)
    #expect(Failure(StatisticsDoNotSuffice(pass: "rotate", reason: "r")).code == .usage)
    #expect(Failure(CancellationError()).code == .interrupted)
    #expect(Failure(CheckpointError.missingFile(path: "m")).code == .noInput)
    #expect(Failure(CheckpointError.busy(path: "m", holder: "")).code == .temporary)
  }

  /// The examples of FIPS 180-4, and lengths around the end of a block against what `sha256sum` prints of so many letters a.
  @Test(arguments: [
    ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"),
    (String(repeating: "a", count: 55), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"),
    (String(repeating: "a", count: 56), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a"),
    (String(repeating: "a", count: 64), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"),
    (String(repeating: "a", count: 1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
  ])
  func digestsAreThePublishedOnes(text: String, digest: String) throws {
    var whole = SHA256()
    whole.add(Data(text.utf8))
    let found = whole.text()
    #expect(found == digest)
    var pieces = SHA256()
    for start in stride(from: 0, to: text.utf8.count, by: 37) { pieces.add(Data(text.utf8.dropFirst(start).prefix(37))) }
    let joined = pieces.text()
    #expect(joined == digest)
    try Places.withTemporaryDirectory { directory in
      let file = directory.appending(path: "text")
      try Data(text.utf8).write(to: file)
      #expect(try SHA256.of(file) == digest)
      let record = try CompressionReport.DataRecord(.evaluation, file)
      #expect(record.sha256 == digest && record.bytes == text.utf8.count)
    }
  }

  /// What a pipe or a device has given cannot be read again, and nothing waits for it.
  @Test func whatIsNoFileHasNoDigest() throws {
    let record = try CompressionReport.DataRecord(.evaluation, URL(filePath: "/dev/null"))
    #expect(record.sha256 == nil && record.bytes == nil && record.path == "/dev/null")
  }
}
