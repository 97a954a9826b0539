import CompressKit
import Foundation
import TestSupport
import Testing

@testable import Models

struct XIELUTests {
  /// αp, αn, β and ε as released checkpoints hold them, and a limit that many inputs lie on either side of.
  private static let layers: [[Float]] = [[0.2, -1.1, 0.5, -1e-6], [-0.7, 0.9, 0.3, -0.4], [25, -30, 0.5, 0.1]]

  /// The definition, in double precision.
  private func expected(_ x: Double, _ stored: [Double]) -> Double {
    func softplus(_ x: Double) -> Double { log(1 + exp(x)) }
    if x > 0 { return softplus(stored[0]) * x * x + stored[2] * x }
    return (stored[2] + softplus(stored[1])) * (exp(min(x, stored[3])) - 1 - x) + stored[2] * x
  }

  @Test(arguments: layers) func isWhatItsDefinitionSays(_ stored: [Float]) {
    var matrix = Matrix.random(rows: 7, columns: 9, key: "inputs")
    let inputs = matrix.elements
    XIELU(stored).apply(to: &matrix)
    for (input, output) in zip(inputs, matrix.elements) {
      let exact = expected(Double(input), stored.map(Double.init))
      #expect(abs(Double(output) - exact) < 1e-5 * max(1, abs(exact)))
    }
  }

  @Test(arguments: layers) func theWayBackIsTheSlope(_ stored: [Float]) {
    let inputs = Matrix.random(rows: 7, columns: 9, key: "inputs")
    let gradient = Matrix.random(rows: 7, columns: 9, key: "gradient")
    let found = XIELU(stored).pullback(inputs, gradient: gradient)
    let exact = stored.map(Double.init)
    func slope(_ value: (Double) -> Double) -> Double { (value(1e-5) - value(-1e-5)) / 2e-5 }
    for index in inputs.elements.indices {
      let x = Double(inputs.elements[index])
      // Where two pieces meet there is no slope.
      guard abs(x) > 1e-4, abs(x - exact[3]) > 1e-4 else { continue }
      let expected = Double(gradient.elements[index]) * slope { self.expected(x + $0, exact) }
      #expect(abs(Double(found.input.elements[index]) - expected) < 1e-4 * max(1, abs(expected)))
    }
    for place in 0..<2 {
      let sum = slope { step in
        var moved = exact
        moved[place] += step
        return zip(inputs.elements, gradient.elements).reduce(0) { $0 + Double($1.1) * self.expected(Double($1.0), moved) }
      }
      #expect(abs(Double(found.learned[place]) - sum) < 1e-4 * max(1, abs(sum)))
    }
  }
}
