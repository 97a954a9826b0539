package import CheckpointIO
internal import Foundation
internal import Models
internal import Synchronization
internal import Tensors

/// What a sweep keeps as it goes, so that another run can go on from there: every finished part, what was said of it, and the hidden states
/// that enter the next.
///
/// A part counts once its own file has its name, and that comes after the states behind it: whatever moment a run dies at, what lies in the
/// journal is a sweep up to some part. Of states only the last are kept.
package struct SweepJournal: Sendable {
  private let directory: URL
  /// Which of the run's sweeps, or trainings, it is of.
  private let phase: Int

  package init(_ journal: RunJournal) { self.init(journal.directory, phase: 0) }

  private init(_ directory: URL, phase: Int) { (self.directory, self.phase) = (directory, phase) }

  /// That of a later phase of the same run.
  func later(by count: Int) -> SweepJournal { SweepJournal(directory, phase: phase + count) }

  /// What a run has found out about a part.
  struct Findings: Codable {
    var layers: [Report.LayerRecord] = []
    var remarks: [String] = []
    var block: Report.BlockRecord?
    var training: [Report.TrainingRecord] = []
  }

  private static let contents = "contents"
  private static let findings = "findings"

  func file(_ name: String) -> URL { directory.appending(path: "\(phase)-\(name)") }
  private func partFile(_ index: Int) -> URL { file("part-\(index).safetensors") }
  private func stateFile(_ index: Int) -> URL { file("states-\(index).safetensors") }

  /// A sweep or a training, and how far it is.
  package struct Progress: Sendable, Codable {
    /// The passes, by their names.
    package var passes: [String]
    package var parts: Int
    package var finished = 0
  }

  private var outlineFile: URL { file("outline.json") }

  /// Says what the phase will be, for those who ask how far it is.
  func begin(_ passes: [any Pass], parts: Int) throws {
    let outline = Progress(passes: passes.map { type(of: $0).name }, parts: parts)
    try DurableFile.write(try JSONEncoder().encode(outline), to: outlineFile)
  }

  /// All phases that have begun, in their order.
  package static func progress(of journal: RunJournal) -> [Progress] {
    var (all, phase): ([Progress], SweepJournal) = ([], SweepJournal(journal))
    while let data = try? Data(contentsOf: phase.outlineFile), var outline = try? JSONDecoder().decode(Progress.self, from: data) {
      outline.finished = phase.finished(of: outline.parts, carriesStates: false)
      all.append(outline)
      phase = phase.later(by: 1)
    }
    return all
  }

  /// Whether there is anything in a journal that another run could go on from.
  package static func holdsWork(_ journal: RunJournal) -> Bool {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: journal.directory.path)) ?? []
    return names.contains { !$0.hasSuffix(".json") && !$0.hasSuffix(".new") }
  }

  /// How many parts an earlier run has finished.
  ///
  /// - Parameter carriesStates: whether the sweep needs the states behind the last of them.
  func finished(of count: Int, carriesStates: Bool) -> Int {
    func exists(_ url: URL) -> Bool { FileManager.default.fileExists(atPath: url.path) }
    let parts = (0..<count).first { !exists(partFile($0)) } ?? count
    guard carriesStates, parts > 0, parts < count else { return parts }
    // Those of the part before are taken away only once a part counts.
    return [parts, parts - 1].first { $0 > 0 && exists(stateFile($0 - 1)) } ?? 0
  }

  /// A file for a part and one for the states behind it, written and not yet named.
  struct Pending: Sendable {
    fileprivate var files: [TensorArchive.Pending]
    fileprivate var outdated: URL?

    /// Makes the part count.
    func commit() throws(CheckpointError) {
      for file in files { try file.commit() }
      if let outdated { unlink(outdated.path) }
    }
  }

  /// Writes a finished part down.
  ///
  /// - Parameters:
  ///   - read: the part as the sweep found it; `announced`, what a block was to become.
  ///   - stream: whose states are kept, too.
  /// - Throws: `Unkeepable`, and what the disk says.
  func keep(
    _ part: any ModelPart, at index: Int, read: any ModelPart, announced: BlockDescription?, _ findings: Findings,
    _ stream: CalibrationStream?
  ) throws -> Pending {
    var items: [TensorArchive.Item] = []
    let contents = try PartArchive(part, read: read, announced: announced, into: &items)
    let words = [Self.contents: try Self.text(contents), Self.findings: try Self.text(findings)]
    var pending = Pending(files: [], outdated: nil)
    if let stream {
      pending.files.append(try TensorArchive.write(stream.states, words: [:], to: stateFile(index)))
      pending.outdated = stateFile(index - 1)
    }
    pending.files.append(try TensorArchive.write(items, words: words, to: partFile(index)))
    return pending
  }

  /// A part that an earlier run has finished, and what it found out.
  ///
  /// - Parameter read: the same part as this sweep has found it.
  func part(_ index: Int, read: any ModelPart, announced: BlockDescription?) throws -> (part: any ModelPart, findings: Findings) {
    try reading(partFile(index)) { archive in
      let decoder = JSONDecoder()
      decoder.nonConformingFloatDecodingStrategy = .convertFromString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
      let contents = try decoder.decode(PartArchive.self, from: Data((archive.words[Self.contents] ?? "").utf8))
      let findings = try decoder.decode(Findings.self, from: Data((archive.words[Self.findings] ?? "").utf8))
      return (try contents.part(from: read, announced: announced, archive), findings)
    }
  }

  /// Puts a stream where it was behind a part.
  func restore(_ stream: CalibrationStream?, behind index: Int) throws {
    guard let stream else { return }
    try reading(stateFile(index)) { try stream.restore($0) }
  }

  /// What a file that is as it was written does not hold is damage, too.
  private func reading<Result>(_ file: URL, _ body: (TensorArchive) throws -> Result) throws -> Result {
    let archive = try TensorArchive(file)
    do { return try body(archive) } catch let error where error is CheckpointError || error is DecodingError {
      throw DamagedJournal(file: file.path, reason: "\(error)")
    }
  }

  private static func text(_ value: some Encodable) throws -> String {
    let encoder = JSONEncoder()
    encoder.nonConformingFloatEncodingStrategy = .convertToString(positiveInfinity: "inf", negativeInfinity: "-inf", nan: "nan")
    return String(decoding: try encoder.encode(value), as: UTF8.self)
  }

  // MARK: Trainings

  private var trainingFile: URL { file("training.safetensors") }

  func training<State>(_ body: (TensorArchive) throws -> State) throws -> State? {
    FileManager.default.fileExists(atPath: trainingFile.path) ? try reading(trainingFile, body) : nil
  }

  func keepTraining(_ items: [TensorArchive.Item], words: [String: String]) throws {
    try TensorArchive.write(items, words: words, to: trainingFile).commit()
  }

  /// To be called once what the training has made is kept.
  func forgetTraining() { unlink(trainingFile.path) }

  // MARK: Answers

  /// What an earlier run has answered to an analysis; `nil` where it has not, or where answers of this kind are not kept.
  func answer<A: Analysis>(to _: A, of pass: Int) throws -> (answer: A.Answer, remarks: [String])? {
    let file = answerFile(A.self, pass)
    guard let type = A.Answer.self as? any Decodable.Type, FileManager.default.fileExists(atPath: file.path) else { return nil }
    return try reading(file) { archive in
      guard let answer = try archive.value(Self.answer, as: type) as? A.Answer else { return nil }
      return (answer, try archive.value(Self.remarks))
    }
  }

  private static let answer = "answer"
  private static let remarks = "remarks"

  /// Keeps an answer, if it is of a kind that can be written down.
  func keep<A: Analysis>(_ answer: A.Answer, _ remarks: [String], to _: A, of pass: Int) throws {
    guard A.Answer.self is any Decodable.Type, let answer = answer as? any Encodable else { return }
    let items = [try TensorArchive.Item(Self.answer, of: answer), try TensorArchive.Item(Self.remarks, of: remarks)]
    try TensorArchive.write(items, words: [:], to: answerFile(A.self, pass)).commit()
  }

  private func answerFile<A>(_: A.Type, _ pass: Int) -> URL { file("answer-\(pass)-\(A.self).safetensors") }
}

/// Parts that are written down and whose files have no names yet: they get them while the next part is worked on.
final class PendingParts: Sendable {
  private let parts = Mutex([PartPlace: SweepJournal.Pending]())

  func add(_ pending: SweepJournal.Pending, at place: PartPlace) { parts.withLock { $0[place] = pending } }

  func commit(_ place: PartPlace) throws(CheckpointError) { try parts.withLock { $0.removeValue(forKey: place) }?.commit() }
}

extension CalibrationStream {
  /// What enters the next part, sequence by sequence, in this model and in the one that is carried along.
  var states: [TensorArchive.Item] {
    streams.enumerated().flatMap { place, stream in
      stream.sequences.indices.map { index in
        TensorArchive.Item("\(place).\(index)", TensorInfo(dtype: .float32, shape: stream.stateShape(of: index))) {
          let matrix = try stream.blockInput(of: index)
          return matrix.elements.withUnsafeBytes { Data($0) }
        }
      }
    }
  }

  /// Puts the sequences where an earlier run had brought them.
  func restore(_ archive: TensorArchive) throws {
    for (place, stream) in streams.enumerated() {
      for index in stream.sequences.indices { try stream.take(try archive.matrix("\(place).\(index)"), as: index) }
    }
  }
}
