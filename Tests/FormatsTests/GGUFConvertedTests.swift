import CompressKit
import Foundation
import TestSupport
import Testing

/// Files of tiny models against those of llama.cpp's own converter, byte by byte (`tools/golden/gguf_converted.py`).
struct GGUFConvertedTests {
  private static func models() throws -> JSON {
    let file = Places.root.appending(path: "Tests/FormatsTests/Fixtures/gguf-converted.json")
    return try #require(try JSON(parsing: Data(contentsOf: file))["models"])
  }

  static let names = (try? models().members?.map(\.key)) ?? []

  @Test func allFamiliesAreThere() {
    let types = Set(Self.names.compactMap { name in try? Self.models()[name]?["config"]?["model_type"]?.string })
    // The four others are written as one of these, or differ from Llama by their biases or norms alone.
    #expect(types.union(["mistral", "qwen2", "qwen3", "gemma3"]) == Set(GGUFArchitecture.modelTypes))
  }

  /// What the converter says otherwise: numbers that it takes for granted, keys that llama.cpp does not read, words for nothing.
  private static let unlike: [String: Set<String>] = [
    "bloom": ["context_length"], "falcon-7b": ["context_length", "feed_forward_length", "tensor_data_layout"],
    "falcon-40b": ["context_length", "feed_forward_length", "tensor_data_layout"], "gpt2": ["feed_forward_length"],
    "cohere": ["rope.scaling.type"], "cohere2": ["rope.scaling.type"],
    "nemotron": ["rope.scaling.type", "attention.layer_norm_rms_epsilon"],
    "phi3": ["rope.scaling.original_context_length"], "phi3-partial": ["rope.scaling.original_context_length"],
    // Said by another key, and in these by none because it is as usual.
    "ministral3": ["rope.scaling.yarn_log_multiplier"], "olmo3": ["attention.sliding_window_pattern", "rope.freq_base_swa"],
  ]

  @Test(arguments: names) func theFileIsTheConverters(_ name: String) async throws {
    let golden = try #require(try Self.models()[name])
    let original = try TinyModel.checkpoint(try #require(golden["config"]).text())
    let model = try Model(original)
    try await withGGUF(try model.places.map { try model.part($0) }, original.config) { checkpoint in
      let file = try GGUFFile(checkpoint.directory.appending(path: GGUFWriter.fileName))
      let tensors = try #require(golden["tensors"]?.members)
      #expect(Set(file.names) == Set(tensors.map(\.key)))
      for member in tensors {
        let (shape, digest) = (member.value.elements?[0].elements?.compactMap(\.integer), member.value.elements?[1].string)
        let tensor = try file.tensor(member.key)
        #expect(tensor.shape == shape && tensor.dtype == .float32, "\(member.key)")
        #expect(Self.digest(tensor.bytes) == digest, "\(member.key)")
      }
      for member in try #require(golden["keys"]?.members) {
        let key = member.key.split(separator: ".").dropFirst().joined(separator: ".")
        guard Self.unlike[name]?.contains(key) != true else { continue }
        #expect(Self.isAlike(file.metadata[member.key], member.value), "\(member.key): \(member.value.text())")
      }
    }
  }

  /// FNV-1a with 64 bits.
  private static func digest(_ bytes: Data) -> String {
    var value: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in bytes { value = (value ^ UInt64(byte)) &* 0x100_0000_01B3 }
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  private static func isAlike(_ found: GGUFValue?, _ expected: JSON) -> Bool {
    if let elements = expected.elements {
      return found?.elements?.count == elements.count && zip(found?.elements ?? [], elements).allSatisfy { isAlike($0, $1) }
    }
    if case .float32(let value)? = found { return expected.double.map { Float($0) } == value }
    if let text = expected.string { return found?.string == text }
    if let flag = expected.bool { return found?.bool == flag }
    return found?.integer != nil && found?.integer == expected.integer
  }
}
