package import Models
internal import Synchronization

// What stands in for the statistics of inputs that no calibration token reached: an expert that the router never chose has none of its own.

extension BlockDescription {
  /// For readers or writers of an expert, the groups whose inputs say together what any expert of the mixture may be given; none for all else.
  func counterparts(of group: InputGroup) -> [InputGroup] {
    guard let feedForward, let mixture = feedForward.mixture else { return [] }
    let networks = (0..<mixture.experts).map { feedForward.expert($0) }
    let asked = Set(group.linears)
    if networks.contains(where: { asked.isSubset(of: $0.readers) }) {
      // Experts read what the router reads, each some tokens of it, unless a norm of their own makes it.
      return mixture.ownNorms == nil ? [InputGroup([mixture.router])] : networks.map { InputGroup($0.readers) }
    }
    return networks.contains { asked == [$0.down] } ? networks.map { InputGroup([$0.down]) } : []
  }
}

extension PassContext {
  /// The largest magnitude among a group's inputs; for an expert that no token reached, among those of all experts of the mixture.
  ///
  /// - Returns: besides it, whether it had to be taken from the others.
  /// - Throws: `UnreachedInput` where there are no others, or these were not reached either.
  package func largestInput(of group: InputGroup, in part: any ModelPart) throws -> (amax: Float, isBorrowed: Bool) {
    let own = try statistic(InputMaximum.self, of: group, in: part)
    if own.tokens > 0 { return (own.amax, false) }
    let others = (part as? Block)?.description.counterparts(of: group) ?? []
    guard let first = others.first else { throw UnreachedInput(layer: part.fullName(of: group.linears[0])) }
    // One visit to every expert serves all that were not reached.
    let key = part.fullName(of: first.linears[0])
    if let known = borrowed.value(key) { return (known, true) }
    var (amax, tokens) = (Float(0), 0)
    for other in others {
      let found = try statistic(InputMaximum.self, of: other, in: part)
      amax = max(amax, found.amax)
      tokens += found.tokens
    }
    guard tokens > 0 else { throw UnreachedInput(layer: part.fullName(of: group.linears[0])) }
    borrowed.set(key, amax)
    return (amax, true)
  }

  /// The second moment of a group's inputs and, where the pass compares them, how they have drifted.
  ///
  /// An expert may be reached in both models and yet by no token in common: its own second moment then stands alone, without a drift.
  package func secondMoment(
    of group: InputGroup, in part: any ModelPart, comparing: Bool
  ) throws -> (hessian: Hessian, drift: InputDrift?) {
    guard comparing else { return (try statistic(Hessian.self, of: group, in: part), nil) }
    let drift = try drift(of: group, in: part)
    guard drift.hessian.tokens == 0 else { return (drift.hessian, drift) }
    return (try statistic(Hessian.self, of: group, in: part), nil)
  }
}

/// How fallbacks say that a statistic is one of nothing.
package enum Unreached {
  package static let reason = "no calibration token reached it with a finite input"
  package static let noDrift = "no calibration token reached it both here and in the original model: not corrected for drift"
}

/// What was found once for all experts of a block.
final class BorrowedMaxima: Sendable {
  private let values = Mutex([String: Float]())

  func value(_ key: String) -> Float? { values.withLock { $0[key] } }
  func set(_ key: String, _ value: Float) { values.withLock { $0[key] = value } }
}

/// A layer's input is to get a fixed scale, and nothing ever flowed into it or its like.
public struct UnreachedInput: Error, Equatable, Sendable, CustomStringConvertible {
  public let layer: String
  public var description: String {
    "\(layer): \(Unreached.reason), so its input has no scale; give more calibration data, or quantize inputs as they come, such as by activations: fp8"
  }
}
