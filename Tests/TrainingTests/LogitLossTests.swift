import CompressKit
import Foundation
import TestSupport
import Testing

/// Losses and their gradients against definitions in double precision and their central differences.
struct LogitLossTests {
  struct Case: CustomTestStringConvertible, Sendable {
    let name: String
    let loss: any LogitLoss
    let definition: @Sendable (_ student: [Double], _ teacher: [Double], _ next: Int) -> Double
    var testDescription: String { name }
  }

  private static func softmax(_ logits: [Double], _ temperature: Double) -> [Double] {
    let powers = logits.map { exp(($0 - logits.max()!) / temperature) }
    return powers.map { $0 / powers.reduce(0, +) }
  }

  private static func divergence(_ p: [Double], _ q: [Double]) -> Double { zip(p, q).reduce(0) { $0 + $1.0 * log($1.0 / $1.1) } }

  static let cases: [Case] = [
    Case(name: "cross-entropy", loss: CrossEntropy()) { student, _, next in -log(softmax(student, 1)[next]) },
    Case(name: "forward", loss: ForwardDivergence()) { student, teacher, _ in divergence(softmax(teacher, 1), softmax(student, 1)) },
    Case(name: "forward at 2", loss: ForwardDivergence(temperature: 2)) { student, teacher, _ in
      4 * divergence(softmax(teacher, 2), softmax(student, 2))
    },
    Case(name: "reverse at 1.5", loss: ReverseDivergence(temperature: 1.5)) { student, teacher, _ in
      2.25 * divergence(softmax(student, 1.5), softmax(teacher, 1.5))
    },
    Case(name: "Jensen-Shannon", loss: JensenShannonDivergence(beta: 0.3, temperature: 2)) { student, teacher, _ in
      let (p, q) = (softmax(teacher, 2), softmax(student, 2))
      let middle = zip(p, q).map { 0.3 * $0 + 0.7 * $1 }
      return 4 * (0.3 * divergence(p, middle) + 0.7 * divergence(q, middle))
    },
    Case(name: "mixed", loss: MixedLoss(ForwardDivergence(), share: 0.75)) { student, teacher, next in
      0.75 * divergence(softmax(teacher, 1), softmax(student, 1)) - 0.25 * log(softmax(student, 1)[next])
    },
  ]

  @Test(arguments: cases) func gradientsAreCentralDifferences(_ tested: Case) throws {
    let count = 37
    let student = Matrix.random(rows: 1, columns: count, key: "student").elements
    let teacher = Matrix.random(rows: 1, columns: count, key: "teacher").elements
    var (own, other) = (student, teacher)
    let found = try #require(
      own.withUnsafeMutableBufferPointer { own in
        other.withUnsafeMutableBufferPointer { tested.loss.pull(own.baseAddress!, teacher: $0.baseAddress!, next: 5, count: count) }
      })
    let (s, t) = (student.map(Double.init), teacher.map(Double.init))
    #expect(abs(found - tested.definition(s, t, 5)) < 2e-5)
    for index in 0..<count {
      var (up, down) = (s, s)
      up[index] += 1e-5
      down[index] -= 1e-5
      let slope = (tested.definition(up, t, 5) - tested.definition(down, t, 5)) / 2e-5
      #expect(abs(Double(own[index]) - slope) < 1e-5, "logit \(index)")
    }
  }

  @Test func behindTheLastTokenThereIsNoCrossEntropy() {
    var logits: [Float] = [1, 2, 3]
    let found = logits.withUnsafeMutableBufferPointer { CrossEntropy().pull($0.baseAddress!, teacher: nil, next: nil, count: 3) }
    #expect(found == nil && logits == [0, 0, 0])
  }

  @Test func rateRisesAndFalls() {
    let rate = LearningRate(peak: 2, decay: .cosine, warmUp: 0.1, last: 0.25)
    let all = (0..<100).map { rate($0, of: 100) }
    #expect(all[0] < 0.2 && all[10] == 2 && abs(all[99] - 0.5) < 0.01)
    #expect(zip(all[..<10], all[1...10]).allSatisfy { $0 < $1 } && zip(all[10..<99], all[11...]).allSatisfy { $0 > $1 })
    let line = LearningRate(peak: 1, decay: .linear, warmUp: 0, last: 0)
    #expect(line(50, of: 100) == 0.5 && LearningRate(peak: 1, decay: .constant, warmUp: 0)(99, of: 100) == 1)
  }
}
