import Evaluation
import Models
import Passes
import Quantization
import Tensors

/// Which format every group of layers gets, and what that is expected to cost.
struct Allocation: Sendable, Codable {
  /// Index of the candidate, by a linear's name in the whole model.
  var choices: [String: Int]
  /// By the same name: the linear's share of what its unit is expected to cost, in nats where divergence was measured, otherwise a share of the
  /// layers' outputs.
  var losses: [String: Double]
  /// What the report calls these losses.
  var lossName: String
  var remarks: [String]
}

/// The budget cannot be met.
public struct BudgetTooSmall: Error, Sendable, CustomStringConvertible {
  let target: SizeTarget
  let smallest: Int
  let budget: Int

  public var description: String {
    "the budget of \(target) leaves \(budget / 8) bytes for the layers, and the cheapest candidates take \(smallest / 8); raise the target or add a cheaper candidate"
  }
}

/// Measures every candidate format on every group of layers and solves for the best combination.
struct AllocationAnalysis: Analysis {
  let options: Allocate

  /// Every candidate on every unit goes through what follows its block, on average half of the model, and its head; besides, moments and solves.
  func operations(on description: ModelDescription, tokens: Int, longest: Int) -> Double {
    let through = description.operationsPerToken
    let tried = Double(options.candidates.count * description.blocks.reduce(0) { $0 + $1.inputGroups.count })
    let probed = options.sensitivity == .divergence ? min(Double(tokens), Double(options.probes) * Double(longest)) : 0
    return tried * probed * (through.blocks / 2 + through.head) + Double(tokens) * 2 * through.blocks
  }

  func answer(for model: Model, in context: AnalysisContext) async throws -> Allocation {
    guard !context.calibration.isEmpty else { throw MissingCalibration() }
    if context.isRehearsal { return try rehearsal(of: model) }
    let (units, fixedBits, weights) = try await measure(model, context)
    let budget =
      switch options.target {
      case .bitsPerWeight(let bits): Int(bits * Double(weights))
      case .bytes(let count): count * 8 - fixedBits
      }
    let knapsack = Knapsack(units.map { $0.options.map { Knapsack.Option(cost: $0.bits, loss: $0.loss) } })
    guard let solution = knapsack.solve(budget: budget) else {
      throw BudgetTooSmall(
        target: options.target, smallest: units.reduce(0) { $0 + $1.options.map(\.bits).min()! }, budget: max(0, budget))
    }
    var allocation = Allocation(
      choices: [:], losses: [:], lossName: options.sensitivity == .divergence ? "predicted_divergence" : "predicted_layer_loss", remarks: []
    )
    for (unit, choice) in zip(units, solution.choices) {
      for name in unit.fullNames {
        allocation.choices[name] = choice
        // Shared evenly, so that the layers' figures add up to the unit's.
        allocation.losses[name] = unit.options[choice].loss / Double(unit.fullNames.count)
      }
    }
    allocation.remarks = [table(units, solution)]
    var predicted = solution.loss
    if options.sensitivity == .divergence {
      predicted = try divergence(of: allocation, model, context)
      let share = solution.loss > 0 ? predicted / solution.loss : 1
      allocation.losses = allocation.losses.mapValues { $0 * share }
    }
    let spent = Double(solution.cost) / Double(max(1, weights))
    var summary = "allocated \(rounded(spent)) bits per weight for a target of \(options.target)"
    if options.sensitivity == .divergence { summary += "; predicted KL divergence \(rounded(predicted, places: 5))" }
    allocation.remarks.append(summary)
    return allocation
  }

  /// The first candidate for all.
  private func rehearsal(of model: Model) throws -> Allocation {
    var allocation = Allocation(choices: [:], losses: [:], lossName: "", remarks: [])
    for index in model.description.blocks.indices {
      let block = try model.outline(.decoder(index: index))
      for name in block.linears.keys { allocation.choices[block.fullName(of: name)] = 0 }
    }
    return allocation
  }

  // MARK: Measuring

  private struct MeasuredUnit {
    var block: String
    var linears: [LinearName]
    var fullNames: [String]
    /// Columns of its linears.
    var widths: Set<Int> = []
    var options: [(bits: Int, loss: Double)]
    /// What its groups in earlier blocks lose.
    var settled: [Double]
    /// What the losses of its groups in the current block have been weighed by so far.
    var weight = 0.0

    /// What comes belongs to the next block that has groups of the unit; the losses of blocks are added.
    mutating func enter() { (settled, weight) = (options.map(\.loss), 0) }

    /// Adds another group of the same unit. An expert's loss counts by the tokens it saw.
    mutating func add(_ group: InputGroup, of block: Block, weight added: Double, _ found: [(bits: Int, loss: Double)]) {
      linears += group.linears
      fullNames += group.linears.map { block.fullName(of: $0) }
      widths.formUnion(group.linears.map { block[$0].weight.columns })
      for index in options.indices {
        options[index].bits += found[index].bits
        let mean = options[index].loss - settled[index]
        if weight + added > 0 { options[index].loss = settled[index] + (mean * weight + found[index].loss * added) / (weight + added) }
      }
      weight += added
    }
  }

  private func measure(_ model: Model, _ context: AnalysisContext) async throws -> (units: [MeasuredUnit], fixedBits: Int, weights: Int) {
    let (fitted, probes) = context.heldOut(options.probes)
    let stream = try CalibrationStream(
      fitted, description: model.description, memory: context.activationMemory, scratch: context.scratch)
    let walk = ModelWalk(model)
    try stream.embed(try walk.embedding())
    let measuresDivergence = options.sensitivity == .divergence
    var following = measuresDivergence ? try ProbeWalk(model, probes, memory: context.activationMemory) : nil

    var units: [MeasuredUnit] = []
    /// Index of the unit that holds the routed experts of all blocks.
    var experts: Int?
    var (fixedBits, weights) = (model.carriedBytes * 8, 0)
    for place in [PartPlace.embedding, .head] {
      let end = try model.outline(place)
      fixedBits += end.linears.values.reduce(0) { $0 + $1.weight.storedBits } + Self.vectorBits(of: end)
    }
    try walk.visit(progress: context.progress) { index, block in
      let groups = block.groups(options.layers)
      let chosen = Set(groups.flatMap(\.linears))
      fixedBits += Self.vectorBits(of: block)
      fixedBits += block.linears.filter { !chosen.contains($0.key) }.reduce(0) { $0 + $1.value.weight.storedBits }
      var variants: [Block] = []
      let first = units.count
      // The units that the block has groups of.
      var present: [Int] = []
      for group in groups {
        let hessian = try stream.statistic(Hessian.self, of: group, in: block)
        weights += group.linears.reduce(0) { $0 + block[$1].weight.rows * block[$1].weight.columns }
        let isExpert = block.description.routedExperts.contains(group.linears[0])
        let fused = Set(block.description.fused(with: group.linears[0]))
        let known = isExpert ? experts : units.indices[first...].first { !fused.isDisjoint(with: units[$0].linears) }
        let place = known ?? units.count
        if place == units.count {
          let none = options.candidates.map { _ in (bits: 0, loss: 0.0) }
          units.append(
            MeasuredUnit(
              block: isExpert ? "all blocks" : block.name, linears: [], fullNames: [], options: none, settled: none.map(\.loss)))
          if isExpert { experts = place }
        }
        if !present.contains(place) {
          present.append(place)
          units[place].enter()
          if measuresDivergence { variants += options.candidates.map { _ in block } }
        }
        var found: [(bits: Int, loss: Double)] = []
        for (index, candidate) in options.candidates.enumerated() {
          let at = present.firstIndex(of: place)! * options.candidates.count + index
          let (variant, bits, loss) = try quantize(group, of: measuresDivergence ? variants[at] : block, as: candidate, hessian)
          found.append((bits, loss))
          if measuresDivergence { variants[at] = variant }
        }
        units[place].add(group, of: block, weight: Double(hessian.tokens * group.linears.count), found)
      }
      _ = try stream.finish(block)
      if let following {
        let losses = try following.divergences(of: variants, at: index)
        for (at, loss) in losses.enumerated() {
          let (unit, candidate) = (present[at / options.candidates.count], at % options.candidates.count)
          units[unit].options[candidate].loss = units[unit].settled[candidate] + loss
        }
      }
      try following?.advance(past: block)
    }
    // In the table the experts of all blocks come last.
    if let experts { units.append(units.remove(at: experts)) }
    return (units, fixedBits, weights)
  }

  /// What the whole combination does to the predictions: the sweep to come, rehearsed on the fitted sequences and scored on the probes. The
  /// losses of single groups rank combinations; how they add up only the whole can tell.
  private func divergence(of allocation: Allocation, _ model: Model, _ context: AnalysisContext) throws -> Double {
    let (fitted, probes) = context.heldOut(options.probes)
    let stream = try CalibrationStream(
      fitted, description: model.description, memory: context.activationMemory, scratch: context.scratch, comparing: options.comparesInputs)
    let walk = ModelWalk(model, carrying: probes)
    try stream.embed(try walk.embedding())
    var reference = try walk.embedded()
    var states = reference
    try walk.visit { _, original in
      var block = original
      for group in block.groups(options.layers) {
        let drift = options.comparesInputs ? try stream.drift(of: group, in: block, reference: original) : nil
        let hessian = try drift?.hessian ?? stream.statistic(Hessian.self, of: group, in: block)
        let choice = allocation.choices[block.fullName(of: group.linears[0])]!
        block = try quantize(group, of: block, as: options.candidates[choice], hessian, drift: drift).variant
      }
      _ = try stream.finish(block, reference: original)
      reference = try walk.carry(reference, through: original)
      states = try walk.carry(states, through: block)
    }
    return try HeadDivergence(model).mean(of: states, from: reference)
  }

  /// Biases and norms stay what they are.
  private static func vectorBits(of part: any ModelPart) -> Int {
    let (norms, biases) = (part.norms, part.linears.values.reduce(0) { $0 + ($1.bias?.count ?? 0) * $1.storageType.bitCount })
    let count = norms.weights.values.reduce(0) { $0 + $1.count } + norms.biases.values.reduce(0) { $0 + $1.count }
    return biases + count * norms.storageType.bitCount
  }

  /// The block with one group quantized, the bits that takes, and the layers' loss as a share of their outputs.
  ///
  /// - Parameter drift: what is to be made up for; in a model of which nothing else is quantized there is none.
  private func quantize(
    _ group: InputGroup, of block: Block, as candidate: Allocate.Candidate, _ hessian: Hessian, drift: InputDrift? = nil
  ) throws -> (variant: Block, bits: Int, loss: Double) {
    let pass = options.pass(for: candidate)
    var (variant, bits, loss) = (block, 0, 0.0)
    let global = pass.globalScale(of: group, in: block)
    for name in group.linears {
      let scheme = try pass.storedScheme(of: name, in: block)
      var weight = block[name].weight.dense()
      let quantized: QuantizedMatrix
      let solver = GPTQSolver.prepare(
        hessian, groupSize: scheme.groupSize(columns: weight.columns), order: pass.order, damping: pass.damping,
        refining: pass.refine > 0)
      if case .success(let solver) = solver, options.quantizer == .gptq, hessian.tokens > 0 {
        if let drift { weight = solver.corrected(weight, for: drift, by: pass.driftCorrection) }
        let result = solver.quantize(
          weight, scheme: scheme, scales: pass.scales, refit: pass.refit, refine: pass.refine, globalScale: global)
        quantized = result.quantized
        loss += result.relativeLoss
      } else {
        let isWeighted = hessian.tokens > 0 && options.quantizer == .rtn
        let importance = isWeighted ? hessian.matrix.diagonal.map { Float($0 / Double(hessian.tokens)) } : nil
        quantized = RoundToNearest.quantize(
          weight, scheme: scheme, scales: pass.scales, importance: importance, globalScale: global)
        if case .success(let solver) = solver { loss += solver.relativeLoss(of: quantized, against: weight) }
      }
      bits += quantized.storedBits
      variant[name].weight = quantized
    }
    return (variant, bits, loss / Double(group.linears.count))
  }

  // MARK: Telling

  /// Blocks in rows, groups in columns, the chosen format and its loss in the cells.
  private func table(_ units: [MeasuredUnit], _ solution: Knapsack.Solution) -> String {
    // Experts read inputs of two widths, for which `auto` may choose two sizes.
    func label(_ choice: Int, of unit: MeasuredUnit) -> String {
      let pass = options.pass(for: options.candidates[choice])
      return Set(unit.widths.map { "\(pass.scheme(of: "", isEnd: false, columns: $0))" }).sorted().joined(separator: " or ")
    }
    var lines: [String] = []
    var (row, name) = ("", "")
    for (unit, choice) in zip(units, solution.choices) {
      if unit.block != name {
        if !row.isEmpty { lines.append(row) }
        (row, name) = (unit.block + ":", unit.block)
      }
      var names: [String] = []
      for linear in unit.linears {
        let name = (linear.rawValue.split(separator: ".").last.map(String.init) ?? linear.rawValue).replacing("_proj", with: "")
        if !names.contains(name) { names.append(name) }
      }
      let count = Set(unit.linears).count
      let group = names.joined(separator: ",") + (count > names.count ? " of \(count / names.count) experts" : "")
      row += "  \(group) \(label(choice, of: unit)) (\(rounded(unit.options[choice].loss, places: 5)))"
    }
    lines.append(row)
    return "allocation, with what each choice costs:\n" + lines.joined(separator: "\n")
  }

  private func rounded(_ value: Double, places: Int = 3) -> String {
    var factor = 1.0
    for _ in 0..<places { factor *= 10 }
    return "\((value * factor).rounded() / factor)"
  }
}
