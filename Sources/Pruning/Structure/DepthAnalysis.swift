import Evaluation
import Models
import Passes
import Tensors

/// Which blocks and layers go, and what the layers before a gap become.
struct DepthSelection: Sendable, Codable {
  /// Blocks that go as a whole.
  var removed: Set<Int>
  /// Blocks that stay, by their old indices.
  var kept: [Int]
  /// Layers that go from blocks that stay.
  var missing: [Int: [Int]]
  /// New weights of the linears that write to the residual stream, by the block's old index.
  var repairs: [Int: [LinearName: Matrix]] = [:]
  /// 1 − cos across every block, where that was asked for.
  var influences: [Int: Double] = [:]
  var remarks: [String] = []

  init(_ units: Set<DepthUnit>, of model: ModelDescription) {
    let missing = Dictionary(grouping: units, by: \.block).mapValues { $0.flatMap(\.parts).sorted() }
    let whole = Set(missing.filter { $0.value.count == model.blocks[$0.key].subBlocks.count }.keys)
    removed = whole
    kept = model.blocks.indices.filter { !whole.contains($0) }
    self.missing = missing.filter { !whole.contains($0.key) }
  }

  /// The layers of a block that are computed.
  func parts(of index: Int, _ block: BlockDescription) -> [Int] {
    removed.contains(index) ? [] : block.subBlocks.indices.filter { !(missing[index] ?? []).contains($0) }
  }
}

/// Chooses what goes by the criterion and repairs what stays.
struct DepthAnalysis: Analysis {
  let options: PruneDepth

  func heldStates(of description: ModelDescription) -> Int {
    [.perplexity, .divergence].contains(options.criterion) ? description.blocks.count + 4 : 3
  }

  /// The search tries every unit that is left behind every removal, from its own block on: half of the model on average.
  func operations(on description: ModelDescription, tokens: Int, longest: Int) -> Double {
    let through = description.operationsPerToken
    guard [.perplexity, .divergence].contains(options.criterion) else { return Double(tokens) * through.blocks }
    let units = Double(description.blocks.count) * (options.units == .blocks ? 1 : 2)
    let removals = options.count.map { Double($0) } ?? (options.ratio * units).rounded()
    let probed = min(Double(tokens), Double(options.probes) * Double(longest))
    return probed * (removals + 1) * units * (through.blocks / 2 + through.head)
  }

  func answer(for model: Model, in context: AnalysisContext) async throws -> DepthSelection {
    let units = try DepthUnits(options, model.description)
    if context.isRehearsal { return DepthSelection(units.lowest { -Double($0.block) }, of: model.description) }
    var influences: [DepthUnit: Double] = [:]
    let chosen: Set<DepthUnit>
    switch options.criterion {
    case .random:
      var random = KeyedRandomness(seed: context.seed, key: PruneDepth.name)
      let scores = Dictionary(uniqueKeysWithValues: units.candidates.map { ($0, Double.random(in: 0..<1, using: &random)) })
      chosen = units.lowest { scores[$0] ?? 1 }
    case .magnitude:
      let scores = try Self.magnitudes(units, in: model)
      chosen = units.lowest { scores[$0] ?? .infinity }
    case .influence:
      influences = try Self.influences(units, ModelWalk(model, context), context)
      chosen = units.lowest { influences[$0] ?? .infinity }
    case .perplexity, .divergence:
      // Every depth keeps its hidden states, and a candidate has its own.
      let probes = try ModelWalk(
        model, context, copies: 2 * (model.description.blocks.count + 1), on: context.heldOut(options.probes).probes)
      chosen = try DepthSearch(probes, criterion: options.criterion).run(units, progress: context.progress)
    }
    var selection = DepthSelection(chosen, of: model.description)
    for (unit, influence) in influences where unit.parts.count > 1 { selection.influences[unit.block] = influence }
    if options.repair != .none {
      let widest = model.description.blocks.flatMap { $0.linearShapes.values.map(\.columns) }.max() ?? 0
      let walk = try ModelWalk(model, context, copies: 6, width: widest)
      selection.repairs = try DepthRepair(walk: walk, selection: selection, options: options).run()
    }
    selection.remarks = remarks(selection, units.share(of: chosen), model)
    return selection
  }

  /// ‖W‖² of all linears of every unit.
  private static func magnitudes(_ units: DepthUnits, in model: Model) throws -> [DepthUnit: Double] {
    let candidates = Dictionary(grouping: units.candidates, by: \.block)
    var magnitudes: [DepthUnit: Double] = [:]
    try ModelWalk(model).visit(where: { candidates[$0] != nil }) { index, block in
      for unit in candidates[index] ?? [] {
        let names = unit.parts.flatMap { block.inputGroups[block.description.subBlocks[$0]].flatMap(\.linears) }
        magnitudes[unit] = names.reduce(0) { $0 + block[$1].weight.dense().rowSquares.reduce(0, +) }
      }
    }
    return magnitudes
  }

  /// 1 − cos of the residual stream before and after every unit.
  private static func influences(
    _ units: DepthUnits, _ walk: ModelWalk, _ context: AnalysisContext
  ) throws -> [DepthUnit: Double] {
    var influences: [DepthUnit: Double] = [:]
    var states = try walk.embedded()
    try walk.visit(progress: context.progress, expanding: { PartwiseBlock($0, positions: walk.positions) }) { index, block in
      var boundaries = [states]
      for part in block.parts.indices {
        let inputs = boundaries[part]
        boundaries.append(try Parallel.map(inputs.count) { try block.forward(inputs[$0], through: [part]) })
      }
      for unit in units.candidates where unit.block == index {
        let (before, after) = (boundaries[unit.parts[0]], boundaries[unit.parts[unit.parts.count - 1] + 1])
        let sums = Parallel.map(before.count) { before[$0].cosines(with: after[$0]).reduce(0, +) }
        influences[unit] = 1 - sums.reduce(0, +) / Double(max(1, before.reduce(0) { $0 + $1.rows }))
      }
      states = boundaries[boundaries.count - 1]
    }
    return influences
  }

  private func remarks(_ selection: DepthSelection, _ share: Double, _ model: Model) -> [String] {
    var remarks: [String] = []
    let percent = (share * 10_000).rounded() / 100
    func place(_ index: Int) -> String { String(model.description.blocks[index].prefix.dropLast()) }
    if !selection.removed.isEmpty {
      remarks.append(
        "\(selection.removed.sorted().map(place).joined(separator: ", ")) left out; \(selection.kept.count) layers remain, numbered anew")
    }
    let missing = selection.missing.sorted { $0.key < $1.key }.flatMap { index, parts in
      parts.map { model.description.blocks[index].prefix + model.description.blocks[index].residualWriters[$0].rawValue }
    }
    if !missing.isEmpty {
      remarks.append(
        "\(missing.joined(separator: ", ")) zero: what leads to them has no effect any more, but stays in the file, byte for byte")
    }
    remarks.append("prune_depth took \(percent) % of the blocks' weights out of effect, \(options.ratio * 100) % were asked for")
    return remarks
  }
}
