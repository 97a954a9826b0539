/// What passes and formats ask of attention: how many heads there are, what becomes of their keys and values, and whether they can be changed.
public struct AttentionHeads: Sendable, Equatable {
  public var queries: Int
  /// Heads of keys and values, each of which serves equally many of queries.
  public var keyValues: Int
  /// Numbers of a head.
  public let size: Int
  /// The module that keys and values are cached by, inside the block.
  public let module: String
  public let rotary: RotaryDescription?
  /// Whether queries and keys are normalised behind their projections.
  public let areNormalized: Bool
  /// Why there cannot be fewer of them by changing the linears alone; `nil` where there can.
  public let obstacle: String?

  /// Queries for one of keys and values.
  public var group: Int { queries / max(1, keyValues) }

  init(_ attention: AttentionDescription) {
    queries = attention.heads
    keyValues = attention.keyValueHeads
    size = attention.headSize
    module = attention.module
    rotary = attention.rotary
    areNormalized = attention.normalizesQueriesAndKeys
    obstacle = attention.headObstacle
  }
}

/// From the linear that makes values to the one that reads what attention makes of them: its inputs are one stretch per query head, in the
/// coordinates of the key-value head that serves it.
public struct ValuePath: Sendable, Equatable {
  public let maker: LinearName
  public let reader: LinearName
  /// The rows of the maker, by key-value head.
  public let rows: [Range<Int>]
}

extension BlockDescription {
  /// The heads of softmax attention; `nil` in a block without. How many there are may be set.
  public var heads: AttentionHeads? {
    get { attention.map(AttentionHeads.init) }
    set {
      guard let newValue else { return }
      attention?.heads = newValue.queries
      attention?.keyValueHeads = newValue.keyValues
    }
  }

  /// `nil` in a block without attention, and where anything but attention stands on the way.
  public var valuePath: ValuePath? {
    guard let attention, !attention.normalizesValues else { return nil }
    return ValuePath(
      maker: attention.valueRows(0).linear, reader: attention.output,
      rows: (0..<attention.keyValueHeads).map { attention.valueRows($0).rows })
  }

  /// The linears whose outputs' products say which tokens are seen; none without attention.
  package var scoreMakers: Set<LinearName> { attention.map { [$0.queryRows(0).linear, $0.keyRows(0).linear] } ?? [] }

  /// Why values cannot take other coordinates on their way to attention's output; `nil` where they can.
  package var valueObstacle: String? {
    guard let attention else { return "\(prefix.dropLast()) has no attention whose values could be rotated" }
    if attention.normalizesValues { return "\(prefix)\(attention.module) divides values by their root mean square, head by head" }
    return attention.hasOutputGate ? "\(prefix)\(attention.module) gates what attention makes of values, number by number" : nil
  }

  /// Why the block's attention cannot be cached so; `nil` where it can, and where there is none.
  package func misfit(of policy: CachePolicy) -> String? { attention.flatMap { policy.misfit(in: $0) } }
}
