public import CheckpointIO
internal import Formats
public import Foundation
public import Models
public import Passes
public import Recipes
internal import StrictJSON
internal import Tensors

/// Recipe in, checkpoint and report out: what the command line calls.
public struct Compressor: Sendable {
  public var recipe: Recipe
  public var toolkit: Toolkit
  /// Where relative paths of the recipe are looked for, in this order; the model's directory comes last.
  public var bases: [URL]
  /// Bytes of memory to stay under where there is a choice.
  public var memoryLimit: Int
  /// Whether a fallback ends the run.
  public var strict: Bool
  /// Whether an existing output is replaced once the new one is complete.
  public var overwrite: Bool
  /// What is done about an interrupted run with the same output, and for the case that this one is interrupted.
  public var resumption = Resumption.goOn

  public init(
    recipe: Recipe, toolkit: Toolkit = .standard,
    bases: [URL] = [URL(filePath: FileManager.default.currentDirectoryPath)], memoryLimit: Int = Machine.usualMemoryLimit,
    strict: Bool = false, overwrite: Bool = false
  ) {
    self.recipe = recipe
    self.toolkit = toolkit
    self.bases = bases
    self.memoryLimit = memoryLimit
    self.strict = strict
    self.overwrite = overwrite
  }

  /// What will be done, worked out without touching a weight.
  public struct Plan: Sendable {
    public let model: Model
    public let linears: [PlannedLinear]
    public let estimate: ResourceEstimate
    /// Where it is to be drawn from the model, its shape: the drawing needs the weights.
    public internal(set) var calibration: [[Int32]]
    /// What predictions are measured on, where the recipe says so.
    let probes: [[Int32]]
    let probesFile: String?
    let teachers: [NamedTeacher]
    public let bytesBefore: Int
    let format: any CheckpointFormat
    /// As it will be written.
    let config: ModelConfig
    /// The same before layers are left out.
    let wholeConfig: ModelConfig
    /// Linears that come in ggml's blocks and are written as the numbers these stand for.
    let dequantized: Set<String>
    /// The model as the passes will leave it, as far as shapes tell.
    let description: ModelDescription
    let calibrationFile: String?
    /// What takes the place of calibration data.
    public let statistics: StatisticsFile?
    let evaluation: EvaluationData?
    let shardLimit: Int
    /// What is to be said of it.
    public let remarks: [String]

    public var pipelineUsesCalibration: Bool { !calibration.isEmpty }
  }

  /// Opens everything, checks the recipe against the model, and estimates.
  ///
  /// - Throws: whatever is wrong with the checkpoint, the recipe or the calibration data, before any work is done.
  public func plan(_ checkpoint: Checkpoint) throws -> Plan {
    guard let format = toolkit.format(named: recipe.output.format) else {
      throw OptionError(option: "output.format", value: recipe.output.format, known: toolkit.formats.names)
    }
    let shardLimit = try ByteCount(recipe.output.maxShardSize, option: "output.max_shard_size").value
    var original = try toolkit.model(checkpoint)
    original.scaleType = format.scaleType
    let pipeline = Pipeline(recipe.passes)
    var (remarks, config) = (recipe.remarks + original.remarks, checkpoint.config)
    do { original = try leavingOutPredictions(of: original, pipeline, &config, &remarks) } catch { throw recipe.placed(error) }
    var linears: [PlannedLinear]
    do { linears = try pipeline.plan(for: original) } catch { throw recipe.placed(error) }
    for (index, linear) in linears.enumerated() {
      guard let weights = linear.weights else { continue }
      linears[index].storedBits +=
        format.storedBits(weights, input: linear.input, rows: linear.rows, columns: linear.columns)
        - weights.storedBits(rows: linear.rows, columns: linear.columns)
    }
    remarks += recipe.passes.flatMap { $0.remarks(on: linears) }
    let model = pipeline.prepared(original)
    let description = try pipeline.reshapings(of: model.description).last ?? model.description
    config = try toolkit.architectures.spelledOut(config, isTied: model.description.isTied)
    let wholeConfig = config
    let dequantized = dequantizing(&linears, for: format, &remarks)
    if description != model.description {
      let described = try toolkit.architectures.configuration(of: description, in: config)
      config = try toolkit.architectures.spelledOut(described, isTied: description.isTied)
    }
    remarks += try format.remarks(on: description, in: config)
    if let remark = Self.leftAlone(linears) { remarks.append(remark) }
    let again = linears.filter(\.isRoundedAgain).map(\.name)
    if let first = again.first {
      remarks.append(
        "\(again.count) linears are rounded twice (\(first)), the second time from what the first has left: one of the two passes is too many"
      )
    }
    let packed = Set(linears.filter { $0.weights != nil || $0.rank != nil || !$0.candidates.isEmpty }.map(\.name))
    if let remark = Self.factored(linears.filter { $0.rank != nil }.map(\.name)) { remarks.append(remark) }
    if !format.joinsExperts, let remark = description.separatedExperts(packed.contains) { remarks.append(remark) }
    for linear in linears where linear.sourceBits == 0 {
      remarks.append(
        "\(linear.name) was tied to the embedding and becomes a weight of its own, \(linear.rows)×\(linear.columns) as \(linear.scheme): "
          + "\(ByteCount.text(linear.storedBits / 8)) more to store; tie_word_embeddings becomes false")
    }
    let carried = model.carriedModules.map { StoredModule(name: $0, scheme: nil) }
    let modules =
      linears.map { StoredModule(name: $0.name, scheme: $0.weights, input: $0.input, isEmbedding: $0.role == .embedding) } + carried
    // What cannot be described together is found before anything is done.
    _ = try format.configuration(of: modules, in: config)
    let settled = format.settled(
      for: modules + linears.flatMap { linear in linear.candidates.map { StoredModule(name: linear.name, scheme: $0) } })
    try checkFusion(linears, description, settled, &remarks)
    try WriterCheck(settled, linears, hasCacheScales: recipe.passes.contains(where: \.fixesCacheScales)).run(on: description)
    remarks += try idlePatterns(of: original)
    var calibration: [[Int32]] = []
    var file: String?
    var statistics: StatisticsFile?
    if pipeline.usesCalibration, let source = recipe.calibration, source.statistics != nil {
      let stored = try self.statistics(source, for: checkpoint)
      (statistics, file) = (stored, stored.source)
      remarks.append(
        "calibrated by the statistics of \(stored.source) that were saved of the original model: no pass saw what became of earlier layers "
          + "(not true-sequential)")
    } else if pipeline.usesCalibration {
      guard let source = recipe.calibration else { throw MissingCalibration() }
      let data =
        source.sampled != nil
        ? CalibrationSource.Data(
          sequences: Array(repeating: Array(repeating: 0, count: source.length), count: source.sequences), files: SelfSampling.name)
        : try source.read(for: checkpoint, bases: bases + [checkpoint.directory], seed: recipe.seed)
      (calibration, file) = (data.sequences, data.files)
      remarks += data.remarks
      if let remark = source.remark(on: model.description, as: "calibration") { remarks.append(remark) }
    }
    let tokens = statistics?.tokens ?? calibration.reduce(0) { $0 + $1.count }
    if let remark = Self.fewTokens(tokens, for: recipe.passes, linears) { remarks.append(remark) }
    var (probes, probesFile) = ([[Int32]](), String?.none)
    if let source = recipe.probes {
      if pipeline.usesProbes {
        let data = try source.read(for: checkpoint, bases: bases + [checkpoint.directory], seed: recipe.seed, as: "probes")
        (probes, probesFile) = (data.sequences, data.files)
        remarks += data.remarks
        if let remark = source.remark(on: model.description, as: "probes") { remarks.append(remark) }
      } else {
        remarks.append("no pass of the recipe measures anything on its probes")
      }
    }
    // Linears of blocks that will be left out are not among those planned, and are nobody else's either.
    let planned = Set(try Pipeline([]).plan(for: model).map { $0.name + ".weight" })
    let tensors = model.tensors ?? checkpoint.tensors
    let others = tensors.names.filter { !planned.contains($0) }.reduce(0) { $0 + (tensors.info($1)?.byteCount ?? 0) }
    let teachers = try teachers(of: checkpoint, model.description)
    remarks += teachers.flatMap(\.model.remarks)
    let evaluation = try evaluationTokens(checkpoint, model.description)
    var estimate = ResourceEstimate(
      of: model, plan: linears, pipeline: pipeline, calibration: calibration.map(\.count), memoryLimit: memoryLimit,
      otherBytes: others)
    if let evaluation { remarks += evaluation.remarks(on: model.description) }
    if let evaluation { estimate.add(evaluator(for: evaluation.source), of: model.description, tokens: evaluation.tokens.count) }
    // What was written is mapped once more, to be scored.
    try Machine.require(estimate.leastMemory, mapped: estimate.outputBytes, limit: memoryLimit)
    return Plan(
      model: model, linears: linears, estimate: estimate, calibration: calibration, probes: probes, probesFile: probesFile,
      teachers: teachers, bytesBefore: checkpoint.byteCount,
      format: settled, config: config, wholeConfig: wholeConfig, dequantized: dequantized, description: description, calibrationFile: file,
      statistics: statistics, evaluation: evaluation, shardLimit: shardLimit, remarks: remarks)
  }

  /// The whole path on the embedding and one block with one short sequence: what would fail after hours fails in seconds.
  public func preflight(_ plan: Plan) async throws {
    var options = SweepOptions(calibration: plan.calibration.prefix(1).map { Array($0.prefix(16)) }, seed: recipe.seed)
    options.isRehearsal = true
    options.statistics = plan.statistics
    let sink = CheckpointSink(format: plan.format, writer: nil, dequantizing: plan.dequantized)
    // The head costs as much as its vocabulary is large; it is rehearsed only if a pass asks for it.
    let head = plan.model.description.head.map { name in
      recipe.passes.contains { $0.selectors.contains { $0.contains(name, isEnd: true) } }
    }
    let blocks = plan.model.description.unlikeBlocks.map { PartPlace.decoder(index: $0) }
    let places = [.embedding] + blocks + (head == true ? [.head] : [])
    do { _ = try await Pipeline(recipe.passes).run(on: plan.model, options: options, places: places, into: sink) } catch {
      throw recipe.placed(error)
    }
    if let block = await sink.descriptions.first, let announced = plan.description.blocks.first, block != announced {
      throw CheckpointError.inexpressible(
        type: plan.config.modelType, reason: "\(announced.prefix.dropLast()) became what no pass had announced: \(block)")
    }
    _ = try plan.format.configuration(of: await sink.modules, in: plan.config)
  }

  /// The configuration of the blocks that were written: which of them are left, only the sweep has shown.
  private func configuration(of blocks: [BlockDescription], keeping kept: [Int], _ plan: Plan) throws -> ModelConfig {
    guard blocks != plan.description.blocks || kept != Array(blocks.indices) else { return plan.config }
    var description = plan.description
    description.blocks = blocks
    let config = try toolkit.architectures.configuration(of: description, keeping: kept, in: plan.wholeConfig)
    return try toolkit.architectures.spelledOut(config, isTied: description.isTied)
  }

  /// Compresses a checkpoint into a new directory and scores what was written before it gets its name.
  ///
  /// - Throws: the first failure, in which case what lies under the name of `output` is as it was; `CancellationError` when the task is
  ///   cancelled.
  public func run(_ checkpoint: Checkpoint, to output: URL, observer: any PipelineObserver = Silent()) async throws -> CompressionReport {
    let stage = try StagedDirectory(for: output, overwrite: overwrite, inputs: inputs(of: checkpoint))
    for remark in stage.remarks { observer.observe(.remark(remark)) }
    var kept = KeptWork()
    do { return try await run(checkpoint, into: stage, &kept, observer) } catch {
      // Before the output is abandoned, and with it the right to touch the journal.
      kept.settle(after: error)
      stage.abandon()
      throw error
    }
  }

  private func run(
    _ checkpoint: Checkpoint, into stage: StagedDirectory, _ kept: inout KeptWork, _ observer: any PipelineObserver
  ) async throws -> CompressionReport {
    var clock = PhaseClock("plan")
    var plan = try plan(checkpoint)
    for remark in plan.remarks { observer.observe(.remark(remark)) }
    let companions = try gather(checkpoint, into: stage)
    for remark in companions.remarks { observer.observe(.remark(remark)) }
    if plan.pipelineUsesCalibration, let source = recipe.calibration, let sampled = source.sampled {
      observer.observe(.step("sample"))
      clock.begin("sample")
      plan.calibration = try sampled.draw(source, from: plan.model, checkpoint, seed: recipe.seed)
    }
    let journal = try journal(plan, of: checkpoint, at: stage.journalPlace)
    kept.journal = journal
    observer.observe(.step("preflight"))
    clock.begin("preflight")
    try await preflight(plan)
    let run = try provenance(of: checkpoint, plan, clock)
    observer.observe(.step("compress"))
    clock.begin("compress")
    let writer = try plan.format.makeWriter(into: stage, shardLimit: plan.shardLimit)
    let sink = CheckpointSink(format: plan.format, writer: writer, dequantizing: plan.dequantized)
    var report: CompressionReport
    do {
      let kept: [Int]
      (report, kept) = try await sweep(checkpoint, plan, run, sink, scratch: stage.directory, journal, observer)
      try await complete(plan, recipe: run.recipe, sink, companions.files, keeping: kept)
    } catch {
      await sink.abandon()
      throw error
    }
    report.sizes.fileBytesAfter = try Checkpoint(stage.directory).fileByteCount
    report.remarks += companions.remarks + stage.remarks
    if let evaluation = plan.evaluation {
      observer.observe(.step("evaluate"))
      clock.begin("evaluate")
      kept.isWhole = true
      try evaluate(checkpoint, stage.directory, evaluation, journal, &report, observer)
      report.peakMemoryBytes = Machine.peakMemory
    }
    (report.run.phases, report.run.endedAt) = (clock.phases, Date.now.ISO8601Format())
    try stage.write(CheckpointFile("report.json", .text(report.json)))
    // All that was read must have been one and the same model.
    try checkpoint.checkUnchanged()
    try plan.statistics?.stamp?.check()
    for teacher in plan.teachers { try teacher.checkpoint.checkUnchanged() }
    try Task.checkCancellation()
    try stage.publish(removing: journal)
    return report
  }

  private func sweep(
    _ checkpoint: Checkpoint, _ plan: Plan, _ run: CompressionReport.Run, _ sink: CheckpointSink, scratch: URL, _ journal: RunJournal?,
    _ observer: any PipelineObserver
  ) async throws -> (report: CompressionReport, keptBlocks: [Int]) {
    var options = SweepOptions(
      calibration: plan.calibration, seed: recipe.seed, activationMemory: plan.estimate.activationBudget, scratch: scratch, strict: strict)
    options.statistics = plan.statistics
    options.probes = plan.probes
    options.journal = keepsParts(plan) ? journal.map { SweepJournal($0) } : nil
    for teacher in plan.teachers { options.teachers[teacher.name] = teacher.model }
    let start = ContinuousClock.now
    let swept = try await Pipeline(recipe.passes).run(on: plan.model, options: options, observer: observer, into: sink)
    let mixed = try await splitGroups(in: sink, plan)
    for name in plan.model.carried { try await sink.append([NamedTensor(name: name, tensor: try checkpoint.tensors.tensor(name))]) }
    let (bits, weights, bytes) = (await sink.linearBits, await sink.linearWeights, await sink.byteCount)
    // Parameters of the model that came in: one that the run had to add makes the checkpoint larger, not the model.
    let parameters = plan.linears.filter { $0.sourceBits > 0 }.reduce(0) { $0 + $1.rows * $1.columns }
    let before = plan.model.description.blocks.reduce(0) { sum, block in
      block.linearShapes.values.reduce(sum) { $0 + $1.rows * $1.columns }
    }
    let calibration = plan.calibrationFile.map { file in
      CompressionReport.Calibration(
        source: file, sequences: plan.statistics?.sequences ?? plan.calibration.count,
        tokens: plan.statistics?.tokens ?? plan.calibration.reduce(0) { $0 + $1.count })
    }
    let report = CompressionReport(
      toolkitVersion: toolkitVersion, format: type(of: plan.format).name, architecture: checkpoint.config.modelType, seed: recipe.seed,
      instructionSet: Kernel.instructionSet,
      sizes: .init(
        bytesBefore: plan.bytesBefore, bytesAfter: bytes, fileBytesBefore: checkpoint.fileByteCount, fileBytesAfter: 0,
        linearBitsPerWeight: Double(bits) / Double(max(1, weights)),
        bitsPerWeight: Double(bytes) * 8 / Double(max(1, parameters)), linearParametersBefore: before, linearParametersAfter: weights),
      calibration: calibration,
      probes: plan.probesFile.map { .init(source: $0, sequences: plan.probes.count, tokens: plan.probes.reduce(0) { $0 + $1.count }) },
      evaluation: nil, layers: swept.layers, training: swept.training.isEmpty ? nil : swept.training,
      kinds: CompressionReport.totals(of: swept.layers), blocks: swept.blocks, fallbackCount: swept.fallbacks.count + mixed.count,
      carriedTensors: plan.model.carried, remarks: plan.remarks + swept.remarks + mixed,
      sweepSeconds: start.duration(to: .now).seconds, peakMemoryBytes: Machine.peakMemory, run: run)
    return (report, swept.keptBlocks)
  }

  private func complete(
    _ plan: Plan, recipe: String, _ sink: CheckpointSink, _ companions: [CheckpointFile], keeping kept: [Int]
  ) async throws {
    let config = try configuration(of: await sink.descriptions, keeping: kept, plan)
    let carried = plan.model.carriedModules.map { StoredModule(name: $0, scheme: nil) }
    let described = try plan.format.files(describing: await sink.modules + carried, in: config)
    let policies = await sink.cachePolicies
    let caches = policies.isEmpty ? [] : [CheckpointFile(CachePolicyFile.name, .text(CachePolicyFile(layers: policies).json))]
    try Task.checkCancellation()
    try await sink.complete(files: described + caches + [CheckpointFile("recipe.yaml", .text(recipe))] + companions)
  }
}
