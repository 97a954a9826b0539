import Models
import Tensors

/// What one decoder block keeps of one sequence, mixer by mixer: keys and values of attention, the state of a recurrence.
public struct BlockCache: Sendable {
  enum Memory: Sendable {
    case keysAndValues(KeyValueCache)
    case state(any MixerState)
    /// While the mixer has it.
    case none
  }

  var mixers: [Memory]

  /// Of the block's attention; `nil` where it has none.
  public var keysAndValues: KeyValueCache? {
    mixers.lazy.compactMap { if case .keysAndValues(let cache) = $0 { cache } else { nil } }.first
  }

  /// Bytes a runtime would hold: of keys and values as `KeyValueCache.byteCount` says, of states 32 bits a number.
  public var byteCount: Int {
    mixers.reduce(0) { sum, memory in
      switch memory {
      case .keysAndValues(let cache): sum + cache.byteCount
      case .state(let state): sum + 4 * state.count
      case .none: sum
      }
    }
  }
}

extension BlockCache {
  /// The next piece of the sequence, a stretch of rows, through the attention at a place.
  mutating func attend(
    _ states: (queries: Matrix, keys: Matrix, values: Matrix), rows: Range<Int>, at place: Int, by attention: PreparedAttention
  ) -> Matrix {
    guard case .keysAndValues(var cache) = mixers[place] else { preconditionFailure("mixer \(place) keeps no keys and values") }
    // Taken out while it changes, so that it is not copied.
    mixers[place] = .none
    defer { mixers[place] = .keysAndValues(cache) }
    return cache.attend(
      queries: states.queries.rows(rows), keys: states.keys.rows(rows), values: states.values.rows(rows), by: attention)
  }

  /// The next piece of the sequence through the recurrence at a place.
  mutating func run(_ inputs: [Matrix], at place: Int, by mixer: any RecurrentMixer) -> Matrix {
    guard case .state(var state) = mixers[place] else { preconditionFailure("mixer \(place) keeps no state") }
    mixers[place] = .none
    defer { mixers[place] = .state(state) }
    return mixer.mix(inputs, afterAny: &state)
  }
}
