import CompressKit
import TestSupport
import Testing

struct RecordedLogitsTests {
  private static let common = """
    "vocab_size":64,"hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":4
    """

  @Test(arguments: recordedLogits.indices) func agreesWithTransformers(_ index: Int) throws {
    let (keys, expected, argmax) = recordedLogits[index]
    // Families with other names for their sizes take what they know of the common ones; OPT's and GPT-2's inner sizes are their own.
    let model = try TinyModel.model("{\(Self.common),\(keys)}")
    let logits = try model.logits(of: [3, 5, 9, 2, 7, 31, 11, 4])
    let last = logits.rows(7..<8).elements
    for (found, wanted) in zip(last, expected) { #expect(abs(found - wanted) <= 2e-5) }
    #expect(last.firstIndex(of: try #require(last.max())) == argmax)
  }
}
