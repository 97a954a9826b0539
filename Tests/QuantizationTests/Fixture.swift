import CompressKit
import Foundation
import TestSupport
import Testing

/// A fixture of `tools/golden/gptq.py`.
func fixture(_ name: String) throws -> JSON {
  let url = try #require(Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Fixtures"))
  return try JSON(parsing: Data(contentsOf: url))
}

extension JSON {
  func matrix() throws -> Matrix {
    let rows = try #require(elements).map { try #require($0.elements).map { Float(try #require($0.double)) } }
    return Matrix(rows: rows.count, columns: rows[0].count, elements: rows.flatMap { $0 })
  }
}

/// Inputs whose features share directions and differ in size, as activations do.
func correlated(tokens: Int, features: Int, key: String) -> Matrix {
  let directions = Matrix.random(rows: features, columns: max(1, features / 4), key: key + "directions")
  var x = Matrix.random(rows: tokens, columns: max(1, features / 4), key: key + "factors").times(transposed: directions)
  let noise = Matrix.random(rows: tokens, columns: features, key: key + "noise", scale: 0.5)
  for row in 0..<tokens {
    for column in 0..<features { x[row, column] = (x[row, column] + noise[row, column]) * (0.3 + Float(column % 7)) }
  }
  return x
}

func hessian(_ x: Matrix) -> Hessian {
  var hessian = Hessian(features: x.columns)
  hessian.update(x)
  return hessian
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
