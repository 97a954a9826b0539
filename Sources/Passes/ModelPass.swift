package import CheckpointIO
public import Foundation
public import Models
internal import Tensors

/// A pass that needs all blocks at once, such as distillation: it sees what the passes before it have made of the whole model, and those after
/// it see what it has made.
public protocol ModelPass: Pass {
  /// The checkpoint of the teacher, as the recipe names it; `nil` for the model that came in.
  var teacher: String? { get }
  /// Where the checkpoint was found, so that a recipe can say so: called where `teacher` names one.
  mutating func findTeacher(at path: String)
  /// Whether hidden states are held against the teacher's, which must then be in the same coordinates.
  var comparesStates: Bool { get }

  /// - Throws: what the pass cannot do; `CancellationError` when the task is cancelled.
  func run(on model: inout ModelParts, in context: ModelPassContext) throws
}

extension ModelPass {
  public var teacher: String? { nil }
  public mutating func findTeacher(at path: String) {}
  public var comparesStates: Bool { false }

  /// Parts one by one are left as they are.
  public func run(on part: inout any ModelPart, in context: PassContext) throws {}
}

/// A model's parts in memory. Weights that nobody has changed are still mapped.
public struct ModelParts: Sendable {
  public let description: ModelDescription
  public var embedding: Embedding
  public var blocks: [Block]
  /// `nil` for a model without logits.
  public var head: Head?

  /// - Precondition: the parts are those of the description, in its order.
  package init(_ description: ModelDescription, _ parts: [any ModelPart]) {
    guard let embedding = parts.first as? Embedding else { preconditionFailure("a model begins with an embedding") }
    self.description = description
    self.embedding = embedding
    blocks = parts.compactMap { $0 as? Block }
    head = parts.last as? Head
  }

  var all: [any ModelPart] { [embedding] + blocks + (head.map { [$0] } ?? []) }
}

/// What a pass over a whole model may know.
public struct ModelPassContext: Sendable {
  /// The model that came in, before any pass, or the one that the pass has named.
  public let teacher: Model
  /// Which of the teacher's blocks the model's are; empty for a teacher that the pass has named.
  public let keptBlocks: [Int]
  public let calibration: [[Int32]]
  public let seed: UInt64
  /// Bytes that activations may take in memory; the rest goes to `scratch`.
  public let activationMemory: Int
  public let scratch: URL
  private let pass: String
  private let records: PassContext.Records
  private let journal: SweepJournal?
  private let progress: @Sendable (_ done: Int, _ total: Int, _ what: String) -> Void

  init(
    teacher: Model, keptBlocks: [Int], options: SweepOptions, pass: String, records: PassContext.Records,
    progress: @escaping @Sendable (_ done: Int, _ total: Int, _ what: String) -> Void
  ) {
    self.teacher = teacher
    self.keptBlocks = keptBlocks
    calibration = options.calibration
    seed = options.seed
    activationMemory = options.activationMemory
    scratch = options.scratch
    journal = options.journal
    self.pass = pass
    self.records = records
    self.progress = progress
  }

  /// Random numbers for some purpose, the same whatever else ran.
  public func randomness(for purpose: String) -> some RandomNumberGenerator { KeyedRandomness(seed: seed, key: pass, purpose) }

  /// Tells how far the pass is.
  ///
  /// - Parameter what: what it is at, in a few words.
  public func advance(_ done: Int, of total: Int, _ what: String) { progress(done, total, what) }

  /// Puts into the report how the model was trained.
  ///
  /// - Parameters:
  ///   - before: the loss on the sequences kept out, at the start.
  ///   - after: the same of the state that was kept.
  ///   - bestStep: of that state; 0 for the start.
  ///   - took: steps, validation apart.
  public func record(before: Double, after: Double, bestStep: Int, took: Duration, curve: [Report.TrainingRecord.Point]) {
    records.add(
      Report.TrainingRecord(pass: pass, lossBefore: before, lossAfter: after, bestStep: bestStep, seconds: took.seconds, curve: curve))
  }

  /// Where a training in the same pass stood when an earlier run was interrupted; `nil` where there was none.
  package func keptTraining<State>(_ body: (TensorArchive) throws -> State) throws -> State? { try journal?.training(body) }

  /// Keeps where a training stands, in the place of where it stood before.
  package func keepTraining(_ items: [TensorArchive.Item], words: [String: String]) throws {
    try journal?.keepTraining(items, words: words)
  }

  /// Whether what a training keeps is kept anywhere.
  package var keepsTraining: Bool { journal != nil }

  /// Says something about the model as a whole, once.
  public func remark(_ text: String) { records.say(text) }
}

extension Pipeline {
  /// The passes before a pass over the whole model, that pass, and those after it, one after the other.
  ///
  /// - Parameter place: of the first such pass.
  func run(
    wholeModelPassAt place: Int, on model: Model, options: SweepOptions, observer: any PipelineObserver, into sink: any PartSink
  ) async throws -> Report {
    try checkOrder()
    let whole = prepared(model)
    let descriptions = try reshapings(of: whole.description)
    let collected = CollectedParts()
    var before = Pipeline(Array(passes[..<place]))
    before.following = Array(passes[place...]) + following
    var report = try await before.run(on: whole, options: options, observer: observer, into: collected)
    var description = descriptions[place]
    description.blocks = await collected.parts.compactMap { ($0 as? Block)?.description }
    var parts = ModelParts(description, await collected.parts)
    var options = options
    options.journal = options.journal?.later(by: 1)
    let earlier = origin?.keptBlocks ?? Array(whole.description.blocks.indices)
    let origin = Origin(model: origin?.model ?? whole, keptBlocks: report.keptBlocks.map { earlier[$0] })
    try train(&parts, by: place, origin, options, observer, &report)
    options.journal = options.journal?.later(by: 1)
    var remaining = Pipeline(Array(passes[(place + 1)...]))
    (remaining.following, remaining.origin) = (following, origin)
    guard !remaining.passes.isEmpty else {
      for part in parts.all { try await sink.append(part) }
      return report
    }
    do {
      let after = try await remaining.run(on: whole.holding(description, parts.all), options: options, observer: observer, into: sink)
      report.layers += after.layers
      report.training += after.training
      report.blocks += after.blocks
      report.remarks += after.remarks.filter { !report.remarks.contains($0) }
      report.keptBlocks = after.keptBlocks.map { [kept = report.keptBlocks] in kept[$0] }
      return report
    } catch let error as PipelineError {
      throw PipelineError(pass: error.pass, block: error.block, cause: error.cause, index: error.index + place + 1)
    }
  }

  private func train(
    _ parts: inout ModelParts, by place: Int, _ origin: Origin, _ options: SweepOptions, _ observer: any PipelineObserver,
    _ report: inout Report
  ) throws {
    guard let pass = passes[place] as? any ModelPass else { preconditionFailure("a pass over the whole model") }
    let found = parts.all
    let journal = try JournaledSweep(options.journal, training: found, by: pass, observer)
    if let (trained, findings) = try journal.finished(found) {
      parts = ModelParts(parts.description, trained)
      for findings in findings { report.add(findings) }
      report.remarks += journal.remarks
      return
    }
    let name = type(of: pass).name
    let (records, start) = (PassContext.Records(), ContinuousClock.now)
    let own = pass.teacher.flatMap { options.teachers[$0] }
    let context = ModelPassContext(
      teacher: own ?? origin.model, keptBlocks: own == nil ? origin.keptBlocks : [], options: options, pass: name, records: records
    ) { done, total, what in
      observer.observe(.blockEnded(name: "\(name): \(what)", index: done - 1, count: total, took: start.duration(to: .now)))
    }
    observer.observe(.passBegan(pass: name, block: "the model"))
    do {
      if let named = pass.teacher, options.teachers[named] == nil { throw InvalidOption("teacher", "\(named): no such model was opened") }
      try pass.run(on: &parts, in: context)
      for part in parts.all {
        if let name = part.nonfiniteLinear().map(part.fullName(of:)) ?? part.norms.nonfinite.map(part.fullName(ofNorm:)) {
          throw NonFiniteResult(layer: name)
        }
      }
    } catch let error as CancellationError { throw error } catch {
      throw PipelineError(pass: name, block: "the model", cause: error, index: place)
    }
    observer.observe(.passEnded(pass: name, block: "the model", took: start.duration(to: .now)))
    let findings = SweepJournal.Findings(remarks: records.remarks, training: records.training)
    report.add(findings)
    for (index, (part, read)) in zip(parts.all, found).enumerated() {
      try journal.keep(part, at: index, read, index == 0 ? findings : .init())
      try journal.files.commit(part.place)
    }
    options.journal?.forgetTraining()
    report.remarks += journal.remarks
  }
}

/// What a sweep has made, in memory.
private actor CollectedParts: PartSink {
  private(set) var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }
}
