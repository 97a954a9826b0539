public import Foundation
public import Models

/// A question about the whole model that must be answered before the sweep begins: how sensitive each layer is, which blocks to drop.
///
/// An analysis reads and never writes. Passes name the ones they need; the pipeline runs each once.
public protocol Analysis<Answer>: Sendable, Hashable {
  associatedtype Answer: Sendable
  func answer(for model: Model, in context: AnalysisContext) async throws -> Answer
  /// Copies of the hidden states of its tokens that it holds at a time, for the estimate before a run.
  func heldStates(of description: ModelDescription) -> Int
  /// Floating-point operations that it takes, for the same estimate.
  ///
  /// - Parameters:
  ///   - tokens: of the calibration data.
  ///   - longest: tokens of its longest sequence.
  func operations(on description: ModelDescription, tokens: Int, longest: Int) -> Double
}

extension Analysis {
  public func heldStates(of description: ModelDescription) -> Int { 0 }
  public func operations(on description: ModelDescription, tokens: Int, longest: Int) -> Double { 0 }
}

extension ModelDescription {
  /// Operations of one token's way through blocks and the head, attention apart. What two models make of a token is compared by an exponential
  /// for each word of the vocabulary, which takes as long as some 300 operations of a product.
  package var operationsPerToken: (blocks: Double, head: Double) {
    (2 * Double(blocks.reduce(0) { $0 + $1.weightCount }), Double(vocabularySize) * Double(2 * hiddenSize + 300))
  }
}

public struct AnalysisContext: Sendable {
  public let seed: UInt64
  /// The calibration sequences; none in a data-free run.
  public let calibration: [[Int32]]
  /// What predictions are measured on where the recipe says so; otherwise empty.
  public let probes: [[Int32]]
  /// Bytes that activations may take in memory, and where a scratch file may be put beyond that.
  public let activationMemory: Int
  public let scratch: URL
  /// Whether any answer of the right shape will do.
  public let isRehearsal: Bool
  /// To be called now and then with what has been done, of how much.
  public let progress: @Sendable (_ done: Int, _ total: Int) -> Void
  /// Says something about the answer that belongs into the report.
  public let remark: @Sendable (String) -> Void

  init(_ options: SweepOptions, progress: @escaping @Sendable (Int, Int) -> Void, remark: @escaping @Sendable (String) -> Void) {
    (seed, calibration, probes, isRehearsal) = (options.seed, options.calibration, options.probes, options.isRehearsal)
    (activationMemory, scratch) = (options.activationMemory, options.scratch)
    (self.progress, self.remark) = (progress, remark)
  }
}

extension AnalysisContext {
  /// What to fit to, and what to measure predictions on: the recipe's probes, or else the last calibration sequences, which are then kept
  /// out of the fit as long as that leaves enough for it.
  ///
  /// - Parameter count: of calibration sequences to measure on.
  package func heldOut(_ count: Int) -> (fitted: [[Int32]], probes: [[Int32]]) {
    guard probes.isEmpty else { return (calibration, probes) }
    let count = min(count, calibration.count)
    return (calibration.count > 2 * count ? Array(calibration.dropLast(count)) : calibration, Array(calibration.suffix(count)))
  }
}

/// The answers given so far.
package struct Answers: Sendable {
  private var storage: [Key: any Sendable] = [:]
  /// What is to be said of them.
  package var remarks: [String] = []

  package init() {}

  package subscript<A: Analysis>(_ analysis: A) -> A.Answer? {
    get { (storage[Key(base: analysis)] as? Box<A.Answer>)?.value }
    set { storage[Key(base: analysis)] = newValue.map { Box(value: $0) } }
  }

  /// Keeps an answer of optional type apart from no answer.
  private struct Box<Answer: Sendable>: Sendable { let value: Answer }

  private struct Key: Hashable, Sendable {
    let base: any Hashable & Sendable
    static func == (a: Self, b: Self) -> Bool { AnyHashable(a.base) == AnyHashable(b.base) }
    func hash(into hasher: inout Hasher) { AnyHashable(base).hash(into: &hasher) }
  }
}
