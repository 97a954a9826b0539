import CheckpointIO
import Foundation
import Models
import Passes
import Tensors
import Training

/// Where a training stands: all that moves, the best of it so far, the optimizer's moments, and how far it is. What an interrupted run goes on
/// from, and what it goes on from gives the same bytes as no interruption.
struct TrainingState: Sendable {
  private(set) var student: TrainableModel
  private(set) var best: TrainableModel
  private var optimizer = AdamW()
  private(set) var progress: Progress

  /// How far it is.
  struct Progress: Sendable, Codable {
    /// On the sequences kept out.
    var before: Double
    var bestLoss: Double
    var bestStep = 0
    var step = 0
    /// Learned from so far.
    var tokens = 0
    /// Spent on steps.
    var seconds = 0.0
    var curve: [Report.TrainingRecord.Point] = []
    /// Of the optimizer.
    var optimizerSteps = 0
  }

  /// - Parameter before: the loss of the student on the sequences kept out.
  init(_ student: TrainableModel, before: Double) {
    (self.student, best) = (student, student)
    progress = Progress(before: before, bestLoss: before)
  }

  // MARK: Steps

  /// - Parameters:
  ///   - tokens: that the gradient was taken of.
  ///   - seconds: that this took.
  mutating func step(
    _ gradient: TrainableModel.Gradient, _ rates: StepRates, factor: Float, tokens: Int, since start: ContinuousClock.Instant
  ) {
    student.step(gradient, &optimizer, rates, factor: factor)
    progress.step += 1
    progress.tokens += tokens
    progress.seconds += start.duration(to: .now).seconds
  }

  /// Enters a loss on the sequences kept out into the curve, and keeps the student if none was lower.
  mutating func validate(_ loss: Double, training: Double) {
    progress.curve.append(.init(step: progress.step, tokens: progress.tokens, loss: training, lossKeptOut: loss))
    if loss < progress.bestLoss { (best, progress.bestLoss, progress.bestStep) = (student, loss, progress.step) }
  }

  // MARK: The archive

  private static let words = "progress"

  private static func text(_ name: ParameterName) -> String { "\(name.module)|\(name.kind.rawValue)" }

  private static func name(_ text: some StringProtocol) -> ParameterName? {
    guard let bar = text.lastIndex(of: "|"), let kind = ParameterName.Kind(rawValue: String(text[text.index(after: bar)...])) else {
      return nil
    }
    return ParameterName(String(text[..<bar]), kind)
  }

  /// Writes all of it down.
  func keep(in context: ModelPassContext) throws {
    var items: [TensorArchive.Item] = []
    for (name, values) in student.numbers { items.append(.init("now " + Self.text(name), values)) }
    // At the start the best is what the student began as.
    if progress.bestStep > 0 { for (name, values) in best.numbers { items.append(.init("best " + Self.text(name), values)) } }
    for (name, first, second) in optimizer.state {
      items.append(.init("first " + Self.text(name), Matrix(rows: 1, columns: first.count, elements: first)))
      items.append(.init("second " + Self.text(name), Matrix(rows: 1, columns: second.count, elements: second)))
    }
    var progress = progress
    progress.optimizerSteps = optimizer.steps
    let words = String(decoding: try JSONEncoder().encode(progress), as: UTF8.self)
    try context.keepTraining(items, words: [Self.words: words])
  }

  /// The state that an interrupted run has kept; `nil` where there is none.
  ///
  /// - Parameter start: the student as it began.
  init?(_ start: TrainableModel, keptIn context: ModelPassContext) throws {
    guard let kept = try context.keptTraining({ try TrainingState(start, $0) }) else { return nil }
    self = kept
  }

  private init(_ start: TrainableModel, _ archive: TensorArchive) throws {
    progress = try JSONDecoder().decode(Progress.self, from: Data((archive.words[Self.words] ?? "").utf8))
    (student, best) = (start, start)
    try student.replaceNumbers { name, _ in try archive.matrix("now " + Self.text(name)) }
    if progress.bestStep > 0 { try best.replaceNumbers { name, _ in try archive.matrix("best " + Self.text(name)) } }
    var moments: [(name: ParameterName, first: [Float], second: [Float])] = []
    for item in archive.names where item.hasPrefix("first ") {
      let text = item.dropFirst("first ".count)
      guard let name = Self.name(text) else { throw CheckpointError.missingTensor(name: item) }
      moments.append((name, try archive.matrix(item).elements, try archive.matrix("second " + text).elements))
    }
    optimizer.restore(steps: progress.optimizerSteps, moments)
  }
}
