import CompressKit
import Foundation
import TestSupport
import Testing

/// A model, a recipe and a place for results, and the command run on them.
struct Job: Sendable {
  var directory: URL
  var model: URL
  var recipe: URL
  var settings: [String] = []
  /// Where the command is run.
  var working: URL

  /// Two blocks whose widths are multiples of the default group size.
  static let config = """
    {"model_type":"llama","vocab_size":64,"hidden_size":128,"intermediate_size":256,"num_hidden_layers":2,"num_attention_heads":4,
     "num_key_value_heads":2,"rms_norm_eps":1e-05,"max_position_embeddings":64,"tie_word_embeddings":false,"bos_token_id":1}
    """

  static let yaml = """
    calibration: { tokens: calibration.npy, sequences: 6, length: 32 }
    passes:
      - gptq: { bits: 4, group_size: 128 }
    evaluation: { tokens: evaluation.npy, window: 32 }
    """

  /// A small model with token files beside a recipe, in a directory that is gone afterwards.
  static func withTinyModel(
    _ yaml: String = Job.yaml, config: String = Job.config, sequences: Int = 6, _ body: (Job) async throws -> Void
  ) async throws {
    try await Places.withTemporaryDirectory { directory in
      let model = directory.appending(path: "model")
      try await TinyModel.write(to: model, config)
      try TinyModel.write(
        tokens: TinyModel.sequences(sequences, length: 32).flatMap { $0 }, to: directory.appending(path: "calibration.npy"))
      try TinyModel.write(
        tokens: TinyModel.sequences(12, length: 32).flatMap { $0 }.reversed(), to: directory.appending(path: "evaluation.npy"))
      let recipe = directory.appending(path: "recipe.yaml")
      try Data(yaml.utf8).write(to: recipe)
      try FileManager.default.createDirectory(at: directory.appending(path: "results"), withIntermediateDirectories: true)
      try await body(Job(directory: directory, model: model, recipe: recipe, working: directory))
    }
  }

  var results: URL { directory.appending(path: "results") }
  func output(_ name: String = "out") -> URL { results.appending(path: name) }

  func run(
    to name: String = "out", recipe other: URL? = nil, settings own: [String]? = nil, _ more: String...,
    watch: (@Sendable (String, Process) -> Void)? = nil
  ) async throws -> Command.Outcome {
    let arguments =
      ["--recipe", (other ?? recipe).path, "--model", model.path, "--output", output(name).path]
      + (own ?? settings).flatMap { ["--set", $0] } + more
    return try await Command.run(arguments, in: working, watch: watch)
  }

  /// The least memory that the run can do with, at which all hidden states go to a scratch file.
  func leastMemory(_ more: [String] = []) async throws -> Int {
    let plan = try await Command.run(
      ["--recipe", recipe.path, "--model", model.path, "--output", output("unused").path, "--dry-run", "--json"]
        + settings.flatMap { ["--set", $0] } + more, in: working)
    let json = try #require(try JSONSerialization.jsonObject(with: Data(plan.output.utf8)) as? [String: Any], "\(plan.errors)")
    return try #require(json["least_memory_bytes"] as? Int)
  }

  /// Names in the directory of results, but for what an interrupted run keeps for the next.
  func left() throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: results.path).filter { !$0.hasSuffix(".compress-journal") }.sorted()
  }

  /// The file of the weights.
  func weights(_ name: String = "out") -> String {
    let isGGUF = FileManager.default.fileExists(atPath: output(name).appending(path: GGUFWriter.fileName).path)
    return isGGUF ? GGUFWriter.fileName : "model.safetensors"
  }

  func bytes(_ name: String, _ file: String) throws -> Data { try Data(contentsOf: output(name).appending(path: file)) }

  func json(_ name: String, _ file: String) throws -> [String: Any] {
    try #require(try JSONSerialization.jsonObject(with: bytes(name, file)) as? [String: Any])
  }

  /// Runs and expects a failure that leaves nothing behind.
  func expectFailure(
    _ status: Int32, saying words: String..., settings own: [String]? = nil, recipe: URL? = nil, with more: [String] = [],
    leaving expected: [String] = [], _ location: SourceLocation = #_sourceLocation
  ) async throws {
    let arguments =
      ["--recipe", (recipe ?? self.recipe).path, "--model", model.path, "--output", output().path]
      + (own ?? settings).flatMap { ["--set", $0] } + ["--progress", "none"] + more
    let outcome = try await Command.run(arguments, in: working)
    #expect(outcome.status == status, "\(outcome.errors)", sourceLocation: location)
    #expect(outcome.output.isEmpty, sourceLocation: location)
    let lines = outcome.errors.split(separator: "\n")
    #expect(lines.first?.hasPrefix("error: ") == true, "\(outcome.errors)", sourceLocation: location)
    #expect(lines.dropFirst().allSatisfy { $0.hasPrefix("hint: ") } && lines.count <= 2, "\(outcome.errors)", sourceLocation: location)
    for word in words { #expect(outcome.errors.contains(word), "\(outcome.errors) lacks \(word)", sourceLocation: location) }
    #expect(try left() == expected, sourceLocation: location)
  }
}

extension [String: Any] {
  func object(_ key: String) -> [String: Any] { self[key] as? [String: Any] ?? [:] }
  func list(_ key: String) -> [[String: Any]] { self[key] as? [[String: Any]] ?? [] }
  func number(_ key: String) -> Double { (self[key] as? NSNumber)?.doubleValue ?? .nan }
}

/// What every completed run must have left.
///
/// - Parameter quantizes: whether weights become smaller.
func checkResult(
  of job: Job, named name: String, tokens: [String], window: Int, format: String = "compressed-tensors", quantizes: Bool = true
) async throws {
  let plan = try await job.run(to: "unused", "--dry-run", "--json")
  let planned = try #require(try JSONSerialization.jsonObject(with: Data(plan.output.utf8)) as? [String: Any])
  let floats = ["F32", "F16", "BF16"]
  let changed = planned.list("linears").filter { !floats.contains($0["scheme"] as? String ?? "") }
  // Sparse weights are floats as before, many of them zero.
  let quantized = changed.filter { !floats.contains(($0["scheme"] as? String)?.split(separator: " ").first.map(String.init) ?? "") }
  let report = try job.json(name, "report.json")
  for key in [
    "architecture", "blocks", "carried_tensors", "evaluation", "fallback_count", "instruction_set", "kinds", "layers", "remarks", "seed",
    "sizes",
    "sweep_seconds", "toolkit_version",
  ] { #expect(report[key] != nil, "report.json lacks \(key)") }
  let undocumented = try ReportKeys.undocumented(in: try JSON(parsing: try job.bytes(name, "report.json")))
  #expect(undocumented.isEmpty, "docs/report.md does not explain \(undocumented.sorted())")
  let reported = Set(report.list("layers").compactMap { $0["layer"] as? String })
  // Where nothing is quantized, other things are.
  #expect(
    (!changed.isEmpty || !quantizes || format == "safetensors" && !reported.isEmpty)
      && reported.isSuperset(of: changed.compactMap { $0["name"] as? String }))
  #expect(report.number("fallback_count") == Double(report.list("layers").filter { $0["fallback"] != nil }.count))
  #expect(report.list("layers").allSatisfy { !$0.object("metrics").isEmpty })
  // What makes a block narrower changes the layers before those it looks at, and what comes after it starts again; so does a second solve,
  // and what tuning leaves is carried on from the block's beginning.
  let passes = Set(report.list("layers").compactMap { $0["pass"] as? String })
  let limit =
    passes.contains(PruneWidth.name) || passes.contains(Tune.name) || passes.isSuperset(of: [SparseGPT.name, GPTQ.name]) ? 2 : 1.5
  for block in report.list("blocks") where block["forward_passes"] != nil { #expect(block.number("forward_passes") <= limit) }
  let (sizes, figures) = (report.object("sizes"), report.object("evaluation"))
  #expect(sizes.number("bytes_after") < sizes.number("bytes_before") || quantized.isEmpty)
  // Beside codes and scales, a format stores a few bytes per linear that the plan leaves out.
  #expect(abs(sizes.number("bytes_after") / planned.number("bytes_after") - 1) < 0.02)

  let isGGUF = job.weights(name) == GGUFWriter.fileName
  if format == "compressed-tensors", !isGGUF, !quantized.isEmpty {
    let configuration = try job.json(name, "config.json").object("quantization_config")
    #expect(configuration["quant_method"] as? String == "compressed-tensors")
  }
  let opened = try Checkpoint(job.output(name))
  #expect(Double(opened.byteCount) == sizes.number("bytes_after"))
  let model = try Model(opened)
  try checkZeros(of: model, report)
  for linear in quantized {
    let full = linear["name"] as? String ?? ""
    let unit = try model.places.map { try model.part($0) }.first { block in block.linears.keys.contains { block.fullName(of: $0) == full } }
    let weight = unit?.linears.first { unit!.fullName(of: $0.key) == full }?.value.weight
    #expect(
      isGGUF ? (weight as? BlockQuantizedMatrix)?.type.name == linear["scheme"] as? String : weight is StoredWeight == false, "\(full)")
  }

  let (before, after) = (figures.number("perplexity_before"), figures.number("perplexity_after"))
  #expect(before.isFinite && after.isFinite && before > 1 && after > 1)
  let scored = try await Command.run(
    ["eval", job.output(name).path, "--window", "\(window)", "--json", "--progress", "none", "--reference", job.model.path] + tokens,
    in: job.working)
  #expect(scored.status == 0, "\(scored.errors)")
  let eval = try #require(try JSONSerialization.jsonObject(with: Data(scored.output.utf8)) as? [String: Any])
  #expect(abs(eval.number("perplexity") / after - 1) < 1e-6)
  #expect(abs(eval.number("reference_perplexity") / before - 1) < 1e-6)
  #expect(abs(eval.number("kl_divergence") - figures.number("kl_divergence")) < 1e-6)
  #expect(eval.number("tokens") == figures.number("tokens"))
  #expect(eval.number("cache_bytes_per_token") == figures.number("cache_bytes_per_token_after"))
}

/// What the report says about zeros must be in the files.
private func checkZeros(of model: Model, _ report: [String: Any]) throws {
  let records = report.list("layers").filter { !$0.object("metrics").number("sparsity").isNaN }
  guard !records.isEmpty else { return }
  let shares = Dictionary(
    records.map { ($0["layer"] as? String ?? "", $0.object("metrics").number("sparsity")) }, uniquingKeysWith: { _, last in last })
  var byKind: [String: [Double]] = [:]
  for place in model.places {
    let block = try model.part(place)
    for (name, linear) in block.linears {
      guard let share = shares[block.fullName(of: name)] else { continue }
      let dense = linear.weight.dense()
      // A number may round to zero when it is stored.
      let found = Double(dense.elements.count { $0 == 0 }) / Double(dense.elements.count)
      #expect(share > 0.05 && abs(found - share) < 1e-3, "\(block.fullName(of: name))")
      byKind[String(name.rawValue.split(separator: ".").last ?? ""), default: []].append(share)
    }
  }
  for kind in report.list("kinds") {
    guard let expected = byKind[kind["kind"] as? String ?? ""] else { continue }
    #expect(abs(kind.number("sparsity") - expected.reduce(0, +) / Double(expected.count)) < 1e-9)
  }
}
