public import Models
internal import Tensors

extension Pipeline {
  /// What every linear of the model will become, from headers alone.
  ///
  /// - Throws: `PipelineError` holding an `InvalidOption` for a pattern that matches nothing, or a shape an option does not fit.
  public func plan(for model: Model) throws -> [PlannedLinear] {
    var linears: [PlannedLinear] = []
    for kind in model.kinds {
      let block = try model.outline(kind)
      for name in block.inputGroups.flatMap(\.linears) {
        let weight = block[name].weight
        linears.append(
          PlannedLinear(
            name: block.fullName(of: name), rows: weight.rows, columns: weight.columns, isEnd: block.description == nil,
            scheme: block[name].storageType.rawValue, storedBits: weight.storedBits,
            storageType: block[name].storageType))
      }
    }
    for pass in passes {
      let name = type(of: pass).name
      do {
        for selector in pass.selectors { try selector.check(against: linears) }
      } catch { throw PipelineError(pass: name, block: "the model", cause: error) }
      for index in linears.indices {
        do { linears[index] = try pass.plan(linears[index], in: model.description) } catch {
          throw PipelineError(pass: name, block: linears[index].name, cause: error)
        }
      }
    }
    return linears
  }
}
