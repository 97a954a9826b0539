import Allocation
import Evaluation
import Models
import Passes
import Tensors

/// How every linear of a model is factored under a common budget.
struct AllocatedRanks: Sendable, Codable {
  /// By the blocks' names.
  var units: [String: [FactorUnit]] = [:]
  var remarks: [String] = []

  func units(of group: InputGroup, in block: Block) -> [FactorUnit] {
    (units[block.name] ?? []).filter { unit in unit.linears.allSatisfy(group.linears.contains) }
  }
}

/// The budget leaves too little even for the smallest ranks.
public struct RankBudgetTooSmall: Error, Sendable, CustomStringConvertible {
  let ratio: Double
  let smallest: Int
  let budget: Int
  public var description: String {
    "a ratio of \(ratio) leaves \(budget) numbers for the factors, and the smallest ranks take \(smallest); lower the ratio or rank_multiple"
  }
}

/// Distributes ranks over the whole model.
///
/// What a rank loses is the tail of the whitened spectrum, as a share of the layer's outputs; `kl` multiplies it by the slope that one
/// factorization of the unit alone shows: the divergence of the model's predictions over the tail at the rank that all get by default.
/// Staying dense is an option like any rank. The combination is the exact optimum of the multiple-choice knapsack under the assumption that
/// losses add up.
struct RankAllocation: Analysis {
  let options: LowRank
  /// Ranks tried for a unit, at most.
  private static let candidates = 24

  init(options: LowRank) { self.options = options }

  private struct Measured {
    var block: String
    var linears: [LinearName]
    /// The last one is to stay dense.
    var ranks: [Int?]
    var costs: [Int]
    var losses: [Double]
  }

  func answer(for model: Model, in context: AnalysisContext) async throws -> AllocatedRanks {
    guard !context.calibration.isEmpty else { throw MissingCalibration() }
    if context.isRehearsal { return try rehearsal(of: model) }
    let measured = try measure(model, context)
    let elements = measured.reduce(0) { $0 + $1.costs.last! }
    let budget = Int((1 - options.ratio) * Double(elements))
    let knapsack = Knapsack(measured.map { unit in zip(unit.costs, unit.losses).map { Knapsack.Option(cost: $0, loss: $1) } })
    guard let solution = knapsack.solve(budget: budget) else {
      throw RankBudgetTooSmall(ratio: options.ratio, smallest: measured.reduce(0) { $0 + $1.costs.min()! }, budget: budget)
    }
    var result = AllocatedRanks()
    for (unit, choice) in zip(measured, solution.choices) {
      result.units[unit.block, default: []].append(FactorUnit(linears: unit.linears, rank: unit.ranks[choice]))
    }
    result.remarks = [table(measured, solution)]
    return result
  }

  /// What all get by default, by shape alone.
  private func rehearsal(of model: Model) throws -> AllocatedRanks {
    var result = AllocatedRanks()
    for index in model.description.blocks.indices {
      let block = try model.outline(.decoder(index: index))
      for group in block.groups(options.layers) {
        result.units[block.name, default: []] += options.units(
          of: group.linears, shapes: Self.shapes(of: group, in: block), sharing: options.share != .never)
      }
    }
    return result
  }

  private static func shapes(of group: InputGroup, in part: any ModelPart) -> [LinearName: FactorShape] {
    Dictionary(
      uniqueKeysWithValues: group.linears.map { ($0, FactorShape(rows: part[$0].weight.rows, columns: part[$0].weight.columns)) })
  }

  private func measure(_ model: Model, _ context: AnalysisContext) throws -> [Measured] {
    let (fitted, probes) = context.heldOut(options.probes)
    let stream = try CalibrationStream(
      fitted, description: model.description, memory: context.activationMemory, scratch: context.scratch)
    let walk = ModelWalk(model)
    try stream.embed(try walk.embedding())
    var following = options.allocation == .divergence ? try ProbeWalk(model, probes, memory: context.activationMemory) : nil
    var measured: [Measured] = []
    try walk.visit(progress: context.progress) { index, block in
      for group in block.groups(options.layers) {
        let moment = FactorInputs(try stream.statistic(Hessian.self, of: group, in: block), damping: options.damping, metric: nil).moment
        let weights = Dictionary(uniqueKeysWithValues: group.linears.map { ($0, DoubleMatrix(block[$0].weight.dense())) })
        let choice = FactorChoice(uniform: options, group: group, of: weights, metric: moment)
        for unit in choice.units {
          var entry = Measured(block: block.name, linears: unit.linears, ranks: [nil], costs: [], losses: [0])
          if let rank = unit.rank, let components = choice.components[unit.linears] {
            let slope = try following?.slope(of: unit.linears, rank: rank, components, in: block, at: index) ?? 1
            let share = Double(unit.linears.count) * slope
            let largest = components.shape.largestRank(step: options.rankMultiple)! / options.rankMultiple
            let tried = min(Self.candidates, largest)
            let ranks = (1...tried).map { $0 * largest / tried * options.rankMultiple }
            entry.ranks = ranks + [nil]
            entry.costs = ranks.map { $0 * components.shape.cost }
            entry.losses = ranks.map { share * components.relativeTail(beyond: $0) } + [0]
          }
          entry.costs.append(unit.linears.reduce(0) { $0 + block[$1].weight.rows * block[$1].weight.columns })
          measured.append(entry)
        }
      }
      _ = try stream.finish(block)
      try following?.advance(past: block)
    }
    return measured
  }

  private func table(_ measured: [Measured], _ solution: Knapsack.Solution) -> String {
    var lines: [String] = []
    var name = ""
    for (unit, choice) in zip(measured, solution.choices) {
      if unit.block != name {
        name = unit.block
        lines.append(name + ":")
      }
      let linears = unit.linears.map { $0.rawValue.split(separator: ".").last!.replacing("_proj", with: "") }.joined(separator: ",")
      lines[lines.count - 1] += "  \(linears) \(unit.ranks[choice].map { "rank \($0)" } ?? "dense")"
    }
    return "ranks by \(options.allocation.rawValue):\n" + lines.joined(separator: "\n")
  }
}

extension ProbeWalk {
  /// How much the predictions diverge for each unit of relative error, with one unit of the next block factored alone.
  fileprivate func slope(of linears: [LinearName], rank: Int, _ components: UnitComponents, in block: Block, at index: Int) throws -> Double
  {
    let tail = Double(linears.count) * components.relativeTail(beyond: rank)
    guard tail > 0 else { return 1 }
    var variant = block
    let (outputs, input) = components.factors(rank: rank)
    for (name, output) in zip(linears, outputs) {
      let product = output.times(input)
      variant[name].weight = Matrix(rows: product.rows, columns: product.columns, elements: product.elements.map { Float($0) })
    }
    return try divergences(of: [variant], at: index)[0] / tail
  }
}
