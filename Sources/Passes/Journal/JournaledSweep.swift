internal import Models

/// One sweep and its journal: what an earlier run has finished is taken from it, what is finished now is put there.
final class JournaledSweep {
  /// Parts whose files have no names yet.
  let files = PendingParts()
  private var journal: SweepJournal?
  private let finishedCount: Int
  private let announced: [BlockDescription]
  private let places: [PartPlace]
  private let stream: CalibrationStream?
  private let observer: any PipelineObserver
  /// What is to be said of it in the report.
  private(set) var remarks: [String] = []

  /// - Parameters:
  ///   - journal: `nil` for a sweep that keeps nothing.
  ///   - model: without the blocks that passes leave out.
  init(
    _ journal: SweepJournal?, _ places: [PartPlace], of model: Model, _ passes: [any Pass], _ stream: CalibrationStream?,
    _ observer: any PipelineObserver
  ) throws {
    (self.journal, self.places, self.stream, self.observer) = (journal, places, stream, observer)
    announced =
      journal == nil ? [] : try Pipeline(passes.filter { !$0.removesBlocks }).reshapings(of: model.description).last?.blocks ?? []
    finishedCount = journal?.finished(of: places.count, carriesStates: stream != nil) ?? 0
    try journal?.begin(passes, parts: places.count)
    if finishedCount > 0 {
      say("taken up again: \(finishedCount) of \(places.count) parts of the model are those of an interrupted run")
    }
  }

  /// The journal of what a pass makes of all parts at once: it counts when it is there as a whole.
  init(_ journal: SweepJournal?, training parts: [any ModelPart], by pass: any Pass, _ observer: any PipelineObserver) throws {
    (self.journal, places, stream, self.observer) = (journal, parts.map(\.place), nil, observer)
    announced = []
    let count = journal?.finished(of: parts.count, carriesStates: false) ?? 0
    finishedCount = count == parts.count ? count : 0
    try journal?.begin([pass], parts: parts.count)
    if finishedCount > 0 { say("taken up again: the model is as an interrupted run had trained it") }
  }

  /// What an earlier run has made of all parts; `nil` where that is still to be done.
  func finished(_ parts: [any ModelPart]) throws -> (parts: [any ModelPart], findings: [SweepJournal.Findings])? {
    guard finishedCount > 0 else { return nil }
    let kept = try parts.enumerated().compactMap { try finished($0, $1) }
    return (kept.map(\.part), kept.map(\.findings))
  }

  private func say(_ remark: String) {
    remarks.append(remark)
    observer.observe(.remark(remark))
  }

  private func announced(_ place: PartPlace) -> BlockDescription? {
    guard case .decoder(let index) = place, announced.indices.contains(index) else { return nil }
    return announced[index]
  }

  /// What an earlier run has made of a part; `nil` where that is still to be done.
  func finished(_ index: Int, _ read: any ModelPart) throws -> (part: any ModelPart, findings: SweepJournal.Findings)? {
    guard let journal, index < finishedCount else { return nil }
    let kept = try journal.part(index, read: read, announced: announced(places[index]))
    if index == finishedCount - 1, finishedCount < places.count { try journal.restore(stream, behind: index) }
    return kept
  }

  /// Writes down what has become of a part.
  func keep(_ part: any ModelPart, at index: Int, _ read: any ModelPart, _ findings: SweepJournal.Findings) throws {
    guard let journal else { return }
    let carried = index + 1 < places.count ? stream : nil
    do {
      let pending = try journal.keep(part, at: index, read: read, announced: announced(places[index]), findings, carried)
      files.add(pending, at: places[index])
    } catch let error as Unkeepable {
      self.journal = nil
      say("this run could not be taken up again behind \(part.name) if it were interrupted: \(error)")
    }
  }
}

extension Report {
  /// What was found out about one part.
  mutating func add(_ findings: SweepJournal.Findings) {
    layers += findings.layers
    training += findings.training
    if let block = findings.block { blocks.append(block) }
    remarks += findings.remarks.filter { !remarks.contains($0) }
  }
}
