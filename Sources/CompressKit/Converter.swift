public import CheckpointIO
public import Formats
public import Foundation
internal import Models
public import Passes
internal import StrictJSON
internal import Tensors

/// Spells the weights of a checkpoint in another format: the same codes and scales wherever that format has room for them.
///
/// What was written is read back while it is converted and compared with what it came from, element by element.
public struct Converter: Sendable {
  public var format: any CheckpointFormat
  public var toolkit: Toolkit
  /// Whether an existing output is replaced once the new one is complete.
  public var overwrite: Bool
  /// Whether low-rank factors are multiplied out, for formats that know only whole matrices.
  public var merge = false
  /// Bytes of tensors in a shard.
  public var shardLimit: Int
  /// Bytes of memory to stay under: a conversion that needs more is refused.
  public var memoryLimit = Int.max

  public init(
    to format: any CheckpointFormat, toolkit: Toolkit = .standard, overwrite: Bool = false, shardLimit: Int = 5_000_000_000
  ) {
    self.format = format
    self.toolkit = toolkit
    self.overwrite = overwrite
    self.shardLimit = shardLimit
  }

  /// Bytes that one part of a model takes on its way: what is stored of it, or codes of a byte each with their other spelling; three times as
  /// floats where codes become numbers, which are compared with what is read back.
  private func memoryNeed(of part: any ModelPart) -> Int {
    part.linears.values.reduce(0) { sum, linear in
      let becomesNumbers = format is any DenseFormat && !(linear.weight is StoredWeight)
      return sum + linear.weight.storedBits / 8 + (becomesNumbers ? 12 : 2) * linear.weight.rows * linear.weight.columns
    }
  }

  /// Converts a checkpoint, compressed or not, into a new directory.
  ///
  /// - Throws: `FormatError` for the first weight that the format has no room for, `ConversionMismatch`, or whatever is wrong with the
  ///   checkpoint; what lies under the name of `output` is as it was then. `CancellationError` when the task is cancelled.
  public func run(_ checkpoint: Checkpoint, to output: URL, observer: any PipelineObserver = Silent()) async throws -> ConversionReport {
    let stage = try StagedDirectory(for: output, overwrite: overwrite, inputs: checkpoint.inputs)
    for remark in stage.remarks { observer.observe(.remark(remark)) }
    do { return try await run(checkpoint, into: stage, observer) } catch {
      stage.abandon()
      throw error
    }
  }

  private func run(_ checkpoint: Checkpoint, into stage: StagedDirectory, _ observer: any PipelineObserver) async throws -> ConversionReport
  {
    let model = try toolkit.model(checkpoint)
    for remark in model.remarks { observer.observe(.remark(remark)) }
    try Machine.require(
      Machine.ownMemory + (model.places.map { try memoryNeed(of: model.outline($0)) }.max() ?? 0), limit: memoryLimit)
    observer.observe(.step("read"))
    var modules: [StoredModule] = []
    var unquantized: [String] = []
    for place in model.places {
      try Task.checkCancellation()
      modules += format.modules(of: converted(try model.outline(place), &unquantized))
    }
    modules += model.carriedModules.map { StoredModule(name: $0, scheme: nil) }
    let format = format.knowing(toolkit.architectures).settled(for: modules)
    let mixed = format.fusion.mixedGroups(of: model.description, in: modules)
    if let first = mixed.first {
      observer.observe(.remark("\(mixed.count) groups of linears are in unlike formats, although \(Fusion.rule); the first is \(first)"))
    }
    let described = try toolkit.architectures.spelledOut(checkpoint.config, isTied: model.description.isTied)
    var warnings = try format.remarks(on: model.description, in: described)
    let packed = Set(modules.filter { $0.scheme != nil || $0.factors != nil }.map(\.name))
    if let remark = Compressor.factored(modules.filter { $0.factors != nil }.map(\.name)) { warnings.append(remark) }
    if !format.joinsExperts, let remark = model.description.separatedExperts(packed.contains) { warnings.append(remark) }
    if let first = unquantized.first {
      warnings.append(
        "runtimes quantized the inputs of \(unquantized.count) linears, such as \(first); as numbers alone they are read without that")
    }
    for remark in warnings { observer.observe(.remark(remark)) }
    let config = try format.configuration(of: modules, in: described)
    let reader = try format.completeReader(for: try ModelConfig(text: config.text().utf8))
    observer.observe(.step("convert"))
    let companions = try checkpoint.travellers().gathered(in: stage)
    for remark in companions.remarks { observer.observe(.remark(remark)) }
    let writer = try format.makeWriter(into: stage, shardLimit: shardLimit)
    var report = ConversionReport(format: type(of: format).name, bytesBefore: checkpoint.fileByteCount, carriedTensors: model.carried)
    report.remarks = model.remarks + warnings + stage.remarks + companions.remarks
    do {
      try await ModelWalk(model).parts { index, stored in
        let start = ContinuousClock.now
        let part = converted(stored)
        observer.observe(.blockBegan(name: part.name, index: index, count: model.places.count))
        let tensors = try format.encode(part)
        try Self.compare(part, with: MemoryTensorSource(tensors), reader, writesNumbers: format is any DenseFormat, &report)
        try await writer.append(tensors)
        observer.observe(.blockEnded(name: part.name, index: index, count: model.places.count, took: start.duration(to: .now)))
      }
      for name in model.carried {
        try await writer.append([NamedTensor(name: name, tensor: try checkpoint.tensors.tensor(name))])
      }
      try Task.checkCancellation()
      try await writer.complete(files: try format.files(describing: modules, in: described) + companions.files)
      try checkpoint.checkUnchanged()
      try stage.publish()
    } catch {
      await writer.abandon()
      throw error
    }
    report.bytesAfter = ConversionReport.weightBytes(in: stage.destination)
    return report
  }

  /// A part of the model as it is to be written: with factors multiplied out where that was asked for, and, by a format of numbers alone, without what
  /// runtimes did to inputs.
  ///
  /// - Parameter unquantized: is added the names of the linears whose inputs are quantized no more.
  private func converted(_ stored: any ModelPart, _ unquantized: inout [String]) -> any ModelPart {
    var part = merge ? stored.merged() : stored
    guard format is any DenseFormat else { return part }
    for name in part.inputGroups.flatMap(\.linears) where part[name].inputQuantization != nil {
      part[name].inputQuantization = nil
      unquantized.append(part.fullName(of: name))
    }
    return part
  }

  private func converted(_ stored: any ModelPart) -> any ModelPart {
    var names: [String] = []
    return converted(stored, &names)
  }

  /// Reads every weight of a part back as the output's readers will, and holds it against the original.
  private static func compare(
    _ part: any ModelPart, with written: MemoryTensorSource, _ reader: WeightReader?, writesNumbers: Bool, _ report: inout ConversionReport
  ) throws {
    // What lies in stacks is compared expert by expert, as it is written.
    let stacked = (part as? Block)?.stackedWeights(writingAll: writesNumbers) ?? [:]
    for name in part.inputGroups.flatMap(\.linears) {
      let (original, module) = (part[name].weight, part.fullName(of: name))
      guard !(original is StoredWeight || original is Matrix) else {
        report.dense += 1
        continue
      }
      if let stacked = stacked[name] {
        report.dequantized += 1
        report.roundedWeights += differences(of: original, stacked())
        continue
      }
      let again: any Weight
      if let reader, reader.holds(module, written) {
        again = try reader.weight(module, written)
      } else {
        let tensor = try written.tensor(module + ".weight")
        if let blocks = written.info(module + ".weight")?.blocks {
          again = BlockQuantizedMatrix(blocks, blocks: tensor)
        } else {
          guard tensor.dtype.isReadableAsFloat else {
            throw CheckpointError.unusableType(tensor: module + ".weight", dtype: tensor.dtype.rawValue, use: "a matrix of floats")
          }
          report.dequantized += 1
          report.roundedWeights += differences(of: original, StoredWeight(tensor))
          continue
        }
      }
      if let codes = again as? QuantizedMatrix, codes == original as? QuantizedMatrix {
        report.sameCodes += 1
      } else {
        let changed = differences(of: original, again)
        let losesCodes =
          if let factors = original as? FactoredWeight, let others = again as? FactoredWeight {
            factors.isQuantized && !others.isQuantized
          } else {
            false
          }
        // Numbers are rounded to their type, which is told.
        if losesCodes || writesNumbers {
          report.dequantized += 1
          report.roundedWeights += changed
          continue
        }
        guard changed == 0 else { throw ConversionMismatch(module: module, weights: changed) }
        report.sameNumbers += 1
      }
    }
  }

  /// How many elements differ.
  private static func differences(of original: any Weight, _ other: any Weight) -> Int {
    guard original.rows == other.rows, original.columns == other.columns else { return original.rows * original.columns }
    let (expected, found, width) = (original.dense(), other.dense(), original.columns)
    return Parallel.map(original.rows) { row in
      (row * width..<(row + 1) * width).reduce(0) { $0 + (expected.elements[$1] == found.elements[$1] ? 0 : 1) }
    }.reduce(0, +)
  }
}

/// What became of the weights of a converted checkpoint.
public struct ConversionReport: Sendable, Codable, Equatable {
  /// The format they are in now.
  public var format: String
  /// Of the files of weights, as they lie on the disk.
  public var bytesBefore: Int
  public var bytesAfter = 0
  /// Linears and embeddings that were dense and are.
  public var dense = 0
  /// Those with the same codes, scales and zero points as before.
  public var sameCodes = 0
  /// Those that the format spells by other codes or zero points, for exactly the same numbers.
  public var sameNumbers = 0
  /// Those that are dense now.
  public var dequantized = 0
  /// Elements of these that the dense type had to round.
  public var roundedWeights = 0
  /// Tensors that belong to no linear that is known, copied unchanged.
  public var carriedTensors: [String]
  public var remarks: [String] = []

  /// The report as JSON.
  public var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    encoder.keyEncodingStrategy = .convertToSnakeCase
    guard let data = try? encoder.encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self)
  }
}

/// A format read back other numbers than it was given: a mistake of its own, found before anything was left on the disk.
public struct ConversionMismatch: Error, Equatable, Sendable, CustomStringConvertible {
  public let module: String
  public let weights: Int
  public var description: String { "\(module): \(weights) weights read back differently; nothing was written" }
}
