import CheckpointIO
import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing

struct Llama2CFileTests {
  /// A model of the sizes given, its numbers counted up.
  private func bytes(_ header: [Int32], version: Int32? = nil, isTied: Bool = true, floats: Int) -> Data {
    var numbers = header
    if let version { numbers.insert(contentsOf: [0x616B_3432, version], at: 0) }
    var data = numbers.withUnsafeBytes { Data($0) }
    if version != nil { data += Data([isTied ? 1 : 0]) + Data(count: 256 - 37) }
    return data + (0..<floats).map { Float($0) }.withUnsafeBytes { Data($0) }
  }

  private func open(_ bytes: Data) throws -> Llama2CFile {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "model.bin")
      try bytes.write(to: url)
      return try Llama2CFile(url)
    }
  }

  /// Width 4, feed-forward 3, 1 layer, 2 heads over 1, vocabulary 5, 2 positions: 20 + 4 + 16 + 8 + 8 + 16 + 4 + 36 + 4 numbers and the angles.
  private static let sizes: [Int32] = [4, 3, 1, 2, 1, 5, 2]

  @Test func bothFormsAndBothHeads() throws {
    do {
      let file = try open(bytes(Self.sizes, floats: 116 + 4))
      #expect(file.names.count == 11 && file.info("lm_head.weight") == nil)
      #expect(try file.tensor("model.layers.0.mlp.up_proj.weight").floats() == (100..<112).map { Float($0) })
      // Rows 0 2 1 3 of a head of four; these heads have two rows, whose order is the same in both conventions.
      #expect(try file.tensor("model.layers.0.self_attn.q_proj.weight").floats() == (24..<40).map { Float($0) })
      #expect(try file.config().json["tie_word_embeddings"]?.bool == true)
    }
    var untied = Self.sizes
    untied[5] = -5
    do {
      let file = try open(bytes(untied, floats: 116 + 4 + 20))
      #expect(try file.tensor("lm_head.weight").floats() == (120..<140).map { Float($0) })
      #expect(try file.config().json["vocab_size"]?.integer == 5)
    }
    do {
      let file = try open(bytes(Self.sizes, version: 1, floats: 116))
      #expect(try file.tensor("model.norm.weight").floats() == [8, 9, 10, 11])
      #expect(try file.tensor("model.embed_tokens.weight").floats() == (12..<32).map { Float($0) })
    }
    do {
      let file = try open(bytes(Self.sizes, version: 1, isTied: false, floats: 136))
      #expect(try file.tensor("lm_head.weight").floats() == (116..<136).map { Float($0) })
    }
  }

  @Test func rowsOfAHeadAreReordered() throws {
    // One head of four rows: the pairs (0, 1) and (2, 3) are rotated together, here (0, 2) and (1, 3).
    do {
      let file = try open(bytes([4, 3, 1, 1, 1, 5, 2], floats: 20 + 4 + 64 + 4 + 36 + 4 + 8))
      let rows = try file.tensor("model.layers.0.self_attn.k_proj.weight").floats()
      #expect([0, 4, 8, 12].map { rows[$0] } == [40, 48, 44, 52])
    }
  }

  @Test func refusesWhatIsNoModel() throws {
    #expect(throws: CheckpointError.self) { try open(Data(count: 4)) }
    for (header, floats) in [(Self.sizes, 119), (Self.sizes, 121), ([4, 3, 1, 3, 1, 5, 2], 120), ([4, 3, 1 << 27, 2, 1, 5, 2], 120)]
      as [([Int32], Int)]
    {
      #expect(throws: CheckpointError.self) { try open(bytes(header, floats: floats)) }
    }
    #expect(throws: CheckpointError.self) { try open(bytes(Self.sizes, version: 2, floats: 116)) }
  }

  private static let folder = "models/stories260K"

  @Test(.enabled(if: Places.hasAsset(folder)), arguments: ["stories260K.bin", "stories260K_v1.bin"])
  func agreesWithTheHuggingFaceForm(_ name: String) throws {
    let file = try Checkpoint(Places.asset("\(Self.folder)/\(name)"))
    let oracle = try Checkpoint(Places.asset("\(Self.folder)/hf"))
    #expect(Set(file.tensors.names) == Set(oracle.tensors.names))
    for name in oracle.tensors.names {
      let (found, expected) = (try file.tensors.tensor(name), try oracle.tensors.tensor(name))
      #expect(found.shape == expected.shape && found.bytes == expected.bytes, "\(name)")
    }
    for key in [
      "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    ] {
      #expect(file.config.json[key]?.integer == oracle.config.json[key]?.integer, "\(key)")
    }
  }
}
