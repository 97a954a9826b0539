import ArgumentParser
import CompressKit
import Foundation

struct ConvertCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "convert", abstract: "Spell a checkpoint in another format, with the same codes and scales.",
    discussion: """
      Every weight is read back and compared. What a format has no room for is refused, never approximated; the format safetensors stores \
      the numbers that codes stand for. Where the model is not known, safetensors, npz and hdf5 take its tensors as they are.
      """)

  @Argument(help: ArgumentHelp("The model directory, compressed or not, or a file of weights.", valueName: "model"), completion: .directory)
  var model: String

  @Option(name: .long, help: ArgumentHelp("The format; see `compress list formats`.", valueName: "format"))
  var to: String

  @Option(
    name: .long, help: ArgumentHelp("The directory to make (default: the model's name and the format's).", valueName: "dir"),
    completion: .directory)
  var output: String?

  @Option(name: .long, help: ArgumentHelp("Bytes of tensors in a shard.", valueName: "size"))
  var maxShardSize = "5GB"

  @Flag(name: .long, help: "Multiply low-rank factors out, for formats that know only whole matrices.")
  var merge = false

  @Flag(name: .long, help: "Replace an existing output once the new one is complete.")
  var overwrite = false

  @Flag(name: .long, help: "Print the report as JSON.")
  var json = false

  @OptionGroup var machine: MachineOptions

  func run() async throws {
    let toolkit = CompressCommand.toolkit
    guard let format = toolkit.format(named: to) else {
      throw OptionError(option: "--to", value: to, known: toolkit.formats.names)
    }
    let limit = try ByteCount(maxShardSize, option: "--max-shard-size").value
    var converter = Converter(to: format, toolkit: toolkit, overwrite: overwrite, shardLimit: limit)
    converter.merge = merge
    converter.memoryLimit = try machine.memory()
    let source = URL(userPath: model).standardizedFileURL
    let destination = output.map { URL(userPath: $0) } ?? URL(filePath: source.path + "-" + to)
    let progress = Progress(machine.progress)
    defer { progress.end() }
    let report = try await machine.run { [converter] in
      let checkpoint: Checkpoint
      do throws(CheckpointError) {
        checkpoint = try Checkpoint(source)
        _ = try converter.toolkit.architectures.describe(checkpoint.config)
      } catch {
        // A format that needs the model has nothing to say but why it is not known.
        guard error.isAboutUnknownModel, converter.format.holdsAnyTensors, let tensors = try? TensorCollection(source) else { throw error }
        let copy = try TensorCopy(to: converter.format, overwrite: converter.overwrite, shardLimit: limit)
        progress.observe(.remark("the model is not known (\(error)): its tensors are copied as they are"))
        return try await copy.run(tensors, to: destination, observer: progress)
      }
      return try await converter.run(checkpoint, to: destination, observer: progress)
    }
    progress.end()
    try printResult(json ? report.json : report.text(from: model, to: destination.relativePath))
  }
}

extension ConversionReport {
  fileprivate func text(from model: String, to output: String) -> String {
    func count(_ number: Int, _ what: String) -> String? { number == 0 ? nil : "  \(number) \(what)" }
    let rounding = roundedWeights == 0 ? "no number changed" : "\(roundedWeights) numbers had to be rounded"
    return
      ([
        "\(model) → \(output) (\(format), \(ByteCount.text(bytesBefore)) → \(ByteCount.text(bytesAfter)))",
        count(sameCodes, "matrices with the same codes, scales and zero points"),
        count(sameNumbers, "matrices spelled differently, for the same numbers"),
        count(dequantized, "matrices dequantized, \(rounding)"), count(dense, "matrices dense as before"),
        count(carriedTensors.count, "tensors carried unchanged"),
      ] as [String?]).compactMap { $0 }.joined(separator: "\n")
  }
}
