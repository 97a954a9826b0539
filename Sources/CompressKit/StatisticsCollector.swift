internal import CheckpointIO
public import Foundation
internal import Formats
internal import Models
public import Passes
internal import Tensors

/// Runs a model over calibration data once and saves the statistics that passes ask for.
public struct StatisticsCollector: Sendable {
  public var sequences: [[Int32]]
  /// What the tokens came from; for the record.
  public var source: String
  public var toolkit: Toolkit
  /// Bytes of memory to stay under where there is a choice.
  public var memoryLimit: Int
  /// Whether an existing file of statistics is replaced once the new one is complete.
  public var overwrite: Bool

  public init(
    sequences: [[Int32]], source: String, toolkit: Toolkit = .standard, memoryLimit: Int = Machine.usualMemoryLimit, overwrite: Bool = false
  ) {
    self.sequences = sequences
    self.source = source
    self.toolkit = toolkit
    self.memoryLimit = memoryLimit
    self.overwrite = overwrite
  }

  /// - Parameter output: the file to make; it appears complete or not at all, and what it replaces must be such a file.
  /// - Throws: the first failure; `CancellationError` when the task is cancelled.
  public func run(_ checkpoint: Checkpoint, to output: URL, observer: any PipelineObserver = Silent()) async throws {
    let stage = try StagedDirectory(for: output, overwrite: overwrite, inputs: checkpoint.inputs) { StatisticsFile.foreignness(of: $0) }
    do {
      let model = try toolkit.model(checkpoint)
      for remark in stage.remarks + model.remarks { observer.observe(.remark(remark)) }
      let name = "statistics.h5"
      try await collect(checkpoint, model, into: stage.url(name), observer)
      try checkpoint.checkUnchanged()
      try Task.checkCancellation()
      try stage.publish(name)
    } catch {
      stage.abandon()
      throw error
    }
  }

  private func collect(_ checkpoint: Checkpoint, _ model: Model, into file: URL, _ observer: any PipelineObserver) async throws {
    var pass = SaveStatistics()
    let plan = try Pipeline([pass]).plan(for: model)
    let estimate = ResourceEstimate(
      of: model, plan: plan, pipeline: Pipeline([pass]), calibration: sequences.map(\.count), memoryLimit: memoryLimit, otherBytes: 0)
    try Machine.require(estimate.leastMemory, limit: memoryLimit)
    let store = try HDF5Output(file)
    var options = SweepOptions(
      calibration: sequences, activationMemory: estimate.activationBudget, scratch: file.deletingLastPathComponent())
    options.strict = true
    pass.store = store
    observer.observe(.step("calibrate"))
    _ = try await Pipeline([pass]).run(on: model, options: options, observer: observer, into: Nowhere())
    typealias Attribute = StatisticsFile.Attribute
    try store.setAttribute(Attribute.format, Attribute.version)
    try store.setAttribute(Attribute.model, try Fingerprint.of(checkpoint.tensors))
    try store.setAttribute(Attribute.data, Fingerprint.of(sequences))
    try store.setAttribute(Attribute.source, source)
    try store.setAttribute(Attribute.sequences, "\(sequences.count)")
    try store.setAttribute(Attribute.tokens, "\(sequences.reduce(0) { $0 + $1.count })")
    try store.finish()
  }

  private actor Nowhere: PartSink {
    func append(_ part: any ModelPart) {}
  }

  /// The sweep's only pass: it changes nothing, so that every statistic is the original model's.
  private struct SaveStatistics: Pass {
    static let name = "calibrate"
    var store: HDF5Output?

    /// Nothing is an option.
    private enum CodingKeys: CodingKey {}

    func run(on part: inout any ModelPart, in context: PassContext) throws {
      guard !(part is Embedding), let store else { return }
      for group in part.inputGroups where !group.linears.isEmpty {
        let statistics = try context.statistic(InputStatistics.self, of: group, in: part)
        let (hessian, magnitude) = (statistics.hessian, statistics.magnitude)
        let name = part.fullName(of: group.linears[0])
        let size = hessian.matrix.size
        func save(_ what: String, _ tensor: Tensor) throws(CheckpointError) { try store.append(tensor, "\(name)/\(what)") }
        typealias Part = StatisticsFile.Part
        try save(Part.hessian, Tensor(hessian.matrix.lower, shape: [size, size]))
        try save(Part.sums, Tensor(magnitude.sums, shape: [size]))
        try save(Part.squares, Tensor(magnitude.squares, shape: [size]))
        try save(Part.maxima, Tensor(magnitude.maxima, shape: [size], dtype: .float32))
        let counts = [Int64(hessian.tokens), Int64(hessian.skippedTokens)]
        try save(Part.counts, Tensor(dtype: .int64, shape: [2], integers: counts))
      }
    }
  }
}

extension Tensor {
  fileprivate init(_ doubles: [Double], shape: [Int]) {
    self.init(dtype: .float64, shape: shape, integers: doubles.map(\.bitPattern))
  }
}
