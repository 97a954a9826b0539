import ArgumentParser
import CompressKit
import Foundation

struct CalibrateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "calibrate", abstract: "Run a model over calibration data once and save the statistics that passes need.",
    discussion: """
      Recipes reuse them with `calibration: { statistics: FILE }`. They are of the original model: passes that would see how earlier layers \
      were changed see none of that.
      """)

  @Argument(help: ArgumentHelp("The model directory.", valueName: "model"), completion: .directory)
  var model: String

  @Option(name: .long, help: ArgumentHelp("A text; the model's tokenizer reads it.", valueName: "file"), completion: .file())
  var text: String?

  @Option(name: .long, help: ArgumentHelp("Token ids, a NumPy file.", valueName: "file"), completion: .file(extensions: ["npy"]))
  var tokens: String?

  @Option(name: .long, help: ArgumentHelp("Sequences to run.", valueName: "n"))
  var sequences = 128

  @Option(name: .long, help: ArgumentHelp("Tokens of a sequence.", valueName: "n"))
  var length = 2048

  @Option(name: .long, help: ArgumentHelp("The file to make.", valueName: "file"), completion: .file(extensions: ["h5"]))
  var output: String

  @Flag(name: .long, help: "Replace an existing output once the new one is complete.")
  var overwrite = false

  @OptionGroup var machine: MachineOptions

  func validate() throws {
    guard (text == nil) != (tokens == nil) else { throw ValidationError("either --text or --tokens names the calibration data") }
    try require("--sequences", sequences)
    try require("--length", length, atLeast: 2)
  }

  func run() async throws {
    let destination = URL(userPath: output).standardizedFileURL
    if !overwrite, FileManager.default.fileExists(atPath: destination.path) { throw CheckpointError.exists(path: destination.path) }
    let source = CalibrationSource(text: text.map { TextSources($0) }, tokens: tokens, sequences: sequences, length: length)
    let (place, memory, overwrite) = (URL(userPath: model), try machine.memory(), overwrite)
    let progress = Progress(machine.progress)
    defer { progress.end() }
    let (data, file) = try await machine.run {
      let checkpoint = try Checkpoint(place)
      let found = try source.read(for: checkpoint, bases: [URL(filePath: FileManager.default.currentDirectoryPath)], seed: 0)
      for remark in found.remarks { progress.observe(.remark(remark)) }
      let collector = StatisticsCollector(
        sequences: found.sequences, source: found.files, toolkit: CompressCommand.toolkit, memoryLimit: memory, overwrite: overwrite)
      try await collector.run(checkpoint, to: destination, observer: progress)
      return (found.sequences, found.files)
    }
    progress.end()
    let size = (try? destination.resourceValues(forKeys: [.fileSizeKey]))?.fileSize ?? 0
    let count = data.reduce(0) { $0 + $1.count }
    try printResult(
      "\(destination.relativePath): statistics of \(data.count) sequences, \(count) tokens of \(file), \(ByteCount.text(size))")
  }
}
