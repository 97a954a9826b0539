import Models
import Passes

/// One block, or one of the two layers of a block.
struct DepthUnit: Hashable, Sendable, Comparable {
  var block: Int
  /// Indices into `BlockDescription.subBlocks`.
  var parts: [Int]
  /// Weights of its linears.
  var weights: Int

  static func < (a: DepthUnit, b: DepthUnit) -> Bool { (a.block, a.parts[0]) < (b.block, b.parts[0]) }
}

/// What may be left out of a model, and how much is to be.
struct DepthUnits {
  let candidates: [DepthUnit]
  private let options: PruneDepth
  private let total: Int
  /// How many are to go, where that is settled.
  private let count: Int?

  /// - Throws: `InvalidOption` where nothing may be left out, or nothing would be left.
  init(_ options: PruneDepth, _ model: ModelDescription) throws(InvalidOption) {
    self.options = options
    total = model.blocks.reduce(0) { $0 + $1.weights }
    let touched = model.blocks.indices.dropFirst(options.keepFirst).dropLast(options.keepLast)
    candidates = touched.flatMap { index in
      let block = model.blocks[index]
      let parts = block.subBlocks.indices.map { part in
        DepthUnit(block: index, parts: [part], weights: block.weights(of: part))
      }
      guard options.units == .blocks else { return parts }
      return [DepthUnit(block: index, parts: Array(parts.indices), weights: block.weights)]
    }
    count = options.units == .blocks ? options.count ?? Self.nearest(options.ratio, of: model) : options.count
    guard !candidates.isEmpty else {
      throw InvalidOption(
        "keep_first", "\(options.keepFirst) and keep_last \(options.keepLast) leave none of \(model.blocks.count) blocks to choose from")
    }
    if options.units == .layers || options.repair != .none {
      for block in model.blocks where block.norms.areOnSums {
        throw InvalidOption(
          options.units == .layers ? "units" : "repair",
          "\(block.prefix.dropLast()) has norms on the residual stream itself, which stay where a layer goes; only whole blocks, unrepaired"
        )
      }
      for block in model.blocks where block.streamScale != nil {
        throw InvalidOption(
          options.units == .layers ? "units" : "repair",
          "\(block.prefix.dropLast()) multiplies the residual stream by a number of its own, which stays where a layer goes; only whole "
            + "blocks, unrepaired")
      }
      for block in model.blocks where block.isParallel || block.subBlocks.count != block.residualWriters.count {
        throw InvalidOption(
          "units", "\(block.prefix.dropLast()) does not add one output per layer to the residual stream, one after the other")
      }
    }
    let limit = options.units == .blocks ? model.blocks.count : 2 * model.blocks.count
    if let count, count >= limit || count > candidates.count {
      throw InvalidOption("count", "\(count): there are \(limit) \(options.units.rawValue), \(candidates.count) of them to choose from")
    }
  }

  /// The number of blocks that comes nearest to a share of them, and at least one.
  static func nearest(_ ratio: Double, of model: ModelDescription) -> Int { max(1, Int((ratio * Double(model.blocks.count)).rounded())) }

  private var slack: Double { Double(candidates.map(\.weights).min() ?? 0) / 2 }

  /// What may go next; empty when enough has gone.
  func next(after removed: Set<DepthUnit>) -> [DepthUnit] {
    if let count { return removed.count < count ? candidates.filter { !removed.contains($0) } : [] }
    let gone = Double(removed.reduce(0) { $0 + $1.weights })
    let target = options.ratio * Double(total)
    if removed.isEmpty {
      let light = candidates.filter { Double($0.weights) <= target + slack }
      return light.isEmpty ? candidates : light
    }
    guard gone + slack < target else { return [] }
    return candidates.filter { !removed.contains($0) && gone + Double($0.weights) <= target + slack }
  }

  /// The lowest by a score that does not change as units go.
  func lowest(_ score: (DepthUnit) -> Double) -> Set<DepthUnit> {
    var removed: Set<DepthUnit> = []
    while let unit = next(after: removed).min(by: { (score($0), $0) < (score($1), $1) }) { removed.insert(unit) }
    return removed
  }

  func share(of removed: Set<DepthUnit>) -> Double { Double(removed.reduce(0) { $0 + $1.weights }) / Double(max(1, total)) }
}

extension BlockDescription {
  /// Weights of the linears of a layer.
  func weights(of part: Int) -> Int {
    let shapes = linearShapes
    return inputGroups[subBlocks[part]].flatMap(\.linears).reduce(0) { $0 + (shapes[$1].map { $0.rows * $0.columns } ?? 0) }
  }
}
