import CompressKit
import TestSupport
import Testing

@testable import Models

/// The list of steps against the stages that the forward pass goes by, for every family.
@Suite struct BlockProgramTests {
  private static func blocks(_ name: String) throws -> [BlockDescription] {
    try ArchitectureCatalog.standard.describe(try ModelConfig(text: Families.configuration(name).utf8)).blocks
  }

  @Test(arguments: Families.names) func groupsReadersWritersAndLayersAreThoseOfTheStages(_ name: String) throws {
    for block in try Self.blocks(name) {
      let program = block.program
      #expect(program.inputGroups == block.inputGroups)
      #expect(program.residualReaders.map(\.norm) == block.residualReaders.map(\.norm))
      #expect(program.residualReaders.map(\.group) == block.residualReaders.map(\.group))
      #expect(program.residualWriters == block.residualWriters)
      #expect(program.layers == block.subBlocks)
    }
  }

  /// What has to be kept at a stop: the stream, the group's input, what waits to be added, and a mixture's routes and sum.
  @Test(arguments: Families.names) func whatIsLiveAtAStop(_ name: String) throws {
    for block in try Self.blocks(name) {
      let program = block.program
      for (stage, stop) in program.stops.enumerated() {
        let live = program.live(before: stop)
        var expected: Set<BlockValue> = [.stream, program.steps[stop].reads[0]]
        if block.isParallel, stage > 1 { expected.insert("attention output") }
        // One norm before both layers of a parallel block is computed once for each.
        switch block.stages[stage] {
        case .expertInput(let index), .expertOutput(let index):
          let isLast = index == block.feedForward.networks.count - 1
          expected.insert("route")
          if index > 0 { expected.insert("feed-forward output") }
          // Experts to come gather from what the router read.
          if !isLast { expected.insert(block.norms.beforeFeedForward == nil ? .stream : "feed-forward input") }
        default: break
        }
        #expect(live == expected, "\(name), group \(stage)")
      }
    }
  }

  /// An expert is reached from the router without the others.
  @Test(arguments: Families.mixtures) func anExpertDependsOnTheRouterAlone(_ name: String) throws {
    for block in try Self.blocks(name) where block.feedForward.mixture != nil {
      let program = block.program
      let router = program.stops[2]
      for (stage, stop) in program.stops.enumerated().dropFirst(3) {
        let computed = program.needed(for: [program.steps[stop].reads[0]], from: router, to: stop)
        let linears = computed.compactMap { if case .linears(let names, _, _) = program.steps[$0] { names } else { nil } }
        let isOutput = if case .expertOutput = block.stages[stage] { true } else { false }
        #expect(linears == [block.inputGroups[2].linears] + (isOutput ? [block.inputGroups[stage - 1].linears] : []))
      }
    }
  }

  /// Every step done literally gives the numbers of the forward pass, bit by bit.
  @Test(arguments: Families.names) func theStepsAreTheForwardPass(_ name: String) throws {
    let model = try Families.model(name)
    for index in model.description.blocks.indices {
      let block = try model.block(.decoder(index: index))
      let hidden = Matrix.random(rows: 19, columns: model.description.hiddenSize, key: "\(name) \(index)")
      #expect(try Literal(block: block).run(hidden) == PreparedBlock(block, positions: 19).forward(hidden))
    }
  }

  /// The steps one by one, on whole matrices.
  private struct Literal {
    let block: Block

    func run(_ hidden: Matrix) throws -> Matrix {
      let description = try #require(block.description)
      var (values, routes) = ([BlockValue.stream: hidden], [MixtureState.Route]())
      func apply(_ name: LinearName, _ input: Matrix) -> Matrix {
        guard input.rows > 0 else { return Matrix(rows: 0, columns: block[name].weight.rows) }
        var output = input.times(transposed: block[name].weight.dense())
        if let bias = block[name].bias { output.add(row: bias) }
        return output
      }
      for step in description.program.steps {
        switch step {
        case .norm(let name, let from, let into):
          values[into] = description.norm.apply(values[from]!, weight: block.norms[name]!, bias: block.normBiases[name])
        case .linears(let names, let from, let into): for (name, value) in zip(names, into) { values[value] = apply(name, values[from]!) }
        case .attention(let from, let into): values[into] = attend(from.map { values[$0]! }, description)
        case .activate(let activation, let from, let gated, let into):
          var result = values[from]!
          result.activate(activation, gating: gated.map { values[$0]! })
          values[into] = result
        case .halve(let from, let into):
          let size = values[from]!.columns / 2
          for (place, value) in into.enumerated() { values[value] = values[from]!.columns(in: [place * size..<(place + 1) * size]) }
        case .route(let scores, let gate, _):
          let mixture = try #require(description.feedForward.mixture)
          routes = mixture.routes(scores: values[scores]!)
          if mixture.shared != nil {
            let weights = gate.map { values[$0]!.elements.map { 1 / (1 + exponential(-$0)) } }
            routes.append(.init(tokens: Array(0..<hidden.rows), weights: weights ?? Array(repeating: 1, count: hidden.rows)))
          }
        case .gather(let from, _, let expert, let into): values[into] = values[from]!.rows(at: routes[expert].tokens)
        case .scatter(let from, _, let expert, let onto):
          var sum = values[onto] ?? Matrix(rows: hidden.rows, columns: description.hiddenSize)
          sum.add(values[from]!, atRows: routes[expert].tokens, weighedBy: routes[expert].weights)
          values[onto] = sum
        case .add(let from, let onto, let scale):
          let added = values[from]!
          values[onto]!.add(
            scale == 1 ? added : Matrix(rows: added.rows, columns: added.columns, elements: added.elements.map { $0 * scale }))
        }
      }
      return values[.stream]!
    }

    private func attend(_ made: [Matrix], _ description: BlockDescription) -> Matrix {
      let attention = description.attention
      var (queries, keys, values) = attention.split(made)
      func normalize(_ states: inout Matrix, _ name: String) {
        let width = attention.queryKeyNorm == .head ? attention.headSize : states.columns
        let rows = Matrix(rows: states.elements.count / width, columns: width, elements: states.elements)
        let result = description.norm.apply(rows, weight: block.norms[name]!, bias: block.normBiases[name])
        states = Matrix(rows: states.rows, columns: states.columns, elements: result.elements)
      }
      if attention.queryKeyNorm != nil {
        normalize(&queries, attention.queryNorm)
        normalize(&keys, attention.keyNorm)
      }
      if let rotary = attention.rotary {
        let table = RotaryTables(rotary, headSize: attention.headSize, positions: queries.rows).table(for: queries.rows)
        table.rotate(&queries, heads: attention.heads, headSize: attention.headSize)
        table.rotate(&keys, heads: attention.keyValueHeads, headSize: attention.headSize)
      }
      return attention.attend(queries: queries, keys: keys, values: values)
    }
  }
}
