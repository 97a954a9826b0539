public import Models
internal import Synchronization
public import Tensors

/// Everything a pass may know besides the part of the model in its hands.
public struct PassContext: Sendable {
  private let stream: CalibrationStream?
  private let statistics: (any StoredStatistics)?
  private let answers: Answers
  private let seed: UInt64
  private let pass: String
  private let strict: Bool
  private let records: Records
  let borrowed = BorrowedMaxima()
  /// The part as it was after the last exact pass, before the first other one that follows it: what quantized weights are measured against.
  public let reference: any ModelPart
  /// The passes that will run on the part after this one, in their order.
  public let following: [any Pass]

  /// What passes report, gathered while they run.
  package final class Records: Sendable {
    private let storage = Mutex([String: Report.LayerRecord]())

    package init() {}

    func update(_ key: String, default initial: Report.LayerRecord, _ change: (inout Report.LayerRecord) -> Void) {
      storage.withLock { change(&$0[key, default: initial]) }
    }

    private let trained = Mutex([Report.TrainingRecord]())

    func add(_ record: Report.TrainingRecord) { trained.withLock { $0.append(record) } }

    /// How the model was trained, so far.
    package var training: [Report.TrainingRecord] { trained.withLock { $0 } }

    private let said = Mutex([String]())

    func say(_ remark: String) { said.withLock { if !$0.contains(remark) { $0.append(remark) } } }

    /// The remarks so far.
    package var remarks: [String] { said.withLock { $0 } }

    /// The records so far, by layer name; the store is emptied.
    package func take() -> [Report.LayerRecord] {
      storage.withLock { records in
        defer { records = [:] }
        return records.values.sorted { $0.layer < $1.layer }
      }
    }
  }

  package init(
    stream: CalibrationStream?, answers: Answers, seed: UInt64, pass: String, strict: Bool, records: Records, reference: any ModelPart,
    following: [any Pass] = [], statistics: (any StoredStatistics)? = nil
  ) {
    self.stream = stream
    self.statistics = statistics
    self.answers = answers
    self.seed = seed
    self.pass = pass
    self.strict = strict
    self.records = records
    self.reference = reference
    self.following = following
  }

  /// Runs a block, or the head, as it is now, over the calibration data and accumulates the inputs of `group`; or answers with what was stored of the
  /// original model.
  ///
  /// - Parameter changingMakers: whether the pass is about to change the layers that make these inputs, which need not be computed from the
  ///   start again then.
  /// - Throws: `MissingCalibration` in a recipe without calibration data, and for the embedding, whose input is no vector;
  ///   `StatisticNotStored`.
  public func statistic<S: Statistic>(
    _ type: S.Type, of group: InputGroup, in part: any ModelPart, changingMakers: Bool = false
  ) throws -> S {
    if let statistics, !(part is Embedding) {
      // Stored under the first linear of the whole group, whichever of them were selected.
      let whole = part.inputGroups.first { Set(group.linears).isSubset(of: $0.linears) } ?? group
      let linear = part.fullName(of: whole.linears[0])
      guard let stored = try statistics.statistic(type, of: linear) else { throw StatisticNotStored(statistic: "\(type)", linear: linear) }
      return stored
    }
    guard let stream else { throw MissingCalibration() }
    return try stream.statistic(type, of: group, in: part, changingMakers: changingMakers)
  }

  /// As `statistic`, and besides how the inputs of `group` have drifted from those in the reference model, whose inputs never met a
  /// quantized layer.
  ///
  /// - Precondition: the pass `comparesInputs`.
  public func drift(of group: InputGroup, in part: any ModelPart) throws -> InputDrift {
    guard let stream else { throw MissingCalibration() }
    return try stream.drift(of: group, in: part, reference: reference)
  }

  /// The inputs of `group` in the reference model, which met no block that is not exact.
  ///
  /// - Precondition: the pass `comparesInputs`.
  public func originalStatistic<S: Statistic>(_ type: S.Type, of group: InputGroup) throws -> S {
    guard let stream else { throw MissingCalibration() }
    return try stream.originalStatistic(type, of: group, in: reference)
  }

  /// The largest magnitudes of the keys and values that the block would cache over the calibration data.
  public func cacheRange(of block: Block) throws -> (key: Float, value: Float) {
    guard let stream else { throw MissingCalibration() }
    return try stream.cacheRange(of: block)
  }

  /// Puts figures about a whole block into the report.
  public func recordBlock(_ block: Block, _ metrics: [String: Double], scheme: String? = nil) {
    records.update("\(pass) \(block.name)", default: Report.LayerRecord(pass: pass, layer: block.name)) { record in
      record.metrics.merge(metrics) { _, new in new }
      if let scheme { record.scheme = scheme }
    }
  }

  /// What flows into a decoder block, of at most `limit` calibration sequences spread evenly over all of them: [tokens × hidden size] each.
  ///
  /// - Throws: `MissingCalibration` in a recipe without calibration data.
  public func inputs(of block: Block, limit: Int) throws -> [Matrix] {
    guard let stream else { throw MissingCalibration() }
    return try stream.blockInputs(limit: limit)
  }

  /// How many calibration sequences there are; 0 without calibration data.
  package var sequenceCount: Int { stream?.sequences.count ?? 0 }
  /// Tokens of the longest of them.
  package var longestSequence: Int { stream?.sequences.map(\.count).max() ?? 0 }

  /// What flows into the current block, of one calibration sequence, and what does in the reference model: [tokens × hidden size].
  ///
  /// - Precondition: the pass `comparesInputs`.
  package func blockInputs(of sequence: Int) throws -> (own: Matrix, original: Matrix) {
    guard let stream else { throw MissingCalibration() }
    return (try stream.blockInput(of: sequence), try stream.originalBlockInput(of: sequence))
  }

  /// - Precondition: `analysis` is among the pass's `analyses`.
  public func answer<A: Analysis>(to analysis: A) -> A.Answer {
    guard let answer = answers[analysis] else { preconditionFailure("\(A.self) is not among the pass's analyses") }
    return answer
  }

  /// Random numbers for a linear, the same whatever else ran.
  public func randomness(for linear: LinearName, in part: any ModelPart) -> some RandomNumberGenerator {
    KeyedRandomness(seed: seed, key: pass, part.fullName(of: linear))
  }

  /// Puts figures about a linear into the report.
  public func record(_ linear: LinearName, in part: any ModelPart, _ metrics: [String: Double], scheme: String? = nil) {
    let name = part.fullName(of: linear)
    records.update("\(pass) \(name)", default: Report.LayerRecord(pass: pass, layer: name)) { record in
      record.metrics.merge(metrics) { _, new in new }
      if let scheme { record.scheme = scheme }
    }
  }

  /// Says something about the model as a whole, once; it is printed and kept in the report.
  public func remark(_ text: String) { records.say(text) }

  /// Reports that a linear was not done as asked, and why; under `--strict` that ends the run. Several reasons are all told.
  public func recordFallback(_ linear: LinearName, in part: any ModelPart, _ reason: String) throws(UnwantedFallback) {
    let name = part.fullName(of: linear)
    if strict { throw UnwantedFallback(layer: name, reason: reason) }
    records.update("\(pass) \(name)", default: Report.LayerRecord(pass: pass, layer: name)) { record in
      guard let told = record.fallback else { return record.fallback = reason }
      if !told.contains(reason) { record.fallback = told + "; " + reason }
    }
  }
}

/// A pass asked for statistics in a run without calibration data.
public struct MissingCalibration: Error, Equatable, Sendable, CustomStringConvertible {
  public init() {}
  public var description: String { "calibration data is needed here; give the recipe a `calibration:` section" }
}

/// A layer could not be done as asked, in a strict run.
public struct UnwantedFallback: Error, Equatable, Sendable, CustomStringConvertible {
  public let layer: String
  public let reason: String

  public init(layer: String, reason: String) {
    self.layer = layer
    self.reason = reason
  }

  public var description: String { "\(layer): \(reason) (a fallback, which --strict refuses)" }
}
