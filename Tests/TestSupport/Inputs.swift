public import CompressKit

extension JSON {
  /// The array of rows of numbers in a fixture.
  public func matrix() throws -> Matrix {
    struct NoMatrix: Error { let json: String }
    let rows = try (elements ?? []).map { row in
      try (row.elements ?? []).map { number in
        guard let value = number.double else { throw NoMatrix(json: text()) }
        return Float(value)
      }
    }
    guard let width = rows.first?.count, rows.allSatisfy({ $0.count == width }) else { throw NoMatrix(json: text()) }
    return Matrix(rows: rows.count, columns: width, elements: rows.flatMap { $0 })
  }
}

/// Inputs whose features share directions and differ in size, as activations do.
public func correlated(tokens: Int, features: Int, key: String) -> Matrix {
  let directions = Matrix.random(rows: features, columns: max(1, features / 4), key: key + "directions")
  var x = Matrix.random(rows: tokens, columns: max(1, features / 4), key: key + "factors").times(transposed: directions)
  let noise = Matrix.random(rows: tokens, columns: features, key: key + "noise", scale: 0.5)
  for row in 0..<tokens {
    for column in 0..<features { x[row, column] = (x[row, column] + noise[row, column]) * (0.3 + Float(column % 7)) }
  }
  return x
}

public func hessian(_ x: Matrix) -> Hessian {
  var hessian = Hessian(features: x.columns)
  hessian.update(x)
  return hessian
}
