import Models
import Passes
import Tensors

/// A norm of the residual stream: its module, its weight, and the linears that read it.
struct StreamNorm {
  var module: String
  var weight: [Float]
  var readers: [Matrix]
}

extension ModelWalk {
  /// Carries calibration sequences through the model, as an analysis sees it.
  ///
  /// - Parameters:
  ///   - copies: of the hidden states that will be held at a time; sequences that do not fit the memory are left out.
  ///   - width: of what else is held, in numbers per token.
  ///   - given: the sequences; by default all of the calibration data.
  init(_ model: Model, _ context: AnalysisContext, copies: Int = 3, width: Int = 0, on given: [[Int32]]? = nil) throws {
    guard !context.calibration.isEmpty else { throw MissingCalibration() }
    let perToken = 4 * (copies * model.description.hiddenSize + width)
    var tokens = 0
    let all = given ?? context.calibration
    let fitting = all.prefix { sequence in
      defer { tokens += sequence.count }
      return tokens == 0 || (tokens + sequence.count) * perToken <= context.activationMemory
    }
    if fitting.count < all.count {
      context.remark(
        "\(fitting.count) of \(all.count) sequences were looked at: the memory limit has room for no more; a higher one would serve it")
    }
    self.init(model, carrying: Array(fitting))
  }

  /// Calls `show` for every norm of the residual stream in the order of the model with its inputs, [tokens × hidden] of every sequence.
  func visitNorms(progress: Progress = { _, _ in }, _ show: (StreamNorm, [Matrix]) throws -> Void) throws {
    var states = try embedded()
    try visit(progress: progress) { _, block in
      let prepared = PreparedBlock(block, positions: positions)
      let inputs = states
      var residuals = try Parallel.map(inputs.count) { try prepared.start(inputs[$0]) }
      for case (let norm?, let group) in block.description.residualReaders {
        guard let stage = block.inputGroups.firstIndex(where: { Set(group.linears).isSubset(of: $0.linears) }) else { continue }
        let before = residuals
        residuals = try Parallel.map(before.count) { sequence in
          var state = before[sequence]
          while state.stage < stage { try prepared.advance(&state) }
          return state
        }
        try show(
          StreamNorm(module: block.prefix + norm, weight: block.norms[norm] ?? [], readers: group.linears.map { block[$0].weight.dense() }),
          residuals.map(\.residual))
      }
      let before = residuals
      states = try Parallel.map(before.count) { sequence in
        var state = before[sequence]
        while state.input != nil { try prepared.advance(&state) }
        return state.residual
      }
    }
    let (head, matrix) = try head()
    guard let norm = head.norms.weights.first else { return }
    try show(StreamNorm(module: norm.key, weight: norm.value, readers: [matrix.weight.dense()]), states)
  }
}
