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
    for place in model.places {
      let part = try model.outline(place)
      for name in part.inputGroups.flatMap(\.linears) {
        let weight = part[name].weight
        linears.append(
          PlannedLinear(
            name: part.fullName(of: name), rows: weight.rows, columns: weight.columns, role: Self.role(of: name, in: part),
            scheme: Self.words(for: weight) ?? part[name].storageType.rawValue, storedBits: weight.storedBits,
            storageType: part[name].storageType, scaleType: part[name].scaleType, isAdded: place == .head && !hasOwnHead))
        linears[linears.count - 1].weights = (weight as? QuantizedMatrix)?.scheme
        linears[linears.count - 1].rank = (weight as? FactoredWeight)?.rank
        linears[linears.count - 1].factorNumbers = ((weight as? FactoredWeight)?.input as? QuantizedMatrix)?.scheme
        linears[linears.count - 1].blocks = (weight as? BlockQuantizedMatrix)?.type
        linears[linears.count - 1].keepsForm = weight is BlockQuantizedMatrix || weight is ForeignWeight
      }
    }
    let descriptions = try reshapings(of: model.description)
    for (place, pass) in passes.enumerated() {
      let name = type(of: pass).name
      do {
        for selector in pass.selectors { try selector.check(against: linears, carried: model.carriedNames) }
        linears = try Self.fit(linears, to: descriptions[place + 1], before: descriptions[place])
        try Self.checkFactors(pass, linears)
      } catch { throw PipelineError(pass: name, block: "the model", cause: error, index: place) }
      for index in linears.indices {
        var planned: PlannedLinear
        do { planned = try pass.plan(linears[index], in: descriptions[place + 1]) } catch {
          throw PipelineError(pass: name, block: linears[index].name, cause: error, index: place)
        }
        // What changes at all no longer lies in the form it came in.
        if planned != linears[index], planned.keepsForm { (planned.keepsForm, planned.blocks) = (false, nil) }
        if place > 0, linears[index].weights != nil, planned.weights != linears[index].weights { planned.isRoundedAgain = true }
        linears[index] = planned
      }
    }
    return linears
  }

  /// What a weight is stored as that is compressed already.
  private static func words(for weight: any Weight) -> String? {
    switch weight {
    case let weight as QuantizedMatrix: "\(weight.scheme)"
    case let weight as BlockQuantizedMatrix: weight.type.name
    case let weight as ForeignWeight: weight.form
    case let weight as FactoredWeight: "rank \(weight.rank)"
    default: nil
    }
  }

  private static func role(of name: LinearName, in part: any ModelPart) -> PlannedLinear.Role {
    guard let block = part as? Block else { return part is Embedding ? .embedding : .head }
    return !block.isNamedOnly(name) ? .layer : block.description.sensitive.contains(name) ? .sensitive : .router
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
  package func prepared(_ model: Model) -> Model { passes.contains { $0.untiesHead } ? model.untied() : model }

  /// The model's description as every pass finds it, and at the end as the last one leaves it.
  ///
  /// - Throws: `PipelineError` for sizes a pass cannot make, or passes of which one would be misled about sizes by another.
  package func reshapings(of description: ModelDescription) throws(PipelineError) -> [ModelDescription] {
    var descriptions = [description]
    var resizing: (name: String, index: Int)?
    for (index, pass) in passes.enumerated() {
      let (name, before) = (type(of: pass).name, descriptions[index])
      func fail(_ error: InvalidOption) -> PipelineError { PipelineError(pass: name, block: "the model", cause: error, index: index) }
      if let resizing, !pass.analyses.isEmpty {
        throw fail(
          InvalidOption(
            "passes",
            "\(name) looks at the whole model before the sweep, when \(resizing.name) has not made it smaller yet; "
              + "put \(name) before it, or run the two one after the other"))
      }
      do { descriptions.append(try pass.reshape(before)) } catch { throw fail(error) }
      if pass.removesBlocks {
        if let earlier = passes[..<index].first(where: { !$0.removesBlocks }) {
          throw fail(InvalidOption("passes", "\(name) decides before any other pass has run; put it before \(type(of: earlier).name)"))
        }
      } else if descriptions[index + 1] != before {
        resizing = (name, index)
      }
    }
    return descriptions
  }

  /// The linears that are left, with the shapes they will have.
  private static func fit(
    _ linears: [PlannedLinear], to after: ModelDescription, before: ModelDescription
  ) throws(InvalidOption) -> [PlannedLinear] {
    guard after != before else { return linears }
    var shapes: [String: (rows: Int, columns: Int)] = [after.embedding: (after.vocabularySize, after.hiddenSize)]
    if let head = after.head { shapes[head] = (after.vocabularySize, after.hiddenSize) }
    for block in after.blocks {
      for (name, shape) in block.linearShapes { shapes[block.prefix + name.rawValue] = (shape.rows, shape.columns) }
    }
    var fitted: [PlannedLinear] = []
    for var linear in linears {
      guard let shape = shapes[linear.name] else { continue }
      if shape != (linear.rows, linear.columns) {
        let bits = linear.storageType.bitCount
        guard linear.storedBits == linear.rows * linear.columns * bits else {
          throw InvalidOption(
            "passes", "\(linear.name) is stored as \(linear.scheme); what is compressed cannot be made smaller, put this before it")
        }
        (linear.rows, linear.columns) = shape
        (linear.blocks, linear.keepsForm) = (nil, false)
        linear.storedBits = shape.rows * shape.columns * bits
        linear.isRewritten = true
      }
      fitted.append(linear)
    }
    return fitted
  }

  /// - Throws: `PipelineError` for a pass that would be calibrated in coordinates its block does not have yet, or that is not followed by what
  ///   it needs.
  func checkOrder() throws(PipelineError) {
    for (index, pass) in passes.enumerated() {
      do { try pass.validate(before: Array(passes[(index + 1)...]) + following) } catch {
        throw PipelineError(pass: type(of: pass).name, block: "the recipe", cause: error, index: index)
      }
    }
    if let turning = passes.firstIndex(where: { $0.changesHiddenBasis }),
      let index = passes.indices.first(where: { $0 > turning && (passes[$0] as? any ModelPass)?.comparesStates == true })
    {
      let (name, earlier) = (type(of: passes[index]).name, type(of: passes[turning]).name)
      throw PipelineError(
        pass: name, block: "the recipe",
        cause: InvalidOption(
          "state_share",
          "hidden states cannot be held against the teacher's, because \(earlier) has given them other coordinates; leave it out"
        ), index: index)
    }
    guard let changing = passes.lastIndex(where: { $0.changesHiddenBasis }),
      let calibrated = passes[..<changing].first(where: { $0.usesCalibration && !$0.removesBlocks })
    else { return }
    let (name, earlier) = (type(of: passes[changing]).name, type(of: calibrated).name)
    throw PipelineError(
      pass: name, block: "the recipe",
      cause: InvalidOption(
        "passes", "\(earlier) would see hidden states in coordinates that \(name) has not given its block yet; put \(name) before it"),
      index: changing)
  }
}
