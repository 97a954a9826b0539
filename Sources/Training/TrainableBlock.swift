package import Models
internal import Passes
package import Tensors

/// A block some of whose parameters move.
package struct TrainableBlock: Sendable {
  /// The block as it came; what does not move is read from here.
  package let original: Block
  package let moving: MovingParameters
  package private(set) var latents: [LinearName: LatentWeight] = [:]
  /// Where latents may go, around their first values.
  private var starts: [LinearName: [Float]] = [:]
  /// Selected linears whose weights cannot move though such things do, and why.
  package private(set) var unmoved: [LinearName: String] = [:]
  private var weights: [LinearName: Matrix] = [:]
  /// Low-rank factors; linears that read the latents of one input factor move together.
  private var factors: [LinearName: TrainableFactors] = [:]
  private var adapters: [LinearName: Adapter] = [:]
  /// Of pruned weights: what is zero is pulled by nothing and stays zero.
  private var zeros: [LinearName: SparsityMask] = [:]
  private var biases: [LinearName: [Float]] = [:]
  private var norms: [String: [Float]] = [:]
  private var normBiases: [String: [Float]] = [:]

  /// - Parameters:
  ///   - wanted: what latents lie towards, by linear.
  ///   - isBeforeRounding: whether that is the block as it was before it was quantized, so that its zeros are those of the block.
  ///   - reach: how far from their codes latents may begin, in steps.
  package init(_ block: Block, moving: MovingParameters, towards wanted: Block? = nil, isBeforeRounding: Bool = true, reach: Float = 0) {
    original = block
    self.moving = moving
    func isSelected(_ name: LinearName) -> Bool {
      moving.layers?.contains(block.fullName(of: name), isEnd: block.isNamedOnly(name)) ?? true
    }
    let factorOwners = Set(
      block.linears.compactMap { name, linear in
        (linear.weight as? FactoredWeight).flatMap { isSelected(name) ? $0.sharesInputOf ?? name : nil }
      })
    for (name, linear) in block.linears {
      if let factored = linear.weight as? FactoredWeight, factorOwners.contains(factored.sharesInputOf ?? name) {
        if moving.weights { factors[name] = TrainableFactors(factored) }
        if moving.weights || moving.codes, factored.isQuantized { unmoved[name] = "its low-rank factors are stored as codes" }
      }
      guard isSelected(name) else { continue }
      if let quantized = linear.weight as? QuantizedMatrix, moving.codes || moving.scales || moving.zeroPoints {
        let original = moving.codes && reach > 0 ? wanted?.linears[name]?.weight.dense() : nil
        guard let latent = LatentWeight(quantized, original: original, reach: reach) else {
          unmoved[name] = "its groups are not runs of columns"
          continue
        }
        latents[name] = latent
        if moving.codes { zeros[name] = Self.zeros(of: quantized, isBeforeRounding ? wanted?.linears[name]?.weight : nil) }
        if moving.reach != nil { starts[name] = latent.latents }
      } else if moving.weights, linear.weight.isNumbers {
        let weight = linear.weight.dense()
        weights[name] = weight
        if weight.zeroShare >= Self.pruned { zeros[name] = SparsityMask(zerosOf: weight) }
      } else if let rank = moving.adapterRank, linear.weight.isNumbers {
        let (rows, columns) = (linear.weight.rows, linear.weight.columns)
        adapters[name] = Adapter(
          rank: min(rank, rows, columns), rows: rows, columns: columns, seed: moving.seed, name: block.fullName(of: name))
        let weight = linear.weight.dense()
        if weight.zeroShare >= Self.pruned { zeros[name] = SparsityMask(zerosOf: weight) }
      } else if !(linear.weight is QuantizedMatrix || linear.weight is FactoredWeight || linear.weight.isNumbers) {
        unmoved[name] = "it is stored as neither groups of codes nor plain numbers"
      }
      if moving.biases, let bias = linear.bias { biases[name] = bias }
    }
    if moving.norms { (norms, normBiases) = (block.norms.weights, block.norms.biases) }
  }

  /// Numbers of which at least this share is zero were pruned; below it zeros are accidents, which nobody relies on.
  private static let pruned = 0.05
  /// The same of codes, many of which are zero on a coarse grid.
  private static let prunedCodes = 0.45

  /// The zeros of a weight that was pruned before it was quantized.
  ///
  /// - Parameter original: as it was then, where that is known.
  private static func zeros(of quantized: QuantizedMatrix, _ original: (any Weight)?) -> SparsityMask? {
    let weight = quantized.dense()
    let isPruned = original.map { $0.dense().zeroShare >= pruned } ?? (weight.zeroShare >= prunedCodes)
    return isPruned ? SparsityMask(zerosOf: weight) : nil
  }

  /// What pulls on a weight, less what pulls on its zeros.
  private func pull(on linear: LinearName, _ gradient: BlockGradient) -> Matrix? {
    guard let pull = gradient.weights[linear] else { return nil }
    return zeros[linear]?.applied(to: pull) ?? pull
  }

  /// Whether scales were to move that cannot.
  package var keepsPowersOfTwo: Bool { moving.scales && latents.values.contains { $0.scheme.scaleType == .float8E8M0 } }

  package var isMoving: Bool {
    !(latents.isEmpty && weights.isEmpty && factors.isEmpty && adapters.isEmpty && biases.isEmpty && norms.isEmpty)
  }

  /// Linears whose weights' gradients are needed.
  package var wantedLinears: Set<LinearName> { Set(latents.keys).union(weights.keys).union(factors.keys).union(adapters.keys) }

  /// The block as it computes now, its moving weights as numbers.
  package func expanded() -> Block {
    var block = original
    for (name, latent) in latents { block[name].weight = latent.dense() }
    setNumbers(of: &block)
    return block
  }

  /// The block as it is written: codes, scales and numbers where they are now.
  package func finished() -> Block {
    var block = original
    for (name, latent) in latents { block[name].weight = latent.quantized() }
    setNumbers(of: &block)
    return block
  }

  private func setNumbers(of block: inout Block) {
    for (name, weight) in weights { block[name].weight = weight }
    for (name, adapter) in adapters {
      let sum = adapter.added(to: original[name].weight.dense())
      block[name].weight = zeros[name]?.applied(to: sum) ?? sum
    }
    for (name, own) in factors { block[name].weight = own.weight(input: inputFactor(of: name)) }
    for (name, bias) in biases { block[name].bias = bias }
    for (name, norm) in norms { block.norms.weights[name] = norm }
    for (name, bias) in normBiases { block.norms.biases[name] = bias }
  }

  /// Goes through all that moves, in no order, and puts what `body` returns in its place; a vector is one row.
  package mutating func replaceNumbers(_ body: (ParameterName, Matrix) throws -> Matrix) rethrows {
    let prefix = original.prefix
    func vector(_ part: String, _ kind: ParameterName.Kind, _ values: [Float]) throws -> [Float] {
      try body(ParameterName(prefix + part, kind), Matrix(rows: 1, columns: values.count, elements: values)).elements
    }
    func matrix(_ part: String, _ kind: ParameterName.Kind, _ values: Matrix) throws -> Matrix {
      try body(ParameterName(prefix + part, kind), values)
    }
    for (linear, latent) in latents {
      let name = linear.rawValue
      if moving.codes { latents[linear]!.latents = try vector(name, .codes, latent.latents) }
      if moving.scales { latents[linear]!.scales = try vector(name, .scales, latent.scales) }
      if moving.zeroPoints, !latent.zeros.isEmpty { latents[linear]!.zeros = try vector(name, .zeroPoints, latent.zeros) }
    }
    for (linear, weight) in weights { weights[linear] = try matrix(linear.rawValue, .weight, weight) }
    for (linear, own) in factors {
      if let input = own.input { factors[linear]!.input = try matrix(linear.rawValue, .inputFactor, input) }
      factors[linear]!.output = try matrix(linear.rawValue, .outputFactor, own.output)
    }
    for (linear, own) in adapters {
      adapters[linear]!.input = try matrix(linear.rawValue, .inputFactor, own.input)
      adapters[linear]!.output = try matrix(linear.rawValue, .outputFactor, own.output)
    }
    for (linear, bias) in biases { biases[linear] = try vector(linear.rawValue, .bias, bias) }
    for (norm, weight) in norms { norms[norm] = try vector(norm, .norm, weight) }
    for (norm, bias) in normBiases { normBiases[norm] = try vector(norm, .normBias, bias) }
  }

  /// A of a linear's factors, which another linear may have.
  private func inputFactor(of name: LinearName) -> Matrix {
    guard let own = factors[name], let input = own.input ?? own.sharesInputOf.flatMap({ factors[$0]?.input }) else {
      preconditionFailure("factors that share an input move together")
    }
    return input
  }

  /// Both factors of all linears are pulled before any of them moves, because each gradient holds the other factor.
  private mutating func stepFactors(
    _ gradient: BlockGradient, _ optimizer: inout AdamW, _ rates: StepRates, _ factor: Float, _ prefix: String
  ) {
    var (inputs, outputs) = ([LinearName: Matrix](), [LinearName: Matrix]())
    for name in factors.keys.sorted(by: { $0.rawValue < $1.rawValue }) {
      guard let pull = gradient.weights[name], let own = factors[name] else { continue }
      let found = own.pullback(pull, input: inputFactor(of: name))
      let owner = own.sharesInputOf ?? name
      outputs[name] = found.output
      if inputs[owner]?.add(found.input) == nil { inputs[owner] = found.input }
    }
    for (name, pull) in inputs where factors[name]?.input != nil {
      let parameter = ParameterName(prefix + name.rawValue, .inputFactor)
      optimizer.update(&factors[name]!.input!, parameter, gradient: pull, rate: rates.numbers, factor: factor)
    }
    for (name, pull) in outputs {
      let parameter = ParameterName(prefix + name.rawValue, .outputFactor)
      optimizer.update(&factors[name]!.output, parameter, gradient: pull, rate: rates.numbers, factor: factor)
    }
  }

  /// One step down a gradient.
  ///
  /// - Parameter factor: what the gradient is multiplied by.
  package mutating func step(_ gradient: BlockGradient, _ optimizer: inout AdamW, _ rates: StepRates, factor: Float = 1) {
    let prefix = original.prefix
    func name(_ part: String, _ kind: ParameterName.Kind) -> ParameterName { ParameterName(prefix + part, kind) }
    for linear in latents.keys.sorted(by: { $0.rawValue < $1.rawValue }) {
      guard let weight = pull(on: linear, gradient) else { continue }
      let pull = latents[linear]!.pullback(weight)
      let full = linear.rawValue
      if moving.codes {
        optimizer.update(&latents[linear]!.latents, name(full, .codes), gradient: pull.latents, rate: rates.codes, factor: factor)
        if let reach = moving.reach, let start = starts[linear] { latents[linear]!.hold(within: reach, of: start) }
      }
      if moving.scales { latents[linear]!.stepScales(pull.scales, &optimizer, name(full, .scales), rates.scales, factor) }
      if moving.zeroPoints { latents[linear]!.stepZeros(pull.zeros, &optimizer, name(full, .zeroPoints), rates.zeroPoints, factor) }
    }
    for linear in weights.keys.sorted(by: { $0.rawValue < $1.rawValue }) {
      guard let pull = pull(on: linear, gradient) else { continue }
      optimizer.update(&weights[linear]!, name(linear.rawValue, .weight), gradient: pull, rate: rates.numbers, factor: factor)
    }
    stepFactors(gradient, &optimizer, rates, factor, prefix)
    for linear in adapters.keys.sorted(by: { $0.rawValue < $1.rawValue }) {
      guard let weight = pull(on: linear, gradient) else { continue }
      let pull = adapters[linear]!.pullback(weight)
      optimizer.update(
        &adapters[linear]!.input, name(linear.rawValue, .inputFactor), gradient: pull.input, rate: rates.numbers, factor: factor)
      optimizer.update(
        &adapters[linear]!.output, name(linear.rawValue, .outputFactor), gradient: pull.output, rate: rates.numbers, factor: factor)
    }
    for (linear, bias) in gradient.biases where biases[linear] != nil {
      optimizer.update(&biases[linear]!, name(linear.rawValue, .bias), gradient: bias, rate: rates.numbers, factor: factor)
    }
    for (norm, pull) in gradient.norms where norms[norm] != nil {
      optimizer.update(&norms[norm]!, name(norm, .norm), gradient: pull, rate: rates.numbers, factor: factor)
    }
    for (norm, pull) in gradient.normBiases where normBiases[norm] != nil {
      optimizer.update(&normBiases[norm]!, name(norm, .normBias), gradient: pull, rate: rates.numbers, factor: factor)
    }
  }
}

extension LatentWeight {
  fileprivate mutating func hold(within reach: Float, of start: [Float]) {
    for index in latents.indices { latents[index] = max(start[index] - reach, min(latents[index], start[index] + reach)) }
  }

  /// Scales move by shares of themselves, so that one rate serves groups of all sizes.
  fileprivate mutating func stepScales(
    _ gradient: [Float], _ optimizer: inout AdamW, _ name: ParameterName, _ rate: Float, _ factor: Float
  ) {
    // Powers of two cannot move by shares.
    guard scheme.scaleType != .float8E8M0 else { return }
    var moves = [Float](repeating: 0, count: scales.count)
    optimizer.update(&moves, name, gradient: zip(gradient, scales).map { $0 * $1 }, rate: rate, factor: factor)
    for index in scales.indices { scales[index] *= 1 + moves[index] }
  }

  /// Zero points move by steps of the grid; biases by shares of their scales.
  fileprivate mutating func stepZeros(
    _ gradient: [Float], _ optimizer: inout AdamW, _ name: ParameterName, _ rate: Float, _ factor: Float
  ) {
    guard !zeros.isEmpty else { return }
    if scheme.zeroPoint == .integer { return optimizer.update(&zeros, name, gradient: gradient, rate: rate, factor: factor) }
    var moves = [Float](repeating: 0, count: zeros.count)
    optimizer.update(&moves, name, gradient: zip(gradient, scales).map { $0 * $1 }, rate: rate, factor: factor)
    for index in zeros.indices { zeros[index] += scales[index] * moves[index] }
  }
}

extension Weight {
  /// Whether it is stored as plain numbers.
  var isNumbers: Bool { self is Matrix || self is StoredWeight }
}

extension ModelDescription {
  /// Why the way back through the model cannot be gone; `nil` where it can.
  package var gradientObstacle: String? {
    for block in blocks { if let obstacle = block.gradientObstacle { return "\(block.prefix.dropLast()): \(obstacle)" } }
    return nil
  }
}
