import CompressKit
import Foundation
import TestSupport
import Testing

/// A fixture of `tools/golden/gptq.py`.
func fixture(_ name: String) throws -> JSON {
  let url = try #require(Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Fixtures"))
  return try JSON(parsing: Data(contentsOf: url))
}

/// tr(E·H·Eᵀ) with `damping` times the mean diagonal added to H = XᵀX, in double.
func loss(_ error: Matrix, _ x: Matrix, damping: Double = 0) -> Double {
  let mean = x.elements.reduce(0) { $0 + Double($1) * Double($1) } / Double(x.columns)
  var sum = 0.0
  for row in 0..<error.rows {
    for token in 0..<x.rows {
      let output = (0..<x.columns).reduce(0.0) { $0 + Double(error[row, $1]) * Double(x[token, $1]) }
      sum += output * output
    }
    sum += damping * mean * (0..<x.columns).reduce(0) { $0 + Double(error[row, $1]) * Double(error[row, $1]) }
  }
  return sum
}

func difference(_ a: Matrix, _ b: Matrix) -> Matrix {
  Matrix(rows: a.rows, columns: a.columns, elements: zip(a.elements, b.elements).map { $0 - $1 })
}
