import CompressKit
import Foundation
import TestSupport
import Testing

/// What other tools make of our files, and we of theirs; `tools/golden/formats.py` wrote the figures and says how.
struct PeerTests {
  private static let fixtures: JSON = {
    guard let url = Bundle.module.url(forResource: "peers", withExtension: "json", subdirectory: "Fixtures"),
      let data = try? Data(contentsOf: url), let json = try? JSON(parsing: data)
    else { return .null }
    return json
  }()

  private static let names = (fixtures.members ?? []).map(\.key)

  /// The model that the figures are about.
  private static let config = """
    {"architectures":["LlamaForCausalLM"],"model_type":"llama","vocab_size":64,"hidden_size":64,"intermediate_size":128,
     "num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":32,"hidden_act":"silu","rms_norm_eps":1e-5,
     "max_position_embeddings":64,"tie_word_embeddings":false,"bos_token_id":1,"eos_token_id":2,"dtype":"bfloat16"}
    """

  /// FNV-1a, 64 bits.
  private func digest(_ bytes: some Sequence<UInt8>) -> String {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    let digits = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  @Test func everyFormatHasFigures() {
    for (prefix, count) in [("ct-", 28), ("gptq-", 10), ("awq-", 3), ("mlx-", 10), ("llmcompressor-", 9)] {
      #expect(Self.names.count { $0.hasPrefix(prefix) } >= count, "\(prefix)")
    }
  }

  @Test(arguments: names.filter { !$0.hasPrefix("llmcompressor-") }) func theyReadOurNumbers(_ name: String) async throws {
    let fixture = try #require(Self.fixtures[name])
    let options = try #require(fixture["options"]?.string)
    try await Places.withTemporaryDirectory { directory in
      let (source, output) = (directory.appending(path: "model"), directory.appending(path: "out"))
      try await TinyModel.write(to: source, Self.config)
      try TinyModel.write(tokens: (0..<128).map { ($0 * 37 + 11) % 64 }, to: directory.appending(path: "tokens.npy"))
      let calibration = options.contains("static") || options.contains("activations: nvfp4")
      let format = try #require(fixture["format"]?.string)
      let yaml = """
        \(calibration ? "calibration: { tokens: tokens.npy, sequences: 4, length: 32 }" : "")
        passes: [{ rtn: { scales: minmax, \(options) } }]
        output: { format: \(format) }
        """
      let recipe = try Recipe(yaml: yaml, file: "recipe", passes: .standard)
      _ = try await Compressor(recipe: recipe, bases: [directory]).run(try Checkpoint(source), to: output)
      let checkpoint = try Checkpoint(output)
      // The bytes that the peer was given. What was measured on activations may differ in its last bit between machines.
      let stored = try #require(fixture["stored"]?.members)
      #expect(Set(stored.map(\.key)) == Set(checkpoint.tensors.names.filter { !$0.contains("norm") }))
      for member in stored where !member.key.contains(".input_") {
        #expect(digest(try checkpoint.tensors.tensor(member.key).bytes) == member.value.string, "\(member.key)")
      }
      let model = try Model(checkpoint)
      let blocks = try model.places.map { try model.part($0) }
      let ours = blocks.flatMap { block in block.linears.map { (block.fullName(of: $0), $1.weight) } }
      #expect(ours.contains { $1 is QuantizedMatrix })
      try expect(fixture, Dictionary(uniqueKeysWithValues: ours))
    }
  }

  @Test(arguments: names.filter { $0.hasPrefix("llmcompressor-") }) func weReadTheirNumbers(_ name: String) throws {
    let fixture = try #require(Self.fixtures[name])
    let tensors = try #require(fixture["tensors"]?.members).map { member in
      let shape = try #require(member.value["shape"]?.elements).compactMap(\.integer)
      let dtype = try #require(DType(rawValue: member.value["dtype"]?.string ?? ""))
      let hex = try #require(member.value["bytes"]?.string)
      return NamedTensor(name: member.key, tensor: Tensor(dtype: dtype, shape: shape, bytes: Data(bytes(hex))))
    }
    let source = MemoryTensorSource(tensors)
    let configuration = try #require(fixture["quantization_config"]).text()
    let reader = try #require(try CompressedTensorsFormat().read(configuration))
    var ours: [String: any Weight] = [:]
    for module in Set(tensors.map { $0.name.split(separator: ".").dropLast().joined(separator: ".") }) {
      #expect(reader.holds(module, source))
      ours[module] = try reader.weight(module, source)
      // No tensor is left over, and what says how the input is quantized is understood.
      let own = tensors.filter { $0.name.hasPrefix(module + ".") }
      #expect(own.allSatisfy { reader.components.contains(String($0.name.split(separator: ".").last!)) })
      #expect((try reader.input(module, source) != nil) == !name.contains("a16"))
    }
    try expect(fixture, ours)
  }

  /// Every weight, dequantized by us, is what the peer dequantized, to the last bit.
  private func expect(_ fixture: JSON, _ ours: [String: any Weight]) throws {
    let theirs = try #require(fixture["weights"]?.members)
    #expect(theirs.count >= 2)
    // What they can be asked for in single precision they were; NVFP4 they hand out in BF16 only.
    let type = fixture["rounded"] == .string("BF16") ? DType.bfloat16 : .float32
    for member in theirs {
      // Zeros of either sign are one number.
      let numbers = try #require(ours[String(member.key.dropLast(7))], "\(member.key)").dense().elements.map { type.rounded($0) + 0 }
      if let first = fixture["first"]?[member.key]?.elements {
        #expect(Array(numbers.prefix(4)) == first.compactMap(\.double).map { Float($0) }, "\(member.key)")
      }
      #expect(numbers.withUnsafeBytes { digest($0) } == member.value.string, "\(member.key)")
    }
  }
}
