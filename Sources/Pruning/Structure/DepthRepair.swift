import Models
import Passes
import Tensors

/// Lets the layers that stay take over what the missing ones did: the linear that writes to the residual stream last before a gap is fitted
/// to the original stream after it.
///
/// With r the residual stream of the pruned model before the layer's output is added, a the writer's input and t the original's stream behind the
/// gap, min ‖r + W'·a − t‖² + λ‖W' − W‖² has the solution W' = W + (Σ (t − r − W·a) aᵀ)(Σ a aᵀ + λI)⁻¹.
struct DepthRepair {
  let walk: ModelWalk
  let selection: DepthSelection
  let options: PruneDepth

  /// New weights by the block's index and the linear's name.
  func run() throws -> [Int: [LinearName: Matrix]] {
    var repairs: [Int: [LinearName: Matrix]] = [:]
    var pruned = try walk.embedded()
    var original = pruned
    var hasGap = false
    /// The last layer that stays: where it writes, and its input, kept until it is known what follows it.
    var pending: Pending?

    func settle(_ target: [Matrix], _ isWanted: Bool) throws {
      guard let layer = pending else { return }
      pending = nil
      guard isWanted else { return pruned = layer.outputs(layer.weight) }
      guard let weight = layer.fitted(to: target, damping: options.damping) else { return pruned = layer.outputs(layer.weight) }
      // As it will be stored, so that later layers are fitted to what it will really do.
      let rounded = Tensor(weight.elements, shape: [weight.rows, weight.columns], dtype: layer.storage).floats()
      let stored = Matrix(rows: weight.rows, columns: weight.columns, elements: rounded)
      repairs[layer.block, default: [:]][layer.name] = stored
      pruned = layer.outputs(stored)
    }

    try walk.visit { index, block in
      let description = block.description
      try block.requireDense()
      let partwise = PartwiseBlock(block, positions: walk.positions)
      let kept = Set(selection.parts(of: index, description))
      for part in partwise.parts.indices {
        if kept.contains(part) {
          // What went before ends here: at the original's stream before this layer.
          try settle(original, options.repair == .all ? hasGap : pending?.isBeforeGap ?? false)
          let inputs = pruned
          let name = description.residualWriters[part]
          pending = Pending(
            block: index, name: name, weight: block[name].weight.dense(), bias: block[name].bias, storage: block[name].storageType,
            residuals: inputs, inputs: try Parallel.map(inputs.count) { try partwise.writerInput(inputs[$0], of: part) })
        } else {
          hasGap = true
          pending?.isBeforeGap = true
        }
        let before = original
        original = try Parallel.map(before.count) { try partwise.forward(before[$0], through: [part]) }
      }
    }
    try settle(original, options.repair == .all ? hasGap : pending?.isBeforeGap ?? false)
    return repairs
  }

  private struct Pending: Sendable {
    var block: Int
    var name: LinearName
    var weight: Matrix
    var bias: [Float]?
    var storage: DType
    /// The residual stream before the layer's output is added, of every sequence.
    var residuals: [Matrix]
    var inputs: [Matrix]
    var isBeforeGap = false

    func outputs(_ weight: Matrix) -> [Matrix] {
      Parallel.map(inputs.count) { sequence in
        var output = inputs[sequence].times(transposed: weight)
        if let bias { output.add(row: bias) }
        output.add(residuals[sequence])
        return output
      }
    }

    func fitted(to targets: [Matrix], damping: Double) -> Matrix? {
      let outputs = outputs(weight)
      var moment = SymmetricMatrix(size: weight.columns)
      var cross = [Double](repeating: 0, count: weight.rows * weight.columns)
      let (rows, columns) = (weight.rows, weight.columns)
      for sequence in inputs.indices {
        moment.addGram(of: inputs[sequence])
        var missing = targets[sequence]
        for index in missing.elements.indices { missing[index / rows, index % rows] -= outputs[sequence].elements[index] }
        // Σ missingᵀ · input: [outputs × inputs].
        let product = missing.transposed().parallelTimes(transposed: inputs[sequence].transposed())
        for index in cross.indices { cross[index] += Double(product.elements[index]) }
      }
      guard let change = moment.solve(cross, rows: rows, shift: moment.shift(damping)) else { return nil }
      return Matrix(rows: rows, columns: columns, elements: zip(weight.elements, change).map { $0 + Float($1) })
    }
  }
}
