import Models
import Passes
import Tensors

/// Carries calibration sequences through the original model and shows what enters every norm of the residual stream.
struct ResidualWalk {
  let model: Model
  var sequences: [[Int32]]

  var positions: Int { sequences.map(\.count).max() ?? 0 }

  /// - Parameters:
  ///   - model: as an analysis sees it.
  ///   - copies: of the hidden states that will be held at a time; sequences that do not fit the memory are left out.
  ///   - width: of what else is held, in numbers per token.
  ///   - given: the sequences; by default all of the calibration data.
  init(_ model: Model, _ context: AnalysisContext, copies: Int = 3, width: Int = 0, on given: [[Int32]]? = nil) throws {
    guard !context.calibration.isEmpty else { throw MissingCalibration() }
    self.model = model
    let perToken = 4 * (copies * model.description.hiddenSize + width)
    var tokens = 0
    sequences = Array(
      (given ?? context.calibration).prefix { sequence in
        defer { tokens += sequence.count }
        return tokens == 0 || (tokens + sequence.count) * perToken <= context.activationMemory
      })
  }

  func embedded() throws -> [Matrix] {
    let block = try model.block(.embedding)
    let table = PreparedEmbedding(block)
    return try Parallel.map(sequences.count) { try table(sequences[$0]) }
  }

  /// What a norm of the residual stream stands for: its module, its weight, and the linears that read it.
  struct Norm {
    var module: String
    var weight: [Float]
    var readers: [Matrix]
  }

  /// Calls `visit` for every norm in the order of the model with its inputs, [tokens × hidden] of every sequence, and `done` after every block.
  func run(progress: (Int, Int) -> Void = { _, _ in }, visit: (Norm, [Matrix]) throws -> Void) throws {
    var states = try embedded()
    let count = model.description.blocks.count
    for index in 0..<count {
      try Task.checkCancellation()
      let block = try model.block(.decoder(index: index))
      guard let description = block.description else { continue }
      let prepared = PreparedBlock(block, positions: positions)
      let inputs = states
      var residuals = try Parallel.map(inputs.count) { try prepared.start(inputs[$0]) }
      for case (let norm?, let group) in description.residualReaders {
        guard let stage = block.inputGroups.firstIndex(where: { Set(group.linears).isSubset(of: $0.linears) }) else { continue }
        let before = residuals
        residuals = try Parallel.map(before.count) { sequence in
          var state = before[sequence]
          while state.stage < stage { try prepared.advance(&state) }
          return state
        }
        try visit(
          Norm(module: block.prefix + norm, weight: block.norms[norm] ?? [], readers: group.linears.map { block[$0].weight.dense() }),
          residuals.map(\.residual))
      }
      let before = residuals
      states = try Parallel.map(before.count) { sequence in
        var state = before[sequence]
        while state.input != nil { try prepared.advance(&state) }
        return state.residual
      }
      block.releasePages()
      progress(index + 1, count)
    }
    let head = try model.block(.head)
    let owner = head.linears.isEmpty ? try model.block(.embedding) : head
    guard let norm = head.norms.first else { return }
    try visit(Norm(module: norm.key, weight: norm.value, readers: owner.linears.values.map { $0.weight.dense() }), states)
  }
}
