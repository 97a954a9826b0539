import CompressKit
import TestSupport
import Testing

struct FamilyGenerationTests {
  /// Where frequencies depend on the sequence's length, a cache is made for the longest, and shorter sequences are other models.
  private static let families = Families.names.filter {
    !Families.encoders.contains($0) && !["llama-dynamic", "phi3-longrope"].contains($0)
  }

  /// Token by token through caches and states, as from whole sequences: the same logits, and the same tokens.
  @Test(arguments: families) func continuesAsTheWholeSequenceWould(_ name: String) throws {
    let model = try Families.model(name)
    var sequence = Array(TinyModel.sequences(1, length: 9)[0])
    var generator = try Generator(model, positions: 24)
    var logits = try generator.read(sequence)
    for _ in 0..<12 {
      let whole = try model.logits(of: sequence)
      let expected = whole.rows(sequence.count - 1..<sequence.count)
      #expect(Matrix(rows: 1, columns: logits.count, elements: logits).distance(to: expected) < 1e-4)
      var random = KeyedRandomness(seed: 1, key: name)
      let next = Sampling().token(from: logits, using: &random)
      #expect(next == Sampling().token(from: expected.elements, using: &random))
      sequence.append(next)
      logits = try generator.read([next])
    }
    let kept = model.description.blocks.flatMap(\.mixers).reduce(0) { bytes, mixer in
      bytes + (mixer is AttentionDescription ? 2 : 4) * mixer.stateSize(tokens: 21)
    }
    #expect(generator.cacheBytes == kept)
  }
}
