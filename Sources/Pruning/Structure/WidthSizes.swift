import Models
import Passes

/// What `prune_width` makes narrower.
public enum WidthAxis: String, Sendable, Codable, CaseIterable {
  case feedForward = "feed_forward"
  /// Query heads, as many of every key-value head.
  case heads
  /// Key-value heads with all their query heads.
  case keyValueHeads = "key_value_heads"
  /// The residual stream.
  case hidden
}

/// The sizes a block is to have.
struct WidthSizes: Equatable {
  var feedForward: Int
  var heads: Int
  var keyValueHeads: Int
  var hidden: Int

  /// - Parameter block: of attention and one feed-forward network; what it lacks counts as none.
  init(_ block: BlockDescription) {
    feedForward = block.feedForward?.size ?? 0
    heads = block.heads?.queries ?? 0
    keyValueHeads = block.heads?.keyValues ?? 0
    hidden = block.hiddenSize
  }

  /// - Throws: `InvalidOption` for sizes larger than the block's, below one, or that do not fit together.
  init(_ pass: PruneWidth, _ block: BlockDescription) throws(InvalidOption) {
    let whole = WidthSizes(block)
    self = whole
    if pass.hasSizes {
      feedForward = pass.feedForward ?? feedForward
      hidden = pass.hidden ?? hidden
      keyValueHeads = pass.keyValueHeads ?? keyValueHeads
      heads = pass.heads ?? whole.heads / whole.keyValueHeads * keyValueHeads
    } else {
      try shrink(pass.axis, by: pass.ratio, block, multiple: pass.multipleOf)
    }
    for (option, size, limit) in [
      ("feed_forward", feedForward, whole.feedForward), ("heads", heads, whole.heads),
      ("key_value_heads", keyValueHeads, whole.keyValueHeads), ("hidden", hidden, whole.hidden),
    ] where size < 1 || size > limit {
      throw InvalidOption(option, "\(size): the model has \(limit)")
    }
    guard heads % keyValueHeads == 0, heads / keyValueHeads <= whole.heads / whole.keyValueHeads else {
      throw InvalidOption(
        "heads",
        "\(heads) query heads for \(keyValueHeads) key-value heads: every one of these must keep equally many of its \(whole.heads / whole.keyValueHeads)"
      )
    }
  }

  /// The size along one axis at which the block has lost its share of the weights; rounded to the nearest multiple.
  private mutating func shrink(_ axis: WidthAxis, by ratio: Double, _ block: BlockDescription, multiple: Int) throws(InvalidOption) {
    let total = Double(block.weights)
    func cost(_ change: (inout BlockDescription) -> Void) -> Double {
      var smaller = block
      change(&smaller)
      return total - Double(smaller.weights)
    }
    /// Units to remove for one unit's cost.
    func count(_ unit: Double, of size: Int, multiple: Int, _ option: WidthAxis) throws(InvalidOption) -> Int {
      let exact = Double(size) - ratio * total / unit
      let rounded = Int((exact / Double(multiple)).rounded()) * multiple
      let kept = rounded > 0 || multiple == 1 ? rounded : Int(exact.rounded())
      guard kept > 0, kept < size else {
        throw InvalidOption(
          "ratio", "\(ratio) of the weights is \(kept < 1 ? "more" : "less") than \(option.rawValue) can give in steps of \(multiple)")
      }
      return kept
    }
    switch axis {
    case .feedForward:
      feedForward = try count(cost { $0.feedForward?.size -= 1 }, of: feedForward, multiple: multiple, axis)
    case .hidden:
      hidden = try count(cost { $0.hiddenSize -= 1 }, of: hidden, multiple: multiple, axis)
    case .heads:
      let (group, keyValues) = (heads / keyValueHeads, keyValueHeads)
      heads = keyValues * (try count(cost { $0.heads?.queries -= keyValues }, of: group, multiple: 1, axis))
    case .keyValueHeads:
      let group = heads / keyValueHeads
      keyValueHeads = try count(
        cost {
          $0.heads?.keyValues -= 1
          $0.heads?.queries -= group
        }, of: keyValueHeads, multiple: 1, axis)
      heads = group * keyValueHeads
    }
  }
}

extension BlockDescription {
  /// Weights of all linears.
  var weights: Int { linearShapes.values.reduce(0) { $0 + $1.rows * $1.columns } }
}
