package import Models
package import Passes
package import Tensors

/// How sparse each block becomes.
public enum SparsityAllocation: String, Sendable, Codable, CaseIterable {
  /// All alike.
  case uniform
  /// Blocks with more outliers keep more weights (OWL, Yin et al. 2023).
  case owl
}

/// How many of each block's scores |w|·‖x‖ stand out in the original model.
package struct OutlierDistribution: Analysis {
  let threshold: Double
  let layers: LayerSelector

  package struct Answer: Sendable, Codable {
    package struct Entry: Sendable, Codable {
      package var block: String
      package var weights: Int
      /// The share of scores above `threshold` times their mean over the block.
      package var outliers: Double
      /// The linears that have no scores, because no token reached them.
      package var unreached: [LinearName]

      package init(block: String, weights: Int, outliers: Double, unreached: [LinearName] = []) {
        (self.block, self.weights, self.outliers, self.unreached) = (block, weights, outliers, unreached)
      }
    }

    package var entries: [Entry]

    package init(entries: [Entry]) { self.entries = entries }

    /// The share of weights a block loses: `target` minus what its outliers exceed the mean by, after the outliers of all blocks were
    /// stretched to a range of 2·`limit`. The mean is by weights, so that the whole model meets the target.
    package func share(of block: String, target: Double, limit: Double) -> Double {
      let values = entries.map(\.outliers)
      guard let entry = entries.first(where: { $0.block == block }), let low = values.min(), let high = values.max(), high > low else {
        return target
      }
      func stretched(_ outliers: Double) -> Double { (outliers - low) / (high - low) * 2 * limit }
      let total = entries.reduce(0) { $0 + $1.weights }
      let mean = entries.reduce(0) { $0 + stretched($1.outliers) * Double($1.weights) } / Double(max(1, total))
      return min(max(target - (stretched(entry.outliers) - mean), 0), 0.999)
    }
  }

  package func answer(for model: Model, in context: AnalysisContext) async throws -> Answer {
    guard !context.calibration.isEmpty else { throw MissingCalibration() }
    if context.isRehearsal { return Answer(entries: []) }
    let stream = try CalibrationStream(
      context.calibration, description: model.description, memory: context.activationMemory, scratch: context.scratch)
    let walk = ModelWalk(model)
    try stream.embed(try walk.embedding())
    var answer = Answer(entries: [])
    try walk.visit(progress: context.progress) { _, block in
      var (scores, unreached, weights) = ([Matrix](), [LinearName](), 0)
      for group in block.groups(layers) {
        let norms = try stream.statistic(InputNorm.self, of: group, in: block)
        weights += group.linears.reduce(0) { $0 + block[$1].weight.rows * block[$1].weight.columns }
        guard norms.tokens > 0 else {
          unreached += group.linears
          continue
        }
        for name in group.linears { scores.append(block[name].weight.dense().magnitudes(times: norms.values)) }
      }
      if !scores.isEmpty {
        answer.entries.append(
          .init(
            block: block.name, weights: weights, outliers: Self.outliers(of: scores, above: threshold), unreached: unreached))
      }
      _ = try stream.finish(block)
    }
    return answer
  }

  /// The share of all elements that exceed `threshold` times the mean of all.
  package static func outliers(of scores: [Matrix], above threshold: Double) -> Double {
    let count = scores.reduce(0) { $0 + $1.elements.count }
    guard count > 0 else { return 0 }
    let sum = scores.reduce(0.0) { $0 + $1.elements.reduce(0.0) { $0 + Double($1) } }
    let bar = Float(threshold * sum / Double(count))
    return Double(scores.reduce(0) { $0 + $1.elements.count { $0 > bar } }) / Double(count)
  }
}
