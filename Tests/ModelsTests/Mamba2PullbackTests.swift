import TestSupport
import Tensors
import Testing

@testable import Models

/// What the families of the fixtures do not reach: time steps at their bounds.
struct Mamba2PullbackTests {
  private func pull(steps: ClosedRange<Float>) throws -> (below: Matrix, pull: BlockPull) {
    let mixer = Mamba2(heads: 4, headSize: 3, groups: 2, stateSize: 5, taps: 4, epsilon: 1e-5, steps: steps)
    let parameters = mixer.parameters.map { parameter in
      (parameter.name, Matrix.random(rows: 1, columns: parameter.shape.reduce(1, *), key: parameter.name, scale: 0.5).elements)
    }
    let parts = MixerParts(
      block: "block", norm: NormDescription(epsilon: 1e-5), norms: [:], normBiases: [:],
      parameters: Dictionary(uniqueKeysWithValues: parameters), cache: nil, longest: 70, horizon: nil)
    let prepared = try #require(mixer.prepared(parts) as? any DifferentiableMixer)
    var pull = BlockPull()
    let below = prepared.pullback(
      [.random(rows: 70, columns: 48, key: "made")], .random(rows: 70, columns: 12, key: "gradient"), into: &pull)
    #expect(Set(pull.parameters.keys) == Set(mixer.parameters.map(\.name)))
    return (below[0], pull)
  }

  @Test func boundedStepsPassNothingOn() throws {
    let (free, wide, narrow) = (try pull(steps: 0 ... .infinity), try pull(steps: 1e-6...50), try pull(steps: 20...21))
    #expect(wide.below == free.below && wide.pull.parameters == free.pull.parameters)
    func steps(_ matrix: Matrix) -> [Float] { matrix.columns(in: [44..<48]).elements }
    #expect(steps(free.below).contains { $0 != 0 } && steps(narrow.below).allSatisfy { $0 == 0 })
    #expect(try #require(narrow.pull.parameters["mamba.dt_bias"]).allSatisfy { $0 == 0 })
    #expect(try #require(narrow.pull.parameters["mamba.conv1d.weight"]).contains { $0 != 0 })
  }
}
