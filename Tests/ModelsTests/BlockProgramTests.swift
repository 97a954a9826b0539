import CompressKit
import TestSupport
import Testing

@testable import Models

/// The list of steps of every family: what follows from it, and that its literal meaning is the forward pass.
@Suite struct BlockProgramTests {
  private static func blocks(_ name: String) throws -> [BlockDescription] {
    try ArchitectureCatalog.standard.describe(try ModelConfig(text: Families.configuration(name).utf8)).blocks
  }

  /// What the list says of blocks of four shapes: one layer after the other, side by side under one norm, norms on sums, a mixture.
  @Test func groupsReadersWritersAndLayers() throws {
    let plain = try Self.blocks("llama-yarn")[0].program
    #expect(
      plain.inputGroups.map(\.linears) == [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"],
        ["mlp.down_proj"],
      ])
    #expect(plain.residualReaders.map(\.norm) == ["input_layernorm", "post_attention_layernorm"])
    #expect(plain.residualReaders.map(\.group) == [plain.inputGroups[0], plain.inputGroups[2]])
    #expect(plain.residualWriters == ["self_attn.o_proj", "mlp.down_proj"] && plain.layers == [0..<2, 2..<4])

    let parallel = try Self.blocks("falcon-7b")[0].program
    #expect(parallel.residualReaders.map(\.norm) == ["input_layernorm"])
    #expect(
      parallel.residualReaders.map(\.group.linears) == [["self_attention.query_key_value", "mlp.dense_h_to_4h"]])
    #expect(parallel.residualWriters == ["self_attention.dense", "mlp.dense_4h_to_h"] && parallel.layers == [0..<2, 2..<4])

    let sums = try Self.blocks("bert")[0].program
    #expect(sums.residualReaders.map(\.norm) == [nil, nil])
    #expect(sums.residualReaders.map(\.group) == [sums.inputGroups[0], sums.inputGroups[2]])
    #expect(sums.residualWriters == ["attention.output.dense", "output.dense"] && sums.layers == [0..<2, 2..<4])

    let mixture = try Self.blocks("qwen2-moe").last { $0.feedForward?.mixture != nil }?.program
    let groups = try #require(mixture?.inputGroups)
    #expect(groups[2].linears == ["mlp.gate", "mlp.shared_expert_gate"])
    #expect(mixture?.layers == [0..<2, 2..<groups.count])
    #expect(mixture?.residualReaders.map(\.norm) == ["input_layernorm", "post_attention_layernorm"])
    let readers = stride(from: 3, to: groups.count, by: 2).flatMap { groups[$0].linears }
    #expect(mixture?.residualReaders.last?.group.linears == groups[2].linears + readers)
    #expect(mixture?.residualWriters == ["self_attn.o_proj"] + stride(from: 4, to: groups.count, by: 2).flatMap { groups[$0].linears })
  }

  /// A mixture beside a dense network: three norms of one stream, and one layer whose outputs are added together.
  @Test func networkAndMixtureSideBySide() throws {
    let program = try Self.blocks("gemma4-moe")[0].program
    let groups = program.inputGroups
    #expect(
      groups.prefix(5).map(\.linears) == [
        ["self_attn.q_proj", "self_attn.k_proj"], ["self_attn.o_proj"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"],
        ["router.proj"],
      ])
    #expect(groups.count == 5 + 2 * 4 && program.layers == [0..<2, 2..<13])
    #expect(
      program.residualReaders.map(\.norm) == [
        "input_layernorm", "pre_feedforward_layernorm", "router.scale", "pre_feedforward_layernorm_2",
      ])
    #expect(
      program.residualReaders.map(\.group.linears) == [
        groups[0].linears, groups[2].linears, groups[4].linears, stride(from: 5, to: 13, by: 2).flatMap { groups[$0].linears },
      ])
    let downs = stride(from: 6, to: 13, by: 2).flatMap { groups[$0].linears }
    #expect(program.residualWriters == ["self_attn.o_proj", "mlp.down_proj"] + downs)
    // Before the router nothing is kept but the stream and what the dense network has made.
    #expect(program.kept(atStop: program.stops[4]) == [.stream, "feed-forward output"])
  }

  /// All linears of a block are in its groups once, and every writer closes a layer.
  @Test(arguments: Families.names) func everyLinearHasItsPlace(_ name: String) throws {
    for block in try Self.blocks(name) {
      let program = block.program
      let linears = program.inputGroups.flatMap(\.linears)
      #expect(Set(linears) == Set(block.linearShapes.keys) && linears.count == block.linearShapes.count)
      #expect(program.layers.map(\.lowerBound).first == 0 && program.layers.last?.upperBound == program.inputGroups.count)
      for (stage, stop) in program.stops.enumerated() {
        let rest = program.rest(fromStop: stop)
        #expect(rest.lowerBound == stage)
        #expect(program.residualWriters.contains(program.inputGroups[rest.upperBound - 1].linears[0]))
      }
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
        // Latents of keys and values wait for the queries, queries for keys and values, and the rotary keys for both.
        if let attention = block.mixers.first as? LatentAttention, attention.queryRank != nil, stage == 1 {
          expected.formUnion(["latent", "rotary keys"])
        } else if program.steps[stop].reads[0] == "latent" {
          expected.formUnion(["queries", "rotary keys"])
        }
        // Two mixers side by side: what the second made waits for the first to put out, and what that put out for the second.
        if block.mixers.count == 2, stage == 1 { expected.insert("scanned of mixer 1") }
        if block.mixers.count == 2, stage == 2 { expected.insert("attention output") }
        if let expert = program.expert(atStop: stop) {
          expected.insert("route")
          let mixture = block.feedForward!.mixture!
          if expert > 0 { expected.insert(mixture.ownNorms == nil ? "feed-forward output" : "experts output") }
          // Experts to come gather from what the router read, or from what a norm makes for them.
          let isLast = expert == (mixture.ownNorms == nil ? block.feedForward!.networks.count : mixture.experts) - 1
          let gathered: BlockValue = block.norms.beforeFeedForward == nil ? .stream : "feed-forward input"
          if !isLast { expected.insert(mixture.ownNorms == nil ? gathered : "experts input") }
        }
        // What the network beside a mixture made waits for the mixture.
        if block.feedForward?.mixture?.ownNorms != nil, stage > 3 { expected.insert("feed-forward output") }
        #expect(live == expected, "\(name), group \(stage)")
      }
    }
  }

  /// An expert is reached from the router without the others.
  @Test(arguments: Families.allMixtures) func anExpertDependsOnTheRouterAlone(_ name: String) throws {
    for block in try Self.blocks(name) where block.feedForward?.mixture != nil {
      let program = block.program
      let group = try #require(block.inputGroups.firstIndex { $0.linears.contains(block.feedForward!.mixture!.router) })
      let router = program.stops[group]
      for (stage, stop) in program.stops.enumerated().dropFirst(group + 1) {
        let computed = program.needed(for: [program.steps[stop].reads[0]], from: router, to: stop)
        let linears = computed.compactMap { if case .linears(let names, _, _) = program.steps[$0] { names } else { nil } }
        let isOutput = program.isWide(program.steps[stop].reads[0])
        #expect(linears == [block.inputGroups[group].linears] + (isOutput ? [block.inputGroups[stage - 1].linears] : []))
      }
    }
  }

  /// Every step done literally gives the numbers of the forward pass, bit by bit.
  @Test(arguments: Families.names) func theStepsAreTheForwardPass(_ name: String) throws {
    let model = try Families.model(name)
    for index in model.description.blocks.indices {
      let block = try model.block(index)
      let hidden = Matrix.random(rows: 19, columns: model.description.hiddenSize, key: "\(name) \(index)")
      #expect(try Literal(block: block).run(hidden) == PreparedBlock(block, positions: 19).forward(hidden))
    }
  }

  /// The steps one by one, on whole matrices.
  private struct Literal {
    let block: Block

    func run(_ hidden: Matrix) throws -> Matrix {
      let description = block.description
      var (values, routes) = ([BlockValue.stream: hidden], [MixtureRouting.Route]())
      func apply(_ name: LinearName, _ input: Matrix) -> Matrix {
        guard input.rows > 0 else { return Matrix(rows: 0, columns: block[name].weight.rows) }
        var output = input.times(transposed: block[name].weight.dense())
        if let bias = block[name].bias { output.add(row: bias) }
        return output
      }
      for step in description.program.steps {
        switch step {
        case .norm(let name, let from, let into):
          values[into] = description.norm(named: name).apply(values[from]!, weight: block.norms[name]!, bias: block.norms.biases[name])
        case .linears(let names, let from, let into): for (name, value) in zip(names, into) { values[value] = apply(name, values[from]!) }
        case .mix(let place, let from, let into):
          let inputs = from.map { values[$0]! }
          if let attention = description.mixers[place] as? AttentionDescription {
            values[into] = attend(inputs, attention, description)
          } else {
            values[into] = PreparedBlock(block, positions: hidden.rows).mixers[place].mix(inputs)
          }
        case .activate(let activation, let from, let gated, let into):
          var result = values[from]!
          if case .xielu(let module) = activation {
            XIELU(XIELU.names.map { block.parameters["\(module).\($0)"]!.floats()[0] }).apply(to: &result)
          } else {
            result.activate(activation, gating: gated.map { values[$0]! })
          }
          values[into] = result
        case .split(let from, let sizes, let into):
          for (place, value) in into.enumerated() {
            let start = sizes[..<place].reduce(0, +)
            values[value] = values[from]!.columns(in: [start..<start + sizes[place]])
          }
        case .route(let scores, let gate, _):
          let mixture = try #require(description.feedForward?.mixture)
          routes = mixture.routes(
            scores: values[scores]!, correction: mixture.correction.map { block.parameters[$0]!.floats() },
            scales: mixture.expertScale.map { block.parameters[$0]!.floats() })
          if mixture.shared != nil, mixture.ownNorms == nil {
            let weights = gate.map { values[$0]!.elements.map { 1 / (1 + exponential(-$0)) } }
            routes.append(.init(tokens: Array(0..<hidden.rows), weights: weights ?? Array(repeating: 1, count: hidden.rows)))
          }
        case .gather(let from, _, let expert, let into):
          var seen = values[from]!.rows(at: routes[expert].tokens)
          if let weights = routes[expert].inputWeights { seen.scaleRows(by: weights) }
          values[into] = seen
        case .scatter(let from, _, let expert, let onto):
          var sum = values[onto] ?? Matrix(rows: hidden.rows, columns: description.hiddenSize)
          sum.add(values[from]!, atRows: routes[expert].tokens, weighedBy: routes[expert].weights)
          values[onto] = sum
        case .add(let from, let onto, let scale):
          let added = values[from]!
          values[onto]!.add(
            scale == 1 ? added : Matrix(rows: added.rows, columns: added.columns, elements: added.elements.map { $0 * scale }))
        case .scale(let scaled, let name):
          let (matrix, factor) = (values[scaled]!, block.parameters[name]!.floats()[0])
          values[scaled] = Matrix(rows: matrix.rows, columns: matrix.columns, elements: matrix.elements.map { $0 * factor })
        }
      }
      return values[.stream]!
    }

    private func attend(_ made: [Matrix], _ attention: AttentionDescription, _ description: BlockDescription) -> Matrix {
      var (queries, keys, values) = attention.split(made)
      func normalize(_ states: inout Matrix, _ name: String) {
        let width = attention.queryKeyNorm == .head ? attention.headSize : states.columns
        let rows = Matrix(rows: states.elements.count / width, columns: width, elements: states.elements)
        let weight = (attention.hasNormWeights ? block.norms[name] : nil) ?? Array(repeating: 1, count: width)
        let result = description.norm.apply(rows, weight: weight, bias: block.norms.biases[name])
        states = Matrix(rows: states.rows, columns: states.columns, elements: result.elements)
      }
      func normalizeBoth() {
        guard attention.queryKeyNorm != nil else { return }
        normalize(&queries, attention.queryNorm)
        normalize(&keys, attention.keyNorm)
      }
      if !attention.normalizesRotated { normalizeBoth() }
      if attention.normalizesValues { normalize(&values, "a norm without a weight") }
      if let rotary = attention.rotary {
        let table = RotaryTables(rotary, headSize: attention.headSize, positions: queries.rows).table(for: queries.rows)
        table.rotate(&queries, heads: attention.heads, headSize: attention.headSize)
        table.rotate(&keys, heads: attention.keyValueHeads, headSize: attention.headSize)
      }
      if attention.normalizesRotated { normalizeBoth() }
      if let scale = attention.queryScale { queries.scaleRows(by: (0..<queries.rows).map { scale.factor(at: $0) }) }
      let sinks = attention.hasSinks ? block.parameters[attention.sinksName]?.floats() : nil
      var context = attention.attend(queries: queries, keys: keys, values: values, sinks: sinks)
      attention.gate(&context, by: made)
      return context
    }
  }
}
