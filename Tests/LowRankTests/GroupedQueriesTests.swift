import CompressKit
import Foundation
@testable import LowRank
import TestSupport
import Testing

struct GroupedQueriesTests {
  /// The tiny model with the second head's keys and values made from the first's: keys by an angle for each pair, values by a rotation.
  private func turned() throws -> Model {
    let base = try TinyModel.model(dtype: .bfloat16)
    return Model(description: base.description) { place in
      guard case .decoder(let index) = place else { return try base.part(place) }
      var block = try base.block(index)
      let (keys, values) = (block["self_attn.k_proj"].weight.dense(), block["self_attn.v_proj"].weight.dense())
      var second = keys.rows(0..<8)
      for pair in 0..<4 {
        let angle = 0.7 + Float(pair)
        for column in 0..<32 {
          let (x, y) = (keys[pair, column], keys[pair + 4, column])
          second[pair, column] = cos(angle) * x - sin(angle) * y
          second[pair + 4, column] = sin(angle) * x + cos(angle) * y
        }
      }
      block["self_attn.k_proj"].weight = Matrix(stacking: [keys.rows(0..<8), second])
      let rotation = DoubleMatrix(Matrix.random(rows: 8, columns: 8, key: "rotation")).orthogonalFactor()
      let turned = rotation.times(DoubleMatrix(values.rows(0..<8)))
      block["self_attn.v_proj"].weight = Matrix(
        stacking: [values.rows(0..<8), Matrix(rows: 8, columns: 32, elements: turned.elements.map { Float($0) })])
      return block
    }
  }

  private func error(_ options: String, _ model: Model) async throws -> Double {
    let (blocks, _) = try await sweep("{ gqa: { \(options) } }", model)
    #expect(blocks[0].description.attention?.keyValueHeads == 1 && blocks[0]["self_attn.k_proj"].weight.rows == 8)
    let table = try model.embedding()["embed_tokens"].weight.dense()
    let original = try model.block(0)
    var (sum, size) = (0.0, 0.0)
    for sequence in TinyModel.sequences(8, length: 48) {
      let start = Matrix(rows: 48, columns: 32, elements: sequence.flatMap { table.rows(Int($0)..<Int($0) + 1).elements })
      let own = try PreparedBlock(blocks[0], positions: 48).forward(start)
      let other = try PreparedBlock(original, positions: 48).forward(start)
      sum += zip(own.elements, other.elements).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
      size += zip(start.elements, other.elements).reduce(0.0) { $0 + pow(Double($1.0 - $1.1), 2) }
    }
    return sum / size
  }

  @Test(arguments: ["procrustes", "components"]) func headsThatDifferByTurnsMergeWithoutLoss(_ merge: String) async throws {
    let model = try turned()
    #expect(try await error("merge: \(merge), compensate: false", model) < 1e-8)
    #expect(try await error("merge: mean, compensate: false", model) > 1e-3)
  }

  @Test func compensationHelpsOnItsOwnData() async throws {
    let model = try TinyModel.model()
    for merge in ["mean", "procrustes", "components"] {
      let (with, without) = (
        try await error("merge: \(merge)", model), try await error("merge: \(merge), compensate: false", model)
      )
      #expect(with < without, "\(merge): \(with) \(without)")
    }
  }

  @Test func everyFreedomIsUsed() throws {
    let x = correlated(tokens: 300, features: 24, key: "heads")
    let y = DoubleMatrix(x).transposed().times(DoubleMatrix(x))
    let moments = HeadMoments(heads: 3, size: 8, moment: y)
    let mean = HeadMerge.mean(heads: 3, size: 8)
    let identity = DoubleMatrix(diagonal: [Double](repeating: 1, count: 8))
    let plain = moments.relativeError(mean.values, mean.outputs)
    let turned = moments.procrustes()
    let best = try #require(moments.components(roots: [identity, identity, identity]))
    let turns = moments.relativeError(turned.mean, turned.parts)
    let components = moments.relativeError(best.mean, best.parts)
    #expect(components < turns && turns < plain, "\(components) \(turns) \(plain)")
    // The components' loss is the tail of the spectrum.
    let spectrum = Oracle.singularValues(Oracle.rows(x)).map { $0 * $0 }
    #expect(abs(components / (spectrum.dropFirst(8).reduce(0, +) / spectrum.reduce(0, +)) - 1) < 1e-6)
    for part in turned.parts {
      for (a, b) in zip(part.transposed().times(part).elements, identity.elements) { #expect(abs(a - b) < 1e-10) }
    }

    let ones = [[Double]](repeating: [1, 1, 1, 1], count: 3)
    let angles = try #require(moments.pairs(weights: ones, onlyTurns: true))
    let complex = try #require(moments.pairs(weights: ones, onlyTurns: false))
    let (first, second) = (moments.relativeError(angles.mean, angles.parts), moments.relativeError(complex.mean, complex.parts))
    #expect(second < first && first < plain, "\(second) \(first) \(plain)")
  }

  @Test func aMatrixWithoutFullRankHasAnOrthogonalFactor() {
    let thin = DoubleMatrix(Matrix.random(rows: 6, columns: 2, key: "thin"))
    let factor = thin.times(thin.transposed()).orthogonalFactor()
    for (index, value) in factor.times(factor.transposed()).elements.enumerated() { #expect(abs(value - (index % 7 == 0 ? 1 : 0)) < 1e-10) }
  }

  @Test(arguments: [("key_value_heads: 3", "no smaller divisor"), ("key_value_heads: 2", "no smaller divisor")])
  func headsThatDoNotDivideAreRefused(_ options: String, _ words: String) async throws {
    let error = await #expect(throws: PipelineError.self) { _ = try await sweep("{ gqa: { \(options) } }", try TinyModel.model()) }
    #expect("\(error!)".contains(words))
  }
}
