import CompressKit
import Foundation
import TestSupport
import Testing

/// A sink that keeps what it is given.
actor Blocks: PartSink {
  private(set) var all: [any ModelPart] = []
  func append(_ part: any ModelPart) { all.append(part) }

  static func swept(_ passes: [any Pass], _ config: String = TinyModel.config, sequences: Int = 6) async throws -> ([any ModelPart], Report)
  {
    let sink = Blocks()
    let options = SweepOptions(calibration: TinyModel.sequences(sequences, length: 32))
    let report = try await Pipeline(passes).run(on: TinyModel.model(config), options: options, into: sink)
    return (await sink.all, report)
  }
}

/// A fixture of `tools/golden/sparsity.py`.
func fixture(_ name: String) throws -> JSON {
  let url = try #require(Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Fixtures"))
  return try JSON(parsing: Data(contentsOf: url))
}

/// H = XᵀX with `damping` times its mean diagonal added, in double.
func damped(_ x: Matrix, _ damping: Double) -> [[Double]] {
  let size = x.columns
  var h = [[Double]](repeating: [Double](repeating: 0, count: size), count: size)
  for token in 0..<x.rows {
    for i in 0..<size { for j in 0..<size { h[i][j] += Double(x[token, i]) * Double(x[token, j]) } }
  }
  let mean = (0..<size).reduce(0) { $0 + h[$1][$1] } / Double(size)
  for i in 0..<size { h[i][i] += damping * mean }
  return h
}

/// The inverse by Gauss and Jordan.
func inverse(_ matrix: [[Double]]) -> [[Double]] {
  let size = matrix.count
  var (a, b) = (matrix, (0..<size).map { i in (0..<size).map { $0 == i ? 1.0 : 0 } })
  for column in 0..<size {
    let pivot = (column..<size).max { abs(a[$0][column]) < abs(a[$1][column]) }!
    a.swapAt(column, pivot)
    b.swapAt(column, pivot)
    let scale = 1 / a[column][column]
    for k in 0..<size { (a[column][k], b[column][k]) = (a[column][k] * scale, b[column][k] * scale) }
    for row in 0..<size where row != column {
      let factor = a[row][column]
      guard factor != 0 else { continue }
      for k in 0..<size {
        a[row][k] -= factor * a[column][k]
        b[row][k] -= factor * b[column][k]
      }
    }
  }
  return b
}

/// tr(E·H·Eᵀ) in double.
func loss(_ error: [[Double]], _ h: [[Double]]) -> Double {
  error.reduce(0) { sum, row in
    sum + row.indices.reduce(0) { partial, i in partial + row[i] * row.indices.reduce(0) { $0 + h[i][$1] * row[$1] } }
  }
}

extension Matrix {
  var doubles: [[Double]] { (0..<rows).map { row in (0..<columns).map { Double(self[row, $0]) } } }
}

func difference(_ a: Matrix, _ b: Matrix) -> [[Double]] {
  (0..<a.rows).map { row in (0..<a.columns).map { Double(a[row, $0]) - Double(b[row, $0]) } }
}
