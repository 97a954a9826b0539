internal import Foundation
public import Tensors

extension MixtureDescription {
  /// The best experts of every token and what each counts; of equal scores the lower index wins.
  ///
  /// - Parameters:
  ///   - scores: the router's outputs, [tokens × experts].
  ///   - correction: what is added to the scores for the choice alone.
  ///   - scales: by expert, what its weights are multiplied by.
  func routes(scores: Matrix, correction: [Float]? = nil, scales: [Float]? = nil) -> [MixtureRouting.Route] {
    var routes = [MixtureRouting.Route](repeating: .init(), count: experts)
    if case .sparseMixer(let tolerance) = scoring {
      for token in 0..<scores.rows {
        for choice in sparseChoices(of: (0..<experts).map { scores[token, $0] }, tolerance: tolerance) {
          routes[choice.expert].tokens.append(token)
          routes[choice.expert].weights.append(choice.weight * weightScale)
        }
      }
      return routes
    }
    for token in 0..<scores.rows {
      let row = (0..<experts).map { scores[token, $0] }
      let (weights, total) = weights(of: row)
      let ranked = correction.map { zip(weights, $0).map { $0 / total + $1 } } ?? (addsWeights ? weights.map { $0 / total } : row)
      let open = groups.map { openExperts(ranked, $0) } ?? Array(row.indices)
      let chosen = open.sorted { (ranked[$0], $1) > (ranked[$1], $0) }.prefix(expertsPerToken)
      let share = normalizesWeights ? chosen.reduce(0) { $0 + weights[$1] / total } : 1
      for expert in chosen {
        routes[expert].tokens.append(token)
        routes[expert].weights.append(weights[expert] / total / share * weightScale * (scales?[expert] ?? 1))
      }
    }
    guard weighsInput else { return routes }
    return routes.map { .init(tokens: $0.tokens, weights: $0.weights.map { _ in 1 }, inputWeights: $0.weights) }
  }

  /// Whether the choice adds several of a group's weights, so that their order alone, which is that of the scores, is not enough.
  private var addsWeights: Bool { groups.map { $0.scored > 1 } ?? false }

  /// What each expert would count, and what all have to be divided by.
  func weights(of row: [Float]) -> (weights: [Float], total: Float) {
    switch scoring {
    case .softmax:
      let largest = row.max() ?? 0
      let powers = row.map { exp($0 - largest) }
      return (powers, powers.reduce(0, +))
    case .sigmoid: return (row.map { 1 / (1 + exp(-$0)) }, 1)
    case .sparseMixer: preconditionFailure("what an expert counts depends on which were chosen before it")
    }
  }

  /// The experts of the best groups, in ascending order.
  private func openExperts(_ scores: [Float], _ groups: Groups) -> [Int] {
    let size = experts / groups.count
    let values = (0..<groups.count).map { group in
      scores[group * size..<(group + 1) * size].sorted(by: >).prefix(groups.scored).reduce(0, +)
    }
    let best = values.indices.sorted { (values[$0], $1) > (values[$1], $0) }.prefix(groups.perToken)
    return best.sorted().flatMap { Array($0 * size..<($0 + 1) * size) }
  }
}

func exponential(_ x: Float) -> Float { exp(x) }

extension Matrix {
  /// Some rows, in the order given.
  package func rows(at indices: [Int]) -> Matrix {
    Matrix(rows: indices.count, columns: columns) { out in
      withUnsafeElements { elements in
        for (to, from) in indices.enumerated() {
          (out.baseAddress! + to * columns).update(from: elements + from * columns, count: columns)
        }
      }
    }
  }

  /// Some columns, range after range.
  public func columns(in ranges: [Range<Int>]) -> Matrix {
    let width = ranges.reduce(0) { $0 + $1.count }
    return Matrix(rows: rows, columns: width) { out in
      withUnsafeElements { elements in
        for row in 0..<rows {
          var to = row * width
          for range in ranges {
            (out.baseAddress! + to).update(from: elements + row * columns + range.lowerBound, count: range.count)
            to += range.count
          }
        }
      }
    }
  }

  /// Some rows replaced by those of `other`.
  package mutating func set(_ other: Matrix, atRows indices: [Int]) {
    let width = columns
    withUnsafeMutableElements { elements in
      other.withUnsafeElements { other in
        for (from, to) in indices.enumerated() { (elements + to * width).update(from: other + from * width, count: width) }
      }
    }
  }

  /// self[row] += weight · other's row, for every row of `other`.
  package mutating func add(_ other: Matrix, atRows indices: [Int], weighedBy weights: [Float]) {
    let width = columns
    withUnsafeMutableElements { elements in
      other.withUnsafeElements { other in
        for (from, to) in indices.enumerated() {
          let (target, source, weight) = (elements + to * width, other + from * width, weights[from])
          for column in 0..<width { target[column] += weight * source[column] }
        }
      }
    }
  }

  private mutating func clampedSwiglu(_ up: Matrix, gain: Float, limit: Float) {
    let count = elements.count
    withUnsafeMutableElements { gate in
      up.withUnsafeElements { up in
        for index in 0..<count {
          let clamped = min(gate[index], limit)
          gate[index] = clamped / (1 + exp(-gain * clamped)) * (max(-limit, min(up[index], limit)) + 1)
        }
      }
    }
  }

  /// self = act(self), multiplied by `up` where there is one.
  mutating func activate(_ activation: Activation, gating up: Matrix?) {
    switch activation {
    case .silu: siluGate(up ?? Matrix(rows: rows, columns: columns, repeating: 1))
    case .scaledSilu(let factor):
      scaleColumns(by: Array(repeating: factor, count: columns))
      siluGate(up ?? Matrix(rows: rows, columns: columns, repeating: 1))
    case .clampedSwiglu(let gain, let limit): clampedSwiglu(up ?? Matrix(rows: rows, columns: columns), gain: gain, limit: limit)
    case .geluTanh: geluTanhGate(up ?? Matrix(rows: rows, columns: columns, repeating: 1))
    case .xielu: preconditionFailure("xIELU has numbers of its layer's own")
    case .gelu:
      gelu()
      if let up { multiply(by: up) }
    case .relu, .reluSquared:
      relu()
      if activation == .reluSquared { multiply(by: self) }
      if let up { multiply(by: up) }
    }
  }
}
