import Foundation
import TestSupport
import Tensors

@testable import Models

/// What the linear attention of tests reads.
struct LinearAttentionInputs {
  static let attention = LinearAttention(heads: 4, keyHeads: 2, keySize: 5, valueSize: 3)

  let queries, keys, values, decays, strengths: Matrix

  init(tokens: Int, decay: Float) {
    queries = .random(rows: tokens, columns: 10, key: "queries")
    var keys = Matrix.random(rows: tokens, columns: 10, key: "keys")
    // The delta rule is stable for keys of length one.
    for row in 0..<tokens {
      for head in 0..<2 {
        let length = (0..<5).reduce(Float(0)) { $0 + keys[row, head * 5 + $1] * keys[row, head * 5 + $1] }.squareRoot()
        for column in 0..<5 { keys[row, head * 5 + column] /= length }
      }
    }
    self.keys = keys
    values = .random(rows: tokens, columns: 12, key: "values")
    let random = Matrix.random(rows: tokens, columns: 8, key: "decays")
    decays = Matrix(rows: tokens, columns: 4, elements: (0..<tokens * 4).map { -decay * abs(random[$0 / 4, $0 % 4]) })
    strengths = Matrix(rows: tokens, columns: 4, elements: (0..<tokens * 4).map { 1 / (1 + exp(-random[$0 / 4, 4 + $0 % 4])) })
  }

  func rows(_ range: Range<Int>) -> (Matrix, Matrix, Matrix, Matrix, Matrix) {
    (queries.rows(range), keys.rows(range), values.rows(range), decays.rows(range), strengths.rows(range))
  }
}

/// The same attention token by token, in double precision.
struct LinearAttentionRecurrence {
  struct Memory {
    var elements = [Double](repeating: 0, count: 4 * 5 * 3)
  }

  let tokens: Int
  var queries, keys, values, decays: [Double]
  /// `nil` without the delta rule.
  var strengths: [Double]?

  init(_ inputs: LinearAttentionInputs, isDelta: Bool) {
    tokens = inputs.queries.rows
    func doubles(_ matrix: Matrix) -> [Double] { matrix.elements.map { Double($0) } }
    (queries, keys, values, decays) = (doubles(inputs.queries), doubles(inputs.keys), doubles(inputs.values), doubles(inputs.decays))
    strengths = isDelta ? doubles(inputs.strengths) : nil
  }

  /// One token's outputs, [heads × value size].
  func advance(_ token: Int, _ memory: inout Memory) -> [Double] {
    var outputs = [Double](repeating: 0, count: 12)
    for head in 0..<4 {
      let (place, start) = (token * 10 + head / 2 * 5, head * 15)
      let fade = exp(decays[token * 4 + head])
      for index in start..<start + 15 { memory.elements[index] *= fade }
      for column in 0..<3 {
        var update = values[token * 12 + head * 3 + column]
        if let strengths {
          for row in 0..<5 { update -= keys[place + row] * memory.elements[start + row * 3 + column] }
          update *= strengths[token * 4 + head]
        }
        for row in 0..<5 {
          memory.elements[start + row * 3 + column] += keys[place + row] * update
          outputs[head * 3 + column] += queries[place + row] * memory.elements[start + row * 3 + column]
        }
      }
    }
    return outputs
  }

  func run() -> (outputs: [[Double]], memory: [Double]) {
    var memory = Memory()
    let outputs = (0..<tokens).map { advance($0, &memory) }
    return (outputs, memory.elements)
  }

  /// Σ weights · outputs from a token on.
  ///
  /// - Parameter memory: before it.
  func loss(from token: Int, _ memory: Memory, weights: Matrix) -> Double {
    var memory = memory
    return (token..<tokens).reduce(0.0) { sum, token in
      advance(token, &memory).enumerated().reduce(sum) { $0 + Double(weights[token, $1.offset]) * $1.element }
    }
  }
}
