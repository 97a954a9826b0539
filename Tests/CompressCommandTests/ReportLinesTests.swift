import Foundation
import Testing

@testable import CompressCommand
@testable import CompressKit

/// What a run says while it runs and at its end.
@Suite struct ReportLinesTests {
  private let line = ProgressLine(
    step: "compress", done: 3, count: 32, elapsed: .seconds(75), pass: "model.layers.2 drift-corrected gptq of a long name")

  @Test(arguments: [20, 40, 80, 120, 300]) func progressFitsTheTerminal(columns: Int) {
    let text = line.text(columns: columns)
    #expect(text.count < columns && !text.contains("\n"))
    #expect(text.hasPrefix("compress ["))
  }

  @Test func progressTellsAllWhereThereIsRoom() {
    #expect(
      line.text(columns: 200).hasSuffix("] 3/32  1 min 15 s elapsed, 12 min 5 s left  model.layers.2 drift-corrected gptq of a long name"))
    #expect(line.text(columns: 200).filter { $0 == "█" }.count == 2 && line.text(columns: 200).filter { $0 == "░" }.count == 22)
    #expect(line.text(columns: 80).contains("3/32  1 min 15 s elapsed, 12 min 5 s left"))
    #expect(line.text(columns: 0).isEmpty)
  }

  @Test func fallbacksOfOneKindAreOneLine() {
    func record(_ layer: String, _ fallback: String?) -> Report.LayerRecord {
      var record = Report.LayerRecord(pass: "gptq", layer: layer)
      record.fallback = fallback
      return record
    }
    let report = CompressionReport(
      toolkitVersion: "", format: "", architecture: "", seed: 0, instructionSet: "",
      sizes: .init(
        bytesBefore: 0, bytesAfter: 0, fileBytesBefore: 0, fileBytesAfter: 0, linearBitsPerWeight: 0, bitsPerWeight: 0,
        linearParametersBefore: 0, linearParametersAfter: 0),
      calibration: nil, evaluation: nil,
      layers: [record("a", "rounded"), record("b", nil), record("c", "left dense"), record("d", "rounded"), record("e", "rounded")],
      kinds: [], blocks: [], fallbackCount: 4, carriedTensors: [], remarks: [], sweepSeconds: 0,
      run: .init(
        arguments: [], recipe: "", model: .init(path: "", weightsFingerprint: ""), data: [], startedAt: "", endedAt: "", phases: [],
        machine: .init(cores: 1, threads: 1, memoryBytes: 0, system: "")))
    #expect(report.fallbackLines == ["  3 layers, such as a: rounded", "  c: left dense"])
  }
}
