import CompressKit
import Foundation
import TestSupport
import Testing

@Suite struct SelfCalibrationTests {
  @Test func aModelCalibratesItself() async throws {
    let yaml = """
      calibration: { self: { temperature: 0.8, top_p: 0.95 }, sequences: 4, length: 16 }
      passes:
        - gptq: { bits: 4, group_size: 128 }
      evaluation: { tokens: evaluation.npy, window: 32 }
      """
    try await Job.withTinyModel(yaml) { job in
      func weights(_ name: String, _ settings: [String] = []) async throws -> Data {
        let outcome = try await job.run(to: name, settings: settings)
        #expect(outcome.status == 0, "\(outcome.errors)")
        return try Data(contentsOf: job.output(name).appending(path: "model.safetensors"))
      }
      let first = try await weights("first")
      let report = try String(contentsOf: job.output("first").appending(path: "report.json"), encoding: .utf8)
      #expect(report.contains("sampled from the model"))
      #expect(try await weights("again") == first)
      #expect(try await weights("other", ["seed=9"]) != first)
    }
  }
}
