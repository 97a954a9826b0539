import Foundation
import TestSupport
import Testing

/// Files that may not grow: every place where writing can fail, one after the other.
@Suite struct FullDiskTests {
  /// Blocks of 512 bytes, from the first file that is written to the last.
  @Test(arguments: [0, 1, 2, 8, 64, 300, 520])
  func aLimitOnTheSizeOfFiles(blocks: Int) async throws {
    try await Job.withTinyModel { job in
      let executable = try Command.executable.get().path
      for arguments in [
        "--recipe \(job.recipe.path) --model \(job.model.path)", "convert \(job.model.path) --to npz",
        "convert \(job.model.path) --to hdf5", "convert \(job.model.path) --to gguf",
        "calibrate \(job.model.path) --tokens calibration.npy --sequences 2 --length 32",
      ] {
        let outcome = try await Command.run(
          ["-c", "ulimit -f \(blocks); exec \(executable) \(arguments) --output \(job.output().path) --progress none"], in: job.working,
          of: URL(filePath: "/bin/dash"))
        guard outcome.status != 0 else {
          #expect(blocks > 64, "\(arguments) wrote more than \(blocks) blocks")
          try FileManager.default.removeItem(at: job.output())
          continue
        }
        #expect(outcome.status == 74, "\(arguments): \(outcome.status) \(outcome.errors)")
        #expect(outcome.error?.contains("cannot be written") == true, "\(outcome.errors)")
        #expect(try job.left().isEmpty, "\(arguments)")
      }
    }
  }
}
