internal import Tensors

/// When a state is kept: not before so much time has passed that keeping it takes no more than a fiftieth of it.
package struct KeepingTurn {
  private static let share = 50.0
  private var last = ContinuousClock.now
  private var cost = 0.0

  package init() {}

  /// - Parameter anyway: whether it is kept whatever it costs.
  package mutating func keep(anyway: Bool = false, _ body: () throws -> Void) rethrows {
    guard anyway || last.duration(to: .now).seconds >= Self.share * cost else { return }
    let start = ContinuousClock.now
    try body()
    last = .now
    cost = start.duration(to: last).seconds
  }
}
