import Tensors
import TestSupport
import Testing

/// Lengths on both sides of every vector width.
let sizes = [1, 2, 7, 15, 16, 17, 31, 33, 64, 255, 4096, 4097]

/// Expects as many numbers, each within a share of what is expected and a number besides.
func expectClose<Value: FloatingPoint>(
  _ found: [Value], _ expected: [Value], relative: Value = 0, absolute: Value = 0, _ note: String = "",
  sourceLocation: SourceLocation = #_sourceLocation
) {
  #expect(found.count == expected.count, sourceLocation: sourceLocation)
  let worst = zip(found, expected).enumerated().first { !(abs($1.0 - $1.1) <= absolute + relative * abs($1.1)) }
  #expect(worst == nil, "\(note)", sourceLocation: sourceLocation)
}

func values(_ count: Int, _ key: String, scale: Float = 1) -> [Float] {
  Matrix.random(rows: 1, columns: count, key: key, scale: scale).elements
}
