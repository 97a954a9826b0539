public import Foundation
public import Models
internal import Tensors

/// Where finished parts of a model go: a format with its writer, or a test's array.
public protocol PartSink: Actor {
  func append(_ part: any ModelPart) async throws
}

/// A failure, and where it happened.
public struct PipelineError: Error, CustomStringConvertible {
  public let pass: String
  public let block: String
  public let cause: any Error
  /// Place of the pass in the pipeline.
  public let index: Int

  package init(pass: String, block: String, cause: any Error, index: Int) {
    self.pass = pass
    self.block = block
    self.cause = cause
    self.index = index
  }

  public var description: String { "\(pass) failed in \(block): \(cause)" }
}

/// A pass has made infinities or NaN of finite weights.
public struct NonFiniteResult: Error, Equatable, Sendable, CustomStringConvertible {
  public let layer: String
  public var description: String {
    "\(layer) would hold NaN or infinity: its weights, or what they are scaled by, are too large for single precision; leave the layer out"
  }
}

/// What a sweep works with besides the model.
public struct SweepOptions: Sendable {
  /// Token ids; none for data-free passes.
  public var calibration: [[Int32]]
  /// What analyses measure predictions on; where there are none, they take some of the calibration sequences.
  public var probes: [[Int32]] = []
  /// What passes learn from that name a teacher of their own, by the name they use.
  public var teachers: [String: Model] = [:]
  public var seed: UInt64
  /// Bytes that activations may take in memory.
  public var activationMemory: Int
  /// Where a scratch file may be put.
  public var scratch: URL
  /// Whether a fallback ends the run.
  public var strict: Bool
  /// Of the original model, in place of calibration data.
  public var statistics: (any StoredStatistics)?
  /// Where the sweep keeps what it has done, and finds what an earlier run had; `nil` for nowhere.
  package var journal: SweepJournal?
  /// Whether this is a rehearsal, of which nothing is kept: analyses need not measure anything.
  public var isRehearsal = false

  public init(
    calibration: [[Int32]] = [], seed: UInt64 = 0, activationMemory: Int = .max, scratch: URL = URL(filePath: NSTemporaryDirectory()),
    strict: Bool = false
  ) {
    self.calibration = calibration
    self.seed = seed
    self.activationMemory = activationMemory
    self.scratch = scratch
    self.strict = strict
  }
}

/// Passes, swept over a model one part at a time.
public struct Pipeline: Sendable {
  public var passes: [any Pass]
  /// Those that will run when all of these have, where the sweep is one of several.
  var following: [any Pass] = []
  /// What came in at the beginning, where the sweep is a later one of several.
  var origin: Origin?

  struct Origin: Sendable {
    var model: Model
    /// Which of its blocks are left.
    var keptBlocks: [Int]
  }

  public init(_ passes: [any Pass]) { self.passes = passes }

  public var usesCalibration: Bool { passes.contains { $0.usesCalibration } }
  public var comparesInputs: Bool { passes.contains { $0.comparesInputs } }
  public var usesProbes: Bool { passes.contains { $0.usesProbes } }

  /// Sweeps embedding, blocks and head in order and hands each to `sink` when all passes have run on it.
  ///
  /// - Parameter places: the parts to sweep; all of them but in a rehearsal. Those that a pass has left out of the model are passed over.
  /// - Throws: `PipelineError` for what a pass throws; `CancellationError` when the task is cancelled.
  public func run(
    on model: Model, options: SweepOptions = SweepOptions(), places: [PartPlace]? = nil, observer: any PipelineObserver = Silent(),
    into sink: any PartSink
  ) async throws -> Report {
    if !options.isRehearsal, let place = passes.firstIndex(where: { $0 is any ModelPass }) {
      return try await run(wholeModelPassAt: place, on: model, options: options, observer: observer, into: sink)
    }
    try checkOrder()
    let whole = prepared(model)
    let descriptions = try reshapings(of: whole.description)
    let (answers, model, kept) = try await answers(of: whole, options: options, observer)
    let stream =
      usesCalibration && !options.calibration.isEmpty
      ? try CalibrationStream(
        options.calibration, description: model.description, memory: options.activationMemory, scratch: options.scratch,
        comparing: comparesInputs) : nil
    let present = model.places
    let places = places?.filter(present.contains) ?? present
    // Inputs of other widths cannot be compared, so what a pass has made smaller is what later ones are measured against.
    let lastExact =
      passes.indices.last { passes[$0].isExact || passes[$0].removesBlocks || descriptions[$0 + 1] != descriptions[$0] } ?? -1
    var report = Report()
    report.keptBlocks = kept
    report.remarks += answers.remarks
    let journal = try JournaledSweep(options.journal, places, of: model, passes, stream, observer)
    let commit: @Sendable (any ModelPart) async throws -> Void = { [files = journal.files] part in
      try files.commit(part.place)
      try await sink.append(part)
    }
    try await ModelWalk(model).sweep(places, into: commit) { index, original in
      if let (part, findings) = try journal.finished(index, original) {
        report.add(findings)
        observer.observe(.blockEnded(name: part.name, index: index, count: places.count, took: .zero))
        return part
      }
      let start = ContinuousClock.now
      var part = original
      var findings = SweepJournal.Findings()
      observer.observe(.blockBegan(name: part.name, index: index, count: places.count))
      var reference: (any ModelPart)?
      for (place, pass) in passes.enumerated() {
        if place > lastExact, !pass.isExact, reference == nil { reference = part }
        let (layers, remarks) = try run(
          place, on: &part, reference: reference ?? part, stream: stream, answers: answers, options: options, observer)
        findings.layers += layers
        findings.remarks += remarks
      }
      var cost: (forwardPasses: Double, expertTokens: [Int])?
      switch part {
      case let embedding as Embedding: try stream?.embed(embedding, reference: reference as? Embedding)
      // Nothing after the last block reads its output unless the head is worked on, which any pass may do.
      case let block as Block: cost = try stream?.finish(block, reference: reference as? Block)
      default: break
      }
      let took = start.duration(to: .now)
      var record = Report.BlockRecord(block: part.name, seconds: took.seconds, forwardPasses: cost?.forwardPasses)
      if let cost, !cost.expertTokens.isEmpty {
        record.expertTokens = cost.expertTokens
        if let block = part as? Block, let remark = starvation(of: block, cost.expertTokens) { findings.remarks.append(remark) }
      }
      findings.block = record
      report.add(findings)
      try journal.keep(part, at: index, original, findings)
      observer.observe(.blockEnded(name: part.name, index: index, count: places.count, took: took))
      return part
    }
    report.remarks += journal.remarks
    return report
  }

  private func run(
    _ index: Int, on part: inout any ModelPart, reference: any ModelPart, stream: CalibrationStream?, answers: Answers,
    options: SweepOptions, _ observer: any PipelineObserver
  ) throws -> (layers: [Report.LayerRecord], remarks: [String]) {
    try Task.checkCancellation()
    let pass = passes[index]
    let name = type(of: pass).name
    let records = PassContext.Records()
    let context = PassContext(
      stream: stream, answers: answers, seed: options.seed, pass: name, strict: options.strict, records: records,
      reference: reference, following: Array(passes[(index + 1)...]) + following, statistics: options.statistics)
    observer.observe(.passBegan(pass: name, block: part.name))
    let start = ContinuousClock.now
    let before = part.linears.mapValues(\.revision)
    do {
      try pass.run(on: &part, in: context)
      dropInputs(of: &part, since: before, context)
      if let name = part.nonfiniteLinear(besides: before).map(part.fullName(of:)) ?? part.norms.nonfinite.map(part.fullName(ofNorm:)) {
        throw NonFiniteResult(layer: name)
      }
    } catch let error as CancellationError { throw error } catch {
      throw PipelineError(pass: name, block: part.name, cause: error, index: index)
    }
    observer.observe(.passEnded(pass: name, block: part.name, took: start.duration(to: .now)))
    return (records.take(), records.remarks)
  }

  /// Weights that a pass has made plain numbers are multiplied as such: what the original's runtimes did to their inputs belonged to its codes.
  private func dropInputs(of part: inout any ModelPart, since before: [LinearName: Linear.Revision], _ context: PassContext) {
    let plain = part.linears.filter { name, linear in
      linear.inputQuantization != nil && linear.weight is Matrix && linear.revision != before[name]
    }
    guard !plain.isEmpty else { return }
    for name in plain.keys { part[name].inputQuantization = nil }
    context.remark("weights that the original holds in codes become numbers, whose inputs are not quantized as those of the codes were")
  }

  /// What the analyses of all passes say. Each sees the model as the exact passes before its own leave it, so that what is measured is what
  /// will be compressed; exact passes that need calibration data themselves cannot be run ahead and are left out.
  ///
  /// - Returns: besides the answers, the model without the blocks that passes leave out, and which ones are left.
  private func answers(
    of model: Model, options: SweepOptions, _ observer: any PipelineObserver
  ) async throws -> (answers: Answers, remaining: Model, kept: [Int]) {
    var (answers, model, remaining, kept) = (Answers(), model, model, Array(model.description.blocks.indices))
    for (index, pass) in passes.enumerated() {
      for analysis in pass.analyses {
        try await Self.ask(analysis, for: pass, index, of: model, options: options, observer, into: &answers)
      }
      let ahead: @Sendable (any ModelPart) -> PassContext = { [answers] reference in
        PassContext(
          stream: nil, answers: answers, seed: options.seed, pass: type(of: pass).name, strict: false, records: PassContext.Records(),
          reference: reference)
      }
      if pass.removesBlocks {
        let removed = pass.removedBlocks(in: ahead(try model.outline(.embedding)))
        (model, remaining) = (model.removing(removed), remaining.removing(removed))
        kept = kept.indices.filter { !removed.contains($0) }.map { kept[$0] }
      }
      guard pass.removesBlocks || pass.isExact && !pass.usesCalibration else { continue }
      model = model.changing { part in try pass.run(on: &part, in: ahead(part)) }
    }
    return (answers, remaining, kept)
  }

  private static func ask<A: Analysis>(
    _ analysis: A, for pass: any Pass, _ index: Int, of model: Model, options: SweepOptions, _ observer: any PipelineObserver,
    into answers: inout Answers
  ) async throws {
    guard answers[analysis] == nil else { return }
    if let (kept, remarks) = try options.journal?.answer(to: analysis, of: index) {
      answers[analysis] = kept
      answers.remarks += remarks
      return
    }
    let name = "analysis for \(type(of: pass).name)"
    let start = ContinuousClock.now
    let records = PassContext.Records()
    let context = AnalysisContext(
      options,
      progress: { done, total in
        observer.observe(.blockEnded(name: name, index: done - 1, count: total, took: start.duration(to: .now)))
      }, remark: { records.say("\(type(of: pass).name): \($0)") })
    do {
      let answer = try await analysis.answer(for: model, in: context)
      try options.journal?.keep(answer, records.remarks, to: analysis, of: index)
      answers[analysis] = answer
      answers.remarks += records.remarks
    } catch let error as CancellationError { throw error } catch {
      throw PipelineError(pass: type(of: pass).name, block: "the model", cause: error, index: index)
    }
  }

  /// Which experts saw too few calibration tokens for the second moment of their inputs to have full rank.
  private func starvation(of block: Block, _ tokens: [Int]) -> String? {
    let inputs = block.description.hiddenSize
    let starved = tokens.indices.filter { tokens[$0] < inputs }
    guard !starved.isEmpty else { return nil }
    let list = starved.prefix(16).map { "\($0) (\(tokens[$0]))" }.joined(separator: ", ")
    return "\(block.name): \(starved.count) of \(tokens.count) experts saw fewer calibration tokens than their \(inputs) "
      + "inputs: \(list)\(starved.count > 16 ? ", …" : ""); more calibration data would serve them"
  }
}

extension Duration {
  package var seconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }
}
