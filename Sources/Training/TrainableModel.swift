package import Models
internal import Passes
package import Tensors

/// A model in memory, some of whose parameters move.
package struct TrainableModel: Sendable {
  package let description: ModelDescription
  package private(set) var embedding: Embedding
  package private(set) var blocks: [TrainableBlock]
  package private(set) var head: Head
  /// What was to move and cannot.
  package let remarks: [String]
  /// Whether the final norm moves.
  private let movesNorms: Bool
  /// Whether the tables of the embedding and the head move.
  private let movesTables: Bool

  /// - Parameters:
  ///   - blocks: of the model, in their order.
  ///   - movesTables: whether embedding and head move where they are plain numbers.
  ///   - wanted: of each block, what latents lie towards: the teacher's weights, which may not be pruned as its own are.
  ///   - reach: how far from their codes latents may begin, in steps.
  package init(
    _ description: ModelDescription, embedding: Embedding, blocks: [Block], head: Head, moving: MovingParameters, movesTables: Bool,
    towards wanted: [Block]? = nil, reach: Float = 0
  ) {
    self.description = description
    self.embedding = embedding
    self.head = head
    self.blocks = blocks.indices.map {
      TrainableBlock(blocks[$0], moving: moving, towards: wanted?[$0], isBeforeRounding: false, reach: reach)
    }
    movesNorms = moving.norms
    // Codes of a table would be lost.
    let tables = [embedding.table] + head.linears.values
    self.movesTables = movesTables && tables.allSatisfy(\.weight.isNumbers)
    var remarks = Set<String>()
    if movesTables, !self.movesTables { remarks.insert("an embedding or a head that is quantized does not move") }
    if self.blocks.contains(where: \.keepsPowersOfTwo) { remarks.insert("scales that are powers of two do not move") }
    for block in self.blocks {
      for (name, reason) in block.unmoved { remarks.insert("\(block.original.fullName(of: name)) does not move: \(reason)") }
    }
    self.remarks = remarks.sorted()
  }

  private var headName: LinearName? { head.linears.keys.first }
  /// What the final hidden states are multiplied by.
  private var headLinear: Linear { headName.map { head[$0] } ?? embedding.table }

  /// Whether anything moves at all.
  package var isMoving: Bool { movesTables || movesNorms || blocks.contains(where: \.isMoving) }

  /// The gradient of a loss over a batch of sequences.
  package struct Gradient: Sendable {
    /// Mean over all positions that have one, in nats.
    package var loss: Double
    /// What the states on the way add to it.
    package var stateLoss = 0.0
    package var positions: Int
    package var blocks: [BlockGradient]
    /// Of the embedding's table, and of the head's where it has one of its own; `nil` where they do not move.
    package var table: Matrix?
    package var head: Matrix?
    package var headNorms: [String: [Float]]
    package var headNormBiases: [String: [Float]]

    /// √ Σ of all squares.
    package var norm: Double {
      func square(_ values: [Float]) -> Double {
        values.withUnsafeBufferPointer { $0.isEmpty ? 0 : Kernel.squaredDistance($0.baseAddress!, nil, count: $0.count) }
      }
      func square(_ matrix: Matrix) -> Double {
        matrix.withUnsafeElements { Kernel.squaredDistance($0, nil, count: matrix.rows * matrix.columns) }
      }
      var sum = 0.0
      for block in blocks {
        sum += block.weights.values.reduce(0) { $0 + square($1) } + block.biases.values.reduce(0) { $0 + square($1) }
        sum += block.norms.values.reduce(0) { $0 + square($1) } + block.normBiases.values.reduce(0) { $0 + square($1) }
      }
      for matrix in [table, head] { if let matrix { sum += square(matrix) } }
      return (sum + headNorms.values.reduce(0) { $0 + square($1) }).squareRoot()
    }
  }

  /// What is kept of the way through a block.
  private enum Passage: Sendable {
    /// All that the way back needs, by sequence.
    case recorded([BlockRun])
    /// What entered, by sequence.
    case entered([Matrix])

    func run(of sequence: Int, through block: PreparedBlock) throws(NonFiniteActivation) -> BlockRun {
      switch self {
      case .recorded(let runs): runs[sequence]
      case .entered(let inputs): try block.record(inputs[sequence])
      }
    }
  }

  /// The teacher's logits of some positions of a sequence, [positions × vocabulary].
  package typealias Teacher = @Sendable (_ sequence: Int, _ positions: Range<Int>) throws -> Matrix

  /// Positions whose logits are held at once by a thread.
  private static let tile = 64

  /// Goes through the model and back.
  ///
  /// - Parameters:
  ///   - teacher: `nil` for losses that need none.
  ///   - wanted: states of the teacher that are to be made on the way.
  ///   - memory: bytes that what happened inside blocks may take until the way back comes to it. Of blocks for which there is no room only the
  ///     inputs are kept, and their inside is computed once more; the result is the same.
  /// - Throws: `NonFiniteActivation` naming what overflowed.
  package func gradient(
    of loss: any LogitLoss, on sequences: [[Int32]], teacher: Teacher? = nil, wanted: WantedStates? = nil, memory: Int = 0
  ) throws -> Gradient {
    let longest = sequences.map(\.count).max() ?? 0
    let lookup = PreparedEmbedding(embedding)
    var hidden = try Parallel.map(sequences.count) { try lookup(sequences[$0]) }
    var passages: [Passage] = []
    var (room, made) = (memory, [Int: [Matrix]]())
    for (index, block) in blocks.enumerated() {
      try Task.checkCancellation()
      let prepared = PreparedBlock(block.expanded(), positions: longest)
      let inputs = hidden
      let needed = 4 * block.original.description.recordedNumbers * inputs.reduce(0) { $0 + $1.rows }
      if needed <= room {
        room -= needed
        let runs = try Parallel.map(sequences.count) { try prepared.record(inputs[$0]) }
        passages.append(.recorded(runs))
        hidden = runs.map(\.output)
      } else {
        passages.append(.entered(inputs))
        hidden = try Parallel.map(sequences.count) { try prepared.forward(inputs[$0]) }
      }
      if wanted?.blocks.contains(index) == true { made[index] = hidden }
    }
    var result = try headGradient(of: loss, sequences, hidden, teacher)
    for index in blocks.indices.reversed() {
      try Task.checkCancellation()
      if let wanted, let states = made.removeValue(forKey: index) {
        let (loss, gradients) = try wanted.pull(states, behind: index)
        result.gradient.stateLoss += loss
        for sequence in gradients.indices { result.below[sequence].add(gradients[sequence]) }
      }
      let (passage, above, prepared) = (passages.removeLast(), result.below, PreparedBlock(blocks[index].expanded(), positions: longest))
      let pulled = try Parallel.map(sequences.count) { sequence in
        var pull = BlockPull()
        let below = prepared.pullback(try passage.run(of: sequence, through: prepared), above[sequence], into: &pull)
        return (below, pull)
      }
      result.gradient.blocks[index] = BlockGradient(of: pulled.map(\.1), weightsOf: blocks[index].wantedLinears)
      result.below = pulled.map(\.0)
    }
    if movesTables { try pullTable(sequences, result.below, into: &result.gradient) }
    return result.gradient
  }

  /// The mean loss alone.
  package func loss(_ loss: any LogitLoss, on sequences: [[Int32]], teacher: Teacher? = nil) throws -> Double {
    let longest = sequences.map(\.count).max() ?? 0
    let lookup = PreparedEmbedding(embedding)
    var states = try Parallel.map(sequences.count) { try lookup(sequences[$0]) }
    for block in blocks {
      try Task.checkCancellation()
      let prepared = PreparedBlock(block.expanded(), positions: longest)
      states = try Parallel.map(sequences.count) { [states] in try prepared.forward(states[$0]) }
    }
    let (weight, hidden) = (headLinear.weight.dense(), states)
    let tiles = Self.tiles(of: sequences)
    let sums = try Parallel.map(tiles.count) { index in
      let tile = tiles[index]
      let input = headInput(hidden[tile.sequence].rows(tile.positions))
      var logits = head.finishLogits(input.times(transposed: weight))
      return try pull(loss, &logits, tile, sequences, teacher)
    }
    return try finite(sums.reduce(0) { $0 + $1.loss } / Double(max(1, sums.reduce(0) { $0 + $1.positions })))
  }

  private func finite(_ loss: Double) throws(NonFiniteActivation) -> Double {
    guard loss.isFinite else { throw NonFiniteActivation(block: head.name, layer: "the logits") }
    return loss
  }

  private struct Tile: Sendable {
    var sequence: Int
    var positions: Range<Int>
  }

  private static func tiles(of sequences: [[Int32]]) -> [Tile] {
    sequences.indices.flatMap { sequence in
      stride(from: 0, to: sequences[sequence].count, by: tile).map {
        Tile(sequence: sequence, positions: $0..<min($0 + tile, sequences[sequence].count))
      }
    }
  }

  private func headInput(_ hidden: Matrix) -> Matrix {
    let input = head.input(hidden)
    return headName == nil ? input : headLinear.inputQuantization?.rounded(input) ?? input
  }

  /// Logits become their gradients.
  private func pull(
    _ loss: any LogitLoss, _ logits: inout Matrix, _ tile: Tile, _ sequences: [[Int32]], _ teacher: Teacher?
  ) throws -> (loss: Double, positions: Int) {
    var other = loss.needsTeacher ? try teacher?(tile.sequence, tile.positions) : nil
    let (rows, count, tokens) = (logits.rows, logits.columns, sequences[tile.sequence])
    var (sum, positions) = (0.0, 0)
    logits.withUnsafeMutableElements { logits in
      for row in 0..<rows {
        let place = tile.positions.lowerBound + row
        let next = place + 1 < tokens.count ? tokens[place + 1] : nil
        let own = logits + row * count
        let found =
          other == nil
          ? loss.pull(own, teacher: nil, next: next, count: count)
          : other!.withUnsafeMutableElements { loss.pull(own, teacher: $0 + row * count, next: next, count: count) }
        guard let found else { continue }
        sum += found
        positions += 1
      }
    }
    return (sum, positions)
  }

  /// What a loss, summed over all positions, pulls on the hidden states behind the last block, by sequence.
  package func pull(of loss: any LogitLoss, _ sequences: [[Int32]], _ hidden: [Matrix]) throws -> [Matrix] {
    let (gradient, below) = try headGradient(of: loss, sequences, hidden, nil)
    return below.map { $0.scaled(by: Float(gradient.positions)) }
  }

  private func headGradient(
    of loss: any LogitLoss, _ sequences: [[Int32]], _ hidden: [Matrix], _ teacher: Teacher?
  ) throws -> (gradient: Gradient, below: [Matrix]) {
    let weight = headLinear.weight.dense()
    let tiles = Self.tiles(of: sequences)
    var gradient = Gradient(
      loss: 0, positions: 0, blocks: blocks.map { _ in BlockGradient() }, headNorms: [:], headNormBiases: [:])
    var rows = hidden.map { Matrix(rows: $0.rows, columns: $0.columns) }
    var table = movesTables ? Matrix(rows: weight.rows, columns: weight.columns) : nil
    // A few tiles at once; what they pull on the matrix is added in their order.
    let round = 4
    for start in stride(from: 0, to: tiles.count, by: round) {
      try Task.checkCancellation()
      let part = Array(tiles[start..<min(start + round, tiles.count)])
      let pulled = try Parallel.map(part.count) { index in
        let tile = part[index]
        let input = headInput(hidden[tile.sequence].rows(tile.positions))
        let logits = head.finishLogits(input.times(transposed: weight))
        var above = logits
        let (sum, positions) = try pull(loss, &above, tile, sequences, teacher)
        head.pullLogits(&above, logits)
        return (input: input, above: above, below: above.times(weight), loss: sum, positions: positions)
      }
      for (tile, pull) in zip(part, pulled) {
        gradient.loss += pull.loss
        gradient.positions += pull.positions
        rows[tile.sequence].set(pull.below, atRows: Array(tile.positions))
        table?.accumulate(pull.above, pull.input)
      }
    }
    let share = 1 / Float(max(1, gradient.positions))
    gradient.loss = try finite(gradient.loss * Double(share))
    if let table {
      if headName == nil { gradient.table = table.scaled(by: share) } else { gradient.head = table.scaled(by: share) }
    }
    guard let (name, norm) = head.norms.weights.first else { return (gradient, rows.map { $0.scaled(by: share) }) }
    let pulled = Parallel.map(hidden.count) { [rows] index in
      head.norm.pullback(hidden[index], weight: norm, gradient: rows[index].scaled(by: share))
    }
    gradient.headNorms[name] = pulled.reduce([Float](repeating: 0, count: norm.count)) { $0.adding($1.weight) }
    if head.norms.biases[name] != nil {
      gradient.headNormBiases[name] = pulled.reduce([Float](repeating: 0, count: norm.count)) { $0.adding($1.bias) }
    }
    return (gradient, pulled.map(\.rows))
  }

  /// What the sequences pull on the rows they were looked up in.
  private func pullTable(_ sequences: [[Int32]], _ above: [Matrix], into gradient: inout Gradient) throws {
    let weight = embedding.table.weight
    var table = gradient.table ?? Matrix(rows: weight.rows, columns: weight.columns)
    let lookup = PreparedEmbedding(embedding)
    for (tokens, states) in zip(sequences, above) {
      let below = try lookup.pullback(tokens, states)
      table.add(below, atRows: tokens.map { Int($0) }, weighedBy: Array(repeating: 1, count: tokens.count))
    }
    gradient.table = table
  }

  /// Goes through all that moves, in no order, and puts what `body` returns in its place; a vector is one row.
  package mutating func replaceNumbers(_ body: (ParameterName, Matrix) throws -> Matrix) rethrows {
    for index in blocks.indices { try blocks[index].replaceNumbers(body) }
    func vector(_ name: ParameterName, _ values: [Float]) throws -> [Float] {
      try body(name, Matrix(rows: 1, columns: values.count, elements: values)).elements
    }
    if movesNorms {
      for (name, weight) in head.norms.weights { head.norms.weights[name] = try vector(ParameterName(head.name + name, .norm), weight) }
      for (name, bias) in head.norms.biases { head.norms.biases[name] = try vector(ParameterName(head.name + name, .normBias), bias) }
    }
    guard movesTables else { return }
    embedding.table.weight = try body(ParameterName(embedding.name, .weight), embedding.table.weight.dense())
    if let headName { head[headName].weight = try body(ParameterName(head.fullName(of: headName), .weight), head[headName].weight.dense()) }
  }

  /// The numbers of all that moves.
  package var numbers: [(name: ParameterName, values: Matrix)] {
    var (copy, all) = (self, [(name: ParameterName, values: Matrix)]())
    copy.replaceNumbers { name, values in
      all.append((name, values))
      return values
    }
    return all
  }

  /// One step down a gradient.
  package mutating func step(_ gradient: Gradient, _ optimizer: inout AdamW, _ rates: StepRates, factor: Float = 1) {
    optimizer.begin()
    for index in blocks.indices { blocks[index].step(gradient.blocks[index], &optimizer, rates, factor: factor) }
    if movesNorms {
      for (name, pull) in gradient.headNorms {
        optimizer.update(
          &head.norms.weights[name]!, ParameterName(head.name + name, .norm), gradient: pull, rate: rates.numbers, factor: factor)
      }
      for (name, pull) in gradient.headNormBiases {
        optimizer.update(
          &head.norms.biases[name]!, ParameterName(head.name + name, .normBias), gradient: pull, rate: rates.numbers, factor: factor)
      }
    }
    guard movesTables else { return }
    if let pull = gradient.table { move(&embedding.table, embedding.name, pull, &optimizer, rates, factor) }
    if let pull = gradient.head, let headName { move(&head[headName], head.fullName(of: headName), pull, &optimizer, rates, factor) }
  }

  private func move(
    _ linear: inout Linear, _ name: String, _ pull: Matrix, _ optimizer: inout AdamW, _ rates: StepRates, _ factor: Float
  ) {
    var weight = linear.weight.dense()
    optimizer.update(&weight, ParameterName(name, .weight), gradient: pull, rate: rates.numbers, factor: factor)
    linear.weight = weight
  }
}
