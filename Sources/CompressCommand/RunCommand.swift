import ArgumentParser
import CompressKit
import Foundation

struct RunCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Run a recipe on a model (the default command).",
    discussion: "Results go to standard output, progress to standard error. Ctrl-C leaves no half output under the final name.")

  @Option(
    name: .long,
    help: ArgumentHelp("The recipe, a YAML file of this program or of llm-compressor; - reads standard input.", valueName: "file"),
    completion: .file(extensions: ["yaml", "yml", "json", "md"]))
  var recipe: String

  @Option(
    name: .long, help: ArgumentHelp("The model directory; may be named by the recipe instead.", valueName: "dir"), completion: .directory)
  var model: String?

  @OptionGroup var options: RunOptions

  /// How `--recipe` says standard input.
  private static let standardInput = "-"

  private static func text(of file: URL, named name: String) throws(CheckpointError) -> String {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: file.path, isDirectory: &isDirectory) else { throw .missingFile(path: name) }
    guard !isDirectory.boolValue else { throw .unreadable(path: name, reason: "a recipe is needed, this is a directory") }
    let bytes: Data
    do { bytes = try Data(contentsOf: file) } catch { throw .unreadable(path: name, reason: SystemError.reason(error)) }
    return try text(bytes, named: name)
  }

  private static func text(_ bytes: Data, named name: String) throws(CheckpointError) -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else { throw .unreadable(path: name, reason: "the recipe is not UTF-8") }
    return text
  }

  func run() async throws {
    guard recipe != Self.standardInput else {
      let name = "standard input"
      let bytes: Data
      do { bytes = try FileHandle.standardInput.readToEnd() ?? Data() } catch {
        throw CheckpointError.unreadable(path: name, reason: SystemError.reason(error))
      }
      return try await run(try Self.text(bytes, named: name), named: name, beside: [])
    }
    let file = URL(userPath: recipe)
    try await run(try Self.text(of: file, named: recipe), named: recipe, beside: [file.deletingLastPathComponent()])
  }

  private func run(_ text: String, named name: String, beside folders: [URL]) async throws {
    let parsed = try Recipe(yaml: text, file: name, settings: options.set, passes: CompressCommand.toolkit.passes)
    try await options.run(parsed, on: model, bases: folders)
  }
}

extension CompressionReport {
  /// The before/after table and what else a user must know.
  func table(model: String, output: String) -> String {
    var table = TextTable("", "before", "after", "change")
    let sizeRatio = Double(sizes.fileBytesBefore) / Double(max(1, sizes.fileBytesAfter))
    table.rows.append([
      "size", ByteCount.text(sizes.fileBytesBefore), ByteCount.text(sizes.fileBytesAfter), "÷ \(sizeRatio.rounded(toPlaces: 2))",
    ])
    let (parameters, left) = (sizes.linearParametersBefore, sizes.linearParametersAfter)
    if parameters != left {
      let share = (1 - Double(left) / Double(max(1, parameters))) * 100
      table.rows.append(["weights in linears", "\(parameters)", "\(left)", "-\(share.rounded(toPlaces: 2)) %"])
    }
    table.rows.append(["bits per weight, linears", "", sizes.linearBitsPerWeight.rounded(toPlaces: 3), ""])
    let sparse = kinds.filter { $0.sparsity != nil }
    if !sparse.isEmpty {
      let shares = Dictionary(grouping: sparse) { ($0.sparsity! * 100).rounded(toPlaces: 1) }.sorted { $0.key < $1.key }
      let text =
        shares.count == 1
        ? "\(shares[0].key) %" : shares.map { "\($1.map(\.kind).joined(separator: ", ")) \($0) %" }.joined(separator: "; ")
      table.rows.append(["zeros among the weights", "", text, ""])
    }
    if let evaluation {
      let change = (evaluation.perplexityAfter / evaluation.perplexityBefore - 1) * 100
      table.rows.append([
        "perplexity", evaluation.perplexityBefore.rounded(toPlaces: 4), evaluation.perplexityAfter.rounded(toPlaces: 4),
        "\(change < 0 ? "" : "+")\(change.rounded(toPlaces: 2)) %",
      ])
      table.rows.append(["KL divergence to the original, nats", "", evaluation.klDivergence.rounded(toPlaces: 5), ""])
      if let predicted = predictedDivergence {
        let ratio = (evaluation.klDivergence / predicted).rounded(toPlaces: 2)
        table.rows.append([
          "KL divergence predicted on \(probes?.source ?? "calibration text")", "", predicted.rounded(toPlaces: 5), "measured × \(ratio)",
        ])
      }
      if evaluation.cacheBytesPerTokenBefore != evaluation.cacheBytesPerTokenAfter {
        let (before, after) = (evaluation.cacheBytesPerTokenBefore, evaluation.cacheBytesPerTokenAfter)
        table.rows.append([
          "key-value cache, bytes per token", before.rounded(toPlaces: 1), after.rounded(toPlaces: 1),
          "÷ \((before / max(after, 1e-9)).rounded(toPlaces: 2))",
        ])
      }
      table.rows.append(["same most likely token", "", "\((evaluation.top1Agreement * 100).rounded(toPlaces: 2)) %", ""])
    }
    if let cosine = similarity?.cosine {
      for (name, summary) in [("embeddings", cosine.pooled), ("tokens", cosine.tokenwise)] {
        table.rows.append(["cosine to the original, \(name)", "", summary.mean.rounded(toPlaces: 5), summary.tail])
      }
    }
    var lines = ["\(model) → \(output)", table.text]
    if let similarity {
      lines.append(
        "compared on \(similarity.cosine.tokens) tokens of \(similarity.source), \(similarity.cosine.sequences) windows of \(similarity.window)"
      )
    }
    if let evaluation {
      lines.append(
        "scored on \(evaluation.tokens) tokens of \(evaluation.source), windows of \(evaluation.window)\(evaluation.chunk.map { ", \($0) tokens at a time through the cache" } ?? "")"
      )
    }
    let passes = blocks.compactMap(\.forwardPasses)
    var cost = "\(layers.count) layer results in \(sweepSeconds.rounded(toPlaces: 1)) s"
    if !passes.isEmpty { cost += ", \((passes.reduce(0, +) / Double(passes.count)).rounded(toPlaces: 2)) forward passes per block" }
    if let peakMemoryBytes { cost += ", peak memory \(ByteCount.text(peakMemoryBytes))" }
    lines.append(cost)
    if let tuned { lines.append(tuned) }
    for record in training ?? [] {
      lines.append(
        "\(record.pass): loss on the sequences kept out \(record.lossBefore.rounded(toPlaces: 4)) → \(record.lossAfter.rounded(toPlaces: 4)), "
          + (record.bestStep == 0 ? "the start was best" : "best at step \(record.bestStep)"))
    }
    lines += remarks
    if !carriedTensors.isEmpty { lines.append("\(carriedTensors.count) tensors carried unchanged (report.json lists them)") }
    lines.append(fallbackCount == 0 ? "no fallbacks" : "\(fallbackCount) FALLBACKS:")
    return (lines + fallbackLines).joined(separator: "\n")
  }
}

extension CompressionReport {
  /// Layers that fell back for the same reason in one line; `report.json` names them all.
  var fallbackLines: [String] {
    var (reasons, layersOf) = ([String](), [String: [String]]())
    for record in layers {
      guard let reason = record.fallback else { continue }
      if layersOf[reason] == nil { reasons.append(reason) }
      layersOf[reason, default: []].append(record.layer)
    }
    return reasons.map { reason in
      let names = layersOf[reason] ?? []
      return "  " + (names.count == 1 ? names[0] : "\(names.count) layers, such as \(names[0])") + ": \(reason)"
    }
  }

  /// What tuning has done to the blocks, in a line; `nil` where there was none.
  private var tuned: String? {
    let ratios = layers.compactMap { record in
      record.metrics["loss_before"].flatMap { before in record.metrics["loss_after"].map { $0 / max(before, .leastNormalMagnitude) } }
    }
    guard !ratios.isEmpty else { return nil }
    let mean = ratios.reduce(0, +) / Double(ratios.count)
    return
      "tuned: \(ratios.count { $0 < 1 }) of \(ratios.count) blocks came nearer to the original, to \((100 * mean).rounded(toPlaces: 1)) % "
      + "of the difference on average"
  }
}

extension Compressor.Plan {
  private var seconds: Double { estimate.measuredSeconds() }

  var text: String {
    var table = TextTable("linear", "shape", "scheme", "bits/weight", "bytes in", "bytes out")
    for linear in linears {
      let count = linear.rows * linear.columns
      table.rows.append([
        linear.name, "\(linear.rows)×\(linear.columns)", linear.scheme,
        (Double(linear.storedBits) / Double(count)).rounded(toPlaces: 3), ByteCount.text(linear.sourceBits / 8),
        ByteCount.text(linear.storedBits / 8),
      ])
    }
    return """
      \(table.text)

      output       \(ByteCount.text(estimate.outputBytes)) from \(ByteCount.text(bytesBefore))
      peak memory  about \(ByteCount.text(estimate.peakMemory)) (limit \(ByteCount.text(estimate.memoryLimit)))\
      \(estimate.spills ? ", activations spilled to a scratch file" : "")
      time         about \(Duration.seconds(seconds).secondsText) on this machine now
      calibration  \(calibrationText)\(remarks.map { "\n" + $0 }.joined())
      """
  }

  private var calibrationText: String {
    if let statistics { return "statistics of \(statistics.sequences) sequences, \(statistics.tokens) tokens of \(statistics.source)" }
    return pipelineUsesCalibration ? "\(calibration.count) sequences, \(calibration.reduce(0) { $0 + $1.count }) tokens" : "not needed"
  }

  var json: JSON {
    .object([
      .init(
        "linears",
        .array(
          linears.map {
            .object([
              .init("name", .string($0.name)), .init("rows", .integer($0.rows)), .init("columns", .integer($0.columns)),
              .init("scheme", .string($0.scheme)), .init("stored_bits", .integer($0.storedBits)),
            ])
          })),
      .init("bytes_before", .integer(bytesBefore)), .init("bytes_after", .integer(estimate.outputBytes)),
      .init("peak_memory_bytes", .integer(estimate.peakMemory)), .init("least_memory_bytes", .integer(estimate.leastMemory)),
      .init("operations", .double(estimate.operations)), .init("seconds", .double(seconds)),
      .init("calibration_tokens", .integer(calibration.reduce(0) { $0 + $1.count })),
      .init("remarks", .array(remarks.map { .string($0) })),
    ])
  }
}
