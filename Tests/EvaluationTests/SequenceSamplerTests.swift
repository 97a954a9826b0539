import CompressKit
import TestSupport
import Testing

@Suite struct SequenceSamplerTests {
  @Test func drawsTheSameWhateverTheNumber() throws {
    let sampler = try SequenceSampler(try TinyModel.model(), length: 12)
    let many = try sampler.sequences(35, beginning: [1], ends: [], sampling: Sampling(temperature: 1), seed: 7)
    #expect(many.count == 35)
    #expect(many.allSatisfy { $0.count == 12 && $0[0] == 1 })
    #expect(Set(many).count > 30, "they differ from each other")
    #expect(try sampler.sequences(3, beginning: [1], ends: [], sampling: Sampling(temperature: 1), seed: 7) == Array(many.prefix(3)))
    #expect(try sampler.sequences(3, beginning: [1], ends: [], sampling: Sampling(temperature: 1), seed: 8) != Array(many.prefix(3)))
  }

  @Test func theMostLikelyIsWhatTheGeneratorSays() throws {
    let model = try TinyModel.model()
    let drawn = try SequenceSampler(model, length: 10).sequences(2, beginning: [1, 5], ends: [], sampling: Sampling(), seed: 0)
    var generator = try Generator(model, positions: 10)
    var expected: [Int32] = [1, 5]
    var logits = try generator.read(expected)
    var random = SystemRandomNumberGenerator()
    while expected.count < 10 {
      expected.append(Sampling().token(from: logits, using: &random))
      if expected.count < 10 { logits = try generator.read([expected[expected.count - 1]]) }
    }
    #expect(drawn == [expected, expected])
  }

  @Test func anEndBeginsAnew() throws {
    let sampler = try SequenceSampler(try TinyModel.model(), length: 9)
    let all = Set(0..<Int32(64))
    let sequences = try sampler.sequences(2, beginning: [1, 2], ends: all, sampling: Sampling(temperature: 1), seed: 1)
    #expect(sequences.allSatisfy { [$0[0], $0[1], $0[3], $0[4], $0[6], $0[7]] == [1, 2, 1, 2, 1, 2] && $0.count == 9 })
  }

  @Test func withoutABeginningTheFirstIsDrawn() throws {
    let sampler = try SequenceSampler(try TinyModel.model(), length: 3)
    let firsts = try sampler.sequences(40, beginning: [], ends: [], sampling: Sampling(temperature: 1), seed: 1).map { $0[0] }
    #expect(Set(firsts).count > 20)
    #expect(firsts.allSatisfy { (0..<64).contains($0) })
  }
}
