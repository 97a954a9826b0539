import CompressKit
import Foundation
import TestSupport

/// Plain definitions in double precision, without LAPACK.
enum Oracle {
  typealias Rows = [[Double]]

  static func rows(_ matrix: Matrix) -> Rows {
    (0..<matrix.rows).map { row in (0..<matrix.columns).map { Double(matrix[row, $0]) } }
  }

  static func product(_ a: Rows, _ b: Rows) -> Rows {
    a.map { row in b[0].indices.map { column in row.indices.reduce(0.0) { $0 + row[$1] * b[$1][column] } } }
  }

  static func transposed(_ a: Rows) -> Rows { a[0].indices.map { column in a.map { $0[column] } } }

  static func gram(_ x: Rows) -> Rows { product(transposed(x), x) }

  /// ‖E·Xᵀ‖² for inputs in the rows of X.
  static func loss(_ error: Rows, _ x: Rows) -> Double { product(error, transposed(x)).joined().reduce(0) { $0 + $1 * $1 } }

  static func difference(_ a: Rows, _ b: Rows) -> Rows { zip(a, b).map { zip($0, $1).map { $0 - $1 } } }

  /// The lower triangle L with A = L·Lᵀ.
  static func cholesky(_ a: Rows) -> Rows {
    var l = a.map { $0.map { _ in 0.0 } }
    for i in a.indices {
      for j in 0...i {
        let sum = (0..<j).reduce(a[i][j]) { $0 - l[i][$1] * l[j][$1] }
        l[i][j] = i == j ? sum.squareRoot() : sum / l[j][j]
      }
    }
    return l
  }

  /// Singular values, largest first: one-sided Jacobi rotations of the rows until they are orthogonal (Hestenes 1958).
  static func singularValues(_ matrix: Rows) -> [Double] {
    var a = matrix.count <= matrix[0].count ? matrix : transposed(matrix)
    for _ in 0..<60 {
      var off = 0.0
      for p in a.indices {
        for q in 0..<p {
          let (x, y) = (a[p].reduce(0) { $0 + $1 * $1 }, a[q].reduce(0) { $0 + $1 * $1 })
          let z = zip(a[p], a[q]).reduce(0.0) { $0 + $1.0 * $1.1 }
          guard z != 0 else { continue }
          off = max(off, abs(z) / (x * y).squareRoot())
          let tau = (y - x) / (2 * z)
          let t = (tau < 0 ? -1 : 1) / (abs(tau) + (1 + tau * tau).squareRoot())
          let c = 1 / (1 + t * t).squareRoot()
          for k in a[p].indices { (a[p][k], a[q][k]) = (c * a[p][k] - c * t * a[q][k], c * t * a[p][k] + c * a[q][k]) }
        }
      }
      if off < 1e-14 { break }
    }
    return a.map { $0.reduce(0) { $0 + $1 * $1 }.squareRoot() }.sorted(by: >)
  }
}

actor Collected: PartSink {
  var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }
}

/// Runs a recipe's passes on a model in memory, of which the blocks are kept.
func sweep(
  _ passes: String, _ model: Model, sequences: Int = 8
) async throws -> (blocks: [Block], report: Report) {
  let recipe = try Recipe(yaml: "passes: [ \(passes) ]", file: "test", passes: .standard)
  let pipeline = Pipeline(recipe.passes)
  _ = try pipeline.plan(for: model)
  let sink = Collected()
  let report = try await pipeline.run(
    on: model, options: SweepOptions(calibration: TinyModel.sequences(sequences, length: 48)), into: sink)
  return (await sink.parts.decoders, report)
}
