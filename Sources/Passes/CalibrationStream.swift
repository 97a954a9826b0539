package import Foundation
package import Models
internal import Synchronization
package import Tensors

/// The calibration sequences on their way through the model, stopped before whichever input group was asked about last.
///
/// A true-sequential pass asks for group after group of one block and changes weights in between. Every sequence is kept where the last
/// question left it, so the next one goes on from there: all groups together cost one forward pass, or one and a half where the wide input
/// of the down-projection is too large to be kept and is computed twice. Which layers a kept state rests on is recorded by their
/// revisions; a change upstream sends the sequences back to the block's input.
package final class CalibrationStream: Sendable {
  private struct Position {
    var stage = 0
    var cache: CacheQuantization?
    /// The layers computed so far, as they were.
    var revisions: [LinearName: Linear.Revision] = [:]
    /// The norms they were computed with; `nil` before anything was.
    var norms: PartNorms?
    /// Tokens that each expert of the current block has seen, the shared one last.
    var expertTokens: [Int] = []
    /// Multiply-adds per token spent in the current block, and those of one whole forward pass.
    var spent = 0
    var whole = 1

    mutating func forget() { (stage, revisions, norms, cache) = (0, [:], nil, nil) }
  }

  package let sequences: [[Int32]]
  /// What entered the current block.
  private let hidden: ActivationStore
  /// What is kept where a question left the sequences inside it.
  private let kept: [BlockValue: ActivationStore]
  private let keepsWideInput: Bool
  private let position = Mutex(Position())
  /// The same sequences on their way through the model without any quantized layer; `nil` where nobody compares.
  private let originals: CalibrationStream?
  private let longest: Int
  private let hiddenSize: Int

  /// - Parameters:
  ///   - description: of the model, for the sizes of what is kept.
  ///   - memory: bytes that activations may take; beyond it they go to `scratch`.
  ///   - comparing: whether the reference model is carried along.
  package init(
    _ sequences: [[Int32]], description: ModelDescription, memory: Int, scratch: URL, comparing: Bool = false
  ) throws {
    let memory = comparing ? memory / 2 : memory
    originals = comparing ? try CalibrationStream(sequences, description: description, memory: memory, scratch: scratch) : nil
    self.sequences = sequences
    longest = sequences.map(\.count).max() ?? 0
    hiddenSize = description.hiddenSize
    let tokens = sequences.reduce(0) { $0 + $1.count }
    let widths = description.blocks.map { ($0.contextSize, $0.feedForward?.keptSize ?? 0) }
    let states = description.keptStates * description.hiddenSize
    let narrow = tokens * 4 * (states + (widths.map(\.0).max() ?? 0))
    let wide = tokens * 4 * (states + (widths.map(\.1).max() ?? 0))
    keepsWideInput = wide <= memory
    let place = narrow <= memory ? nil : scratch
    hidden = try ActivationStore(scratch: place)
    kept = Dictionary(uniqueKeysWithValues: try description.keptValues.map { ($0, try ActivationStore(scratch: place)) })
  }

  /// Bytes of activations a run over so many tokens keeps in memory at most, before any limit.
  package static func memoryNeed(tokens: Int, description: ModelDescription) -> Int {
    let widest = description.blocks.map { max($0.feedForward?.keptSize ?? 0, $0.contextSize) }.max() ?? 0
    return tokens * 4 * (description.keptStates * description.hiddenSize + widest)
  }

  /// Looks the sequences up in the embedding.
  package func embed(_ embedding: Embedding, reference: Embedding? = nil) throws {
    if let originals { try originals.embed(reference ?? embedding) }
    let embedding = PreparedEmbedding(embedding)
    try Parallel.forEach(sequences.count, throwing: { [self] index in try hidden.write(embedding(sequences[index]), at: index) })
  }

  /// Accumulates the inputs of a group of a decoder block, or of the head.
  ///
  /// - Parameter changing: whether what makes these inputs is about to change: the sequences are then kept before it.
  /// - Throws: `MissingCalibration` for the embedding, whose input is no vector.
  package func statistic<S: Statistic>(
    _: S.Type, of group: InputGroup, in part: any ModelPart, changingMakers changing: Bool = false
  ) throws -> S {
    let visit = try visit(group, in: part, keepingBefore: changing)
    var statistic: S?
    try accumulate({ try visit.input($0).input }) { batch in
      if statistic == nil { statistic = S(features: batch.columns) }
      if batch.rows > 0 { statistic!.update(batch) }
    }
    visit.finish()
    guard let statistic else { throw MissingCalibration() }
    return statistic
  }

  /// Accumulates what the inputs of a group would be in the reference model.
  package func originalStatistic<S: Statistic>(_: S.Type, of group: InputGroup, in reference: any ModelPart) throws -> S {
    guard let originals else { preconditionFailure("the stream was not told to carry the reference model along") }
    return try originals.statistic(S.self, of: group, in: reference)
  }

  /// Accumulates the inputs of a group together with what they would be in the reference model.
  package func drift(of group: InputGroup, in part: any ModelPart, reference: any ModelPart) throws -> InputDrift {
    guard let originals else { preconditionFailure("the stream was not told to carry the reference model along") }
    let (own, other) = (try visit(group, in: part), try originals.visit(group, in: reference))
    var drift: InputDrift?
    // Both inputs of a token side by side are one row of twice the width.
    try accumulate({ index in Self.pair(try own.input(index), try other.input(index)) }) { pair in
      let halves = pair.split()
      if drift == nil { drift = InputDrift(features: halves.left.columns) }
      if pair.rows > 0 { drift!.update(halves.left, reference: halves.right) }
    }
    own.finish()
    other.finish()
    guard let drift else { throw MissingCalibration() }
    return drift
  }

  /// The largest magnitudes of keys and values over all sequences.
  package func cacheRange(of block: Block) throws -> (key: Float, value: Float) {
    var bare = block
    bare.cache = nil
    let prepared = PreparedBlock(bare, stages: 0..<1, positions: longest)
    let maxima = try Parallel.map(sequences.count) { [self] index in
      let states = try prepared.cachedStates(prepared.start(try hidden.read(index)).input!)
      return [states.keys, states.values].map { states in
        states.elements.withUnsafeBufferPointer { values in
          let range = Kernel.range(values)
          return max(-range.lowerBound, range.upperBound)
        }
      }
    }
    return (maxima.map { $0[0] }.max() ?? 0, maxima.map { $0[1] }.max() ?? 0)
  }

  /// One pass over the sequences up to the input of a group.
  private struct Visit: Sendable {
    /// The group's input of a sequence, and the tokens it belongs to; `nil` for all.
    var input: @Sendable (Int) throws -> (input: Matrix, tokens: [Int]?)
    /// To be called when all sequences have been asked for.
    var finish: @Sendable () -> Void
  }

  /// Both inputs of every token side by side. Where routers sent different tokens to the same expert, those that it saw in both models.
  private static func pair(_ own: (input: Matrix, tokens: [Int]?), _ other: (input: Matrix, tokens: [Int]?)) -> Matrix {
    guard let ownTokens = own.tokens, let otherTokens = other.tokens, ownTokens != otherTokens else {
      return Matrix(besides: own.input, other.input)
    }
    let places = Dictionary(uniqueKeysWithValues: otherTokens.enumerated().map { ($1, $0) })
    let common = ownTokens.indices.filter { places[ownTokens[$0]] != nil }
    return Matrix(besides: own.input.rows(at: common), other.input.rows(at: common.map { places[ownTokens[$0]]! }))
  }

  private func visit(_ group: InputGroup, in part: any ModelPart, keepingBefore: Bool = false) throws -> Visit {
    if let head = part as? Head { return Visit(input: { [self] in (head.input(try hidden.read($0)), nil) }, finish: {}) }
    guard let block = part as? Block else { throw MissingCalibration() }
    return try visit(group, in: block, keepingBefore: keepingBefore)
  }

  private func visit(_ group: InputGroup, in block: Block, keepingBefore: Bool) throws -> Visit {
    guard let stage = block.inputGroups.firstIndex(where: { Set(group.linears).isSubset(of: $0.linears) }) else {
      preconditionFailure("the linears \(group.linears) do not share an input")
    }
    // An expert is reached from the router; what is kept is what the router reads.
    let program = block.description.program
    let stops = program.stops
    guard let anchor = stops.firstIndex(of: program.anchor(ofStop: stops[stage])) else { preconditionFailure("an anchor is a stop") }
    let isExpert = anchor != stage
    // Of an expert, the groups before the one that is asked about.
    let expertStages = isExpert ? program.expertGroups(before: stage) : 0..<0
    let from = startingPoint(for: anchor, in: block)
    let prepared = PreparedBlock(
      block, stages: from..<(isExpert ? anchor + 1 : anchor), and: expertStages, positions: longest)
    let isWide = !isExpert && program.isWide(program.steps[stops[stage]].reads[0])
    // What makes an expert's inputs comes behind the router, where states are kept anyway.
    let place = keepingBefore && !isExpert ? stage - 1 : anchor
    let keeps = place > from && (keepingBefore || !isWide || keepsWideInput)
    return Visit(
      input: { [self] index in
        var state = try state(of: index, at: from, prepared)
        while state.stage < place { try prepared.advance(&state) }
        if keeps { try keep(state, of: index, program) }
        while state.stage < anchor { try prepared.advance(&state) }
        guard isExpert else { return (state.input!, nil) }
        let visited = try prepared.skip(to: stage, from: state)
        return (visited.input!, visited.inputTokens)
      },
      finish: { [self] in
        count(from..<anchor, in: block)
        if isExpert { count(expertStages, in: block) }
        guard keeps else { return }
        position.withLock {
          $0.stage = place
          $0.norms = block.norms
          $0.cache = block.cache
          $0.revisions = Dictionary(
            uniqueKeysWithValues: block.inputGroups[..<place].flatMap(\.linears).map { ($0, block[$0].revision) })
        }
      })
  }

  /// What flows into the current block, of at most `limit` sequences spread evenly over all: [tokens × hidden size] each.
  package func blockInputs(limit: Int) throws -> [Matrix] {
    let count = min(limit, sequences.count)
    return try Parallel.map(count) { [self] in try hidden.read($0 * sequences.count / count) }
  }

  /// This stream and the one that is carried along.
  var streams: [CalibrationStream] { [self] + (originals.map { [$0] } ?? []) }

  /// [tokens, hidden size] of what flows into the current block.
  func stateShape(of index: Int) -> [Int] { [sequences[index].count, hiddenSize] }

  /// Puts what an earlier run had computed in the place of what flows into the current block.
  func take(_ states: Matrix, as index: Int) throws { try hidden.write(states, at: index) }

  /// What flows into the current block, of one sequence: [tokens × hidden size].
  package func blockInput(of index: Int) throws -> Matrix { try hidden.read(index) }

  /// The same in the reference model.
  package func originalBlockInput(of index: Int) throws -> Matrix {
    guard let originals else { preconditionFailure("the stream was not told to carry the reference model along") }
    return try originals.hidden.read(index)
  }

  /// Carries all sequences through the block as it is now, to the input of the next.
  ///
  /// - Returns: how many whole forward passes the block has cost, this one included, and how many tokens each of its experts has seen.
  package func finish(_ block: Block, reference: Block? = nil) throws -> (forwardPasses: Double, expertTokens: [Int]) {
    if let originals { _ = try originals.finish(reference ?? block) }
    let from = startingPoint(for: block.inputGroups.count, in: block)
    let prepared = PreparedBlock(block, stages: from..<block.inputGroups.count, positions: longest)
    let strip = 8 * Parallel.width
    for start in stride(from: 0, to: sequences.count, by: strip) {
      try Task.checkCancellation()
      try Parallel.forEach(
        min(strip, sequences.count - start),
        throwing: { [self] offset in
          let index = start + offset
          var state = try state(of: index, at: from, prepared)
          while state.input != nil {
            let wasRouted = state.routing != nil
            try prepared.advance(&state)
            if !wasRouted, let routing = state.routing { count(routing) }
          }
          try hidden.write(state.residual, at: index)
          for store in kept.values { store.remove(index) }
        })
    }
    count(from..<block.inputGroups.count, in: block)
    return position.withLock { position in
      defer { position = Position() }
      return (Double(position.spent) / Double(position.whole), position.expertTokens)
    }
  }

  private func count(_ routing: MixtureRouting) {
    position.withLock { position in
      if position.expertTokens.isEmpty { position.expertTokens = routing.routes.map { _ in 0 } }
      for (expert, route) in routing.routes.enumerated() { position.expertTokens[expert] += route.tokens.count }
    }
  }

  /// The stage that kept states can be taken up from on the way to `stage`.
  private func startingPoint(for stage: Int, in block: Block) -> Int {
    position.withLock { position in
      let holds =
        position.stage <= stage && (position.norms.map { $0 == block.norms } ?? true)
        && (position.stage == 0 || position.cache == block.cache)
        && position.revisions.allSatisfy { block.linears[$0.key]?.revision == $0.value }
      if !holds { position.forget() }
      return position.stage
    }
  }

  private func count(_ stages: Range<Int>, in block: Block) {
    func cost(_ stages: Range<Int>) -> Int {
      block.inputGroups[stages].flatMap(\.linears).reduce(0) { $0 + block[$1].weight.rows * block[$1].weight.columns }
    }
    position.withLock {
      $0.spent += cost(stages)
      $0.whole = max(1, cost(block.inputGroups.indices))
    }
  }

  private func state(of index: Int, at stage: Int, _ prepared: PreparedBlock) throws -> BlockState {
    guard stage > 0 else { return try prepared.start(try hidden.read(index)) }
    let program = prepared.program
    var values: [BlockValue: Matrix] = [:]
    for value in program.kept(atStop: program.stops[stage]) {
      values[value] = try store(of: value, at: program.stops[stage], program).read(index)
    }
    return try prepared.resume(stage: stage, values)
  }

  private func keep(_ state: BlockState, of index: Int, _ program: BlockProgram) throws {
    let stop = program.stops[state.stage]
    let values = program.kept(atStop: stop)
    for value in values where !(value == .stream && program.isUntouched(before: stop)) {
      guard let matrix = state.values[value] else { preconditionFailure("\(value) is needed and is not there") }
      try store(of: value, at: stop, program).write(matrix, at: index)
    }
    for (value, store) in kept where !values.contains(value) { store.remove(index) }
  }

  /// Where a value is kept at a stop. The residual stream is still the block's input until something is added to it.
  private func store(of value: BlockValue, at stop: Int, _ program: BlockProgram) -> ActivationStore {
    if value == .stream, program.isUntouched(before: stop) { return hidden }
    guard let store = kept[value] else { preconditionFailure("\(value) is kept nowhere") }
    return store
  }

  /// Sequences are computed several at a time and added in their order, a few thousand tokens at once.
  private func accumulate(_ input: @Sendable (Int) throws -> Matrix, _ add: (Matrix) -> Void) throws {
    var start = 0
    while start < sequences.count {
      try Task.checkCancellation()
      var (end, tokens) = (start, 0)
      while end < sequences.count, end == start || tokens + sequences[end].count <= 4096 {
        tokens += sequences[end].count
        end += 1
      }
      let first = start
      let batch = try Parallel.map(end - start) { try input(first + $0) }
      add(batch.count == 1 ? batch[0] : Matrix(stacking: batch))
      start = end
    }
  }
}

extension Matrix {
  /// Rows of `left` continued by those of `right`.
  fileprivate init(besides left: Matrix, _ right: Matrix) {
    var elements: [Float] = []
    elements.reserveCapacity(left.elements.count + right.elements.count)
    for row in 0..<left.rows {
      elements += left.elements[row * left.columns..<(row + 1) * left.columns]
      elements += right.elements[row * right.columns..<(row + 1) * right.columns]
    }
    self.init(rows: left.rows, columns: left.columns + right.columns, elements: elements)
  }

  /// The left and the right half of the columns.
  fileprivate func split() -> (left: Matrix, right: Matrix) {
    let half = columns / 2
    func part(_ offset: Int) -> Matrix {
      Matrix(
        rows: rows, columns: half,
        elements: (0..<rows).flatMap { elements[$0 * columns + offset..<$0 * columns + offset + half] })
    }
    return (part(0), part(half))
  }
}
