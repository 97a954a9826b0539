package import Tensors

/// The token embedding, ready to be looked up.
package struct PreparedEmbedding: Sendable {
  private let lookup: @Sendable (Int) -> [Float]
  private let rows: Int
  private let columns: Int
  private let scale: Float
  private let positions: StoredWeight?
  private let firstPosition: Int
  /// What every token is of.
  private let tokenType: [Float]?
  private let norm: (description: NormDescription, weight: [Float], bias: [Float]?)?
  private let name: String

  package init(_ embedding: Embedding) {
    name = embedding.name
    let weight = embedding.table.weight
    rows = weight.rows
    columns = weight.columns
    scale = embedding.table.storageType.rounded(embedding.description.scale)
    positions = embedding.positions
    firstPosition = embedding.description.positions?.offset ?? 0
    tokenType = embedding.tokenTypes?.dense(rows: 0..<1).elements
    norm = embedding.norms.weights.first.map { (embedding.norm, $1, embedding.norms.biases[$0]) }
    if let stored = weight as? StoredWeight {
      // Rows are read where they are mapped: the table of a large vocabulary is never expanded.
      lookup = { stored.tensor.floats(rows: $0..<$0 + 1) }
    } else if let blocks = weight as? BlockQuantizedMatrix {
      lookup = { blocks.dense(rows: $0..<$0 + 1).elements }
    } else if let foreign = weight as? ForeignWeight {
      lookup = { foreign.dense(row: $0) }
    } else {
      let table = weight.dense()
      lookup = { Array(table.elements[$0 * table.columns..<($0 + 1) * table.columns]) }
    }
  }

  /// - Parameter first: where the first token stands in its sequence.
  /// - Returns: [tokens × hidden size].
  /// - Throws: `TokenOutOfRange`, `SequenceTooLong`, and `NonFiniteActivation` where scale, positions or norm make of finite rows what is not.
  package func callAsFunction(_ tokens: [Int32], at first: Int = 0) throws -> Matrix {
    var states = try summed(tokens, at: first)
    if let norm { states = norm.description.apply(states, weight: norm.weight, bias: norm.bias) }
    guard states.isFinite else { throw NonFiniteActivation(block: name, layer: "the embedding") }
    return states
  }

  /// What the norm reads, where there is one.
  private func summed(_ tokens: [Int32], at first: Int) throws -> Matrix {
    var elements: [Float] = []
    elements.reserveCapacity(tokens.count * columns)
    for token in tokens {
      guard (0..<rows).contains(Int(token)) else { throw TokenOutOfRange(token: token, vocabularySize: rows) }
      elements += lookup(Int(token))
    }
    if scale != 1 { for index in elements.indices { elements[index] *= scale } }
    var states = Matrix(rows: tokens.count, columns: columns, elements: elements)
    if let positions {
      let range = firstPosition + first..<firstPosition + first + tokens.count
      guard range.upperBound <= positions.rows else {
        throw SequenceTooLong(tokens: first + tokens.count, positions: positions.rows - firstPosition)
      }
      states.add(positions.dense(rows: range))
    }
    if let tokenType { states.add(row: tokenType) }
    return states
  }
}

extension PreparedEmbedding {
  /// The way back: from the gradient of what entered the first block to that of the rows that were looked up.
  ///
  /// - Returns: [tokens × hidden size].
  /// - Throws: as the way there.
  package func pullback(_ tokens: [Int32], _ gradient: Matrix) throws -> Matrix {
    let below = try norm.map { $0.description.pullback(try summed(tokens, at: 0), weight: $0.weight, gradient: gradient).rows } ?? gradient
    return scale == 1 ? below : below.scaled(by: scale)
  }
}

/// A token id that the model has no embedding for.
public struct TokenOutOfRange: Error, Equatable, Sendable, CustomStringConvertible {
  public let token: Int32
  public let vocabularySize: Int

  public init(token: Int32, vocabularySize: Int) {
    self.token = token
    self.vocabularySize = vocabularySize
  }

  public var description: String {
    "token id \(token) is outside the model's vocabulary of \(vocabularySize); was the text tokenized for another model?"
  }
}

/// More tokens than the model has learned positions.
public struct SequenceTooLong: Error, Equatable, Sendable, CustomStringConvertible {
  public let tokens: Int
  public let positions: Int

  public init(tokens: Int, positions: Int) {
    self.tokens = tokens
    self.positions = positions
  }

  public var description: String { "a sequence of \(tokens) tokens; the model has learned \(positions) positions" }
}
