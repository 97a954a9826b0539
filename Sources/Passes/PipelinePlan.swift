public import Models
internal import Tensors

extension Pipeline {
  /// What every linear of the model will become, from headers alone.
  ///
  /// - Throws: `PipelineError` holding an `InvalidOption` for a pattern that matches nothing, a shape an option does not fit, or passes
  ///   that cannot follow each other.
  public func plan(for model: Model) throws -> [PlannedLinear] {
    try checkOrder()
    let hasOwnHead = model.description.head != nil
    let model = prepared(model)
    var linears: [PlannedLinear] = []
    for kind in model.kinds {
      let block = try model.outline(kind)
      for name in block.inputGroups.flatMap(\.linears) {
        let weight = block[name].weight
        linears.append(
          PlannedLinear(
            name: block.fullName(of: name), rows: weight.rows, columns: weight.columns, isEnd: block.description == nil,
            scheme: block[name].storageType.rawValue, storedBits: weight.storedBits,
            storageType: block[name].storageType, scaleType: block[name].scaleType, isAdded: kind == .head && !hasOwnHead))
        linears[linears.count - 1].weights = (weight as? QuantizedMatrix)?.scheme
        linears[linears.count - 1].rank = (weight as? FactoredWeight)?.rank
      }
    }
    for (place, pass) in passes.enumerated() {
      let name = type(of: pass).name
      do {
        for selector in pass.selectors { try selector.check(against: linears) }
        try Self.checkFactors(pass, linears)
      } catch { throw PipelineError(pass: name, block: "the model", cause: error, index: place) }
      for index in linears.indices {
        do { linears[index] = try pass.plan(linears[index], in: model.description) } catch {
          throw PipelineError(pass: name, block: linears[index].name, cause: error, index: place)
        }
      }
    }
    return linears
  }

  /// - Throws: `InvalidOption` for a pass that would multiply low-rank factors out without saying so.
  private static func checkFactors(_ pass: any Pass, _ linears: [PlannedLinear]) throws(InvalidOption) {
    guard !pass.acceptsFactors else { return }
    let selectors = pass.selectors
    for linear in linears where linear.rank != nil {
      guard selectors.isEmpty || selectors.contains(where: { $0.contains(linear.name, isEnd: linear.isEnd) }) else { continue }
      throw InvalidOption(
        "layers",
        "\(linear.name) is two low-rank factors by now, which \(type(of: pass).name) does not work on; put it before low_rank, or let that merge them"
      )
    }
  }

  /// The model as the passes see it: with a head of its own where the hidden states change coordinates, because the head then takes up the
  /// final norm and the embedding does not.
  package func prepared(_ model: Model) -> Model { passes.contains { $0.changesHiddenBasis } ? model.untied() : model }

  /// - Throws: `PipelineError` for a pass that would be calibrated in coordinates its block does not have yet, or that is not followed by what
  ///   it needs.
  func checkOrder() throws(PipelineError) {
    for (index, pass) in passes.enumerated() {
      do { try pass.validate(before: Array(passes[(index + 1)...])) } catch {
        throw PipelineError(pass: type(of: pass).name, block: "the recipe", cause: error, index: index)
      }
    }
    guard let changing = passes.lastIndex(where: { $0.changesHiddenBasis }),
      let calibrated = passes[..<changing].first(where: { $0.usesCalibration })
    else { return }
    let (name, earlier) = (type(of: passes[changing]).name, type(of: calibrated).name)
    throw PipelineError(
      pass: name, block: "the recipe",
      cause: InvalidOption(
        "passes", "\(earlier) would see hidden states in coordinates that \(name) has not given its block yet; put \(name) before it"),
      index: changing)
  }
}
