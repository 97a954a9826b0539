import CompressKit
import Foundation
import TestSupport
import Testing

/// Weights as vendors release them, held to what transformers makes of them.
struct OriginalsTests {
  private struct Fixture: Decodable {
    struct MXFP4: Decodable {
      var shape: [Int]
      var blocks, scales: String
      /// [experts × inputs × outputs]
      var dense: [Float]
    }
    struct FP8: Decodable {
      var shape, tile: [Int]
      var codes: String
      var scales, dense: [Float]
    }
    var mxfp4: MXFP4
    var fp8: FP8
  }

  private static func fixture() throws -> Fixture {
    let url = try #require(Bundle.module.url(forResource: "originals", withExtension: "json", subdirectory: "Fixtures"))
    return try JSONDecoder().decode(Fixture.self, from: Data(contentsOf: url))
  }

  private static func reader(_ format: some CheckpointFormat, _ quantization: String) throws -> WeightReader {
    try #require(try format.reader(for: ModelConfig(text: #"{"model_type":"gpt_oss","quantization_config":\#(quantization)}"#.utf8)))
  }

  @Test func stacksOfMXFP4AreWhatTransformersReads() throws {
    let fixture = try Self.fixture().mxfp4
    let (experts, outputs, groups) = (fixture.shape[0], fixture.shape[1], fixture.shape[2])
    let source = MemoryTensorSource([
      NamedTensor(
        name: "m.experts.gate_up_proj_blocks",
        tensor: Tensor(dtype: .uint8, shape: fixture.shape + [16], integers: bytes(fixture.blocks))),
      NamedTensor(
        name: "m.experts.gate_up_proj_scales", tensor: Tensor(dtype: .uint8, shape: fixture.shape, integers: bytes(fixture.scales))),
    ])
    let reader = try Self.reader(MXFP4Format(), #"{"quant_method":"mxfp4"}"#)
    #expect(
      reader.covers("m.experts.gate_up_proj_blocks") && reader.covers("m.experts.down_proj_scales") && !reader.covers("m.experts.down_proj")
    )
    for expert in 0..<experts {
      for (part, name) in ["gate_proj", "up_proj"].enumerated() {
        #expect(reader.holds("m.experts.\(expert).\(name)", source))
        let weight = try reader.weight("m.experts.\(expert).\(name)", source)
        #expect(weight.rows == outputs / 2 && weight.columns == groups * 32 && (weight as? QuantizedMatrix)?.scheme == .mx(bits: 4))
        let dense = weight.dense()
        for row in 0..<weight.rows {
          for column in 0..<weight.columns {
            let place = (expert * groups * 32 + column) * outputs + 2 * row + part
            #expect(dense[row, column] == fixture.dense[place])
          }
        }
      }
    }
    #expect(!reader.holds("m.experts.0.down_proj", source) && !reader.holds("m.router", source))
  }

  @Test func tilesOfE4M3AreWhatTransformersReads() throws {
    let fixture = try Self.fixture().fp8
    let source = MemoryTensorSource([
      NamedTensor(name: "m.weight", tensor: Tensor(dtype: .float8E4M3, shape: fixture.shape, integers: bytes(fixture.codes))),
      NamedTensor(name: "m.weight_scale_inv", tensor: Tensor(fixture.scales, shape: [2, 3], dtype: .float32)),
    ])
    let reader = try Self.reader(FP8BlockFormat(), #"{"quant_method":"fp8","weight_block_size":[4,4]}"#)
    #expect(try reader.weight("m", source).dense().elements == fixture.dense)
  }

  /// A whole gpt-oss with packed experts: opened, scored as its numbers are, kept packed by one format and put into plain stacks by another.
  @Test func releasedExpertsAreOpenedAndKept() async throws {
    try await Places.withTemporaryDirectory { directory in
      let (source, packed, plain) = (
        directory.appending(path: "model"), directory.appending(path: "packed"), directory.appending(path: "plain")
      )
      var config = try JSON(parsing: Families.configuration("gpt-oss").utf8)
      let stacks = ["gate_up_proj": [4, 128, 1], "down_proj": [4, 32, 2]]
      var tensors = try TinyModel.tensors(ModelConfig(text: config.text().utf8), dtype: .bfloat16).filter { named in
        !stacks.keys.contains { named.name.hasSuffix("experts.\($0)") }
      }
      var random = KeyedRandomness(seed: 9, key: "blocks")
      for layer in 0..<2 {
        for (name, shape) in stacks {
          let count = shape.reduce(1, *)
          let codes = (0..<count * 16).map { _ in UInt8.random(in: 0...255, using: &random) }
          let scales = (0..<count).map { _ in UInt8.random(in: 118...123, using: &random) }
          let stack = "model.layers.\(layer).mlp.experts.\(name)"
          tensors.append(NamedTensor(name: stack + "_blocks", tensor: Tensor(dtype: .uint8, shape: shape + [16], integers: codes)))
          tensors.append(NamedTensor(name: stack + "_scales", tensor: Tensor(dtype: .uint8, shape: shape, integers: scales)))
        }
      }
      config["quantization_config"] = .object([.init("quant_method", .string("mxfp4"))])
      let writer = try SafetensorsWriter(to: source)
      try await writer.append(tensors)
      try await writer.finish(files: [CheckpointFile("config.json", .text(config.text()))])
      let original = try Model(try Checkpoint(source))
      #expect(original.carried.isEmpty)
      let tokens = TinyModel.sequences(1, length: 24)[0]
      let expected = try original.logits(of: tokens)
      let isFinite = expected.elements.allSatisfy { $0.isFinite }
      #expect(isFinite)

      let kept = try await Converter(to: CompressedTensorsFormat()).run(try Checkpoint(source), to: packed)
      #expect(kept.sameCodes == 2 * 4 * 3 && kept.remarks.contains { $0.contains("compressed experts are stored one by one") })
      #expect(try Model(try Checkpoint(packed)).logits(of: tokens) == expected)

      _ = try await Converter(to: PlainFormat()).run(try Checkpoint(source), to: plain)
      let written = try Checkpoint(plain)
      #expect(written.tensors.info("model.layers.0.mlp.experts.gate_up_proj") == TensorInfo(dtype: .bfloat16, shape: [4, 32, 128]))
      // Four bits and a power of two are numbers of BF16.
      #expect(try Model(written).logits(of: tokens) == expected)
    }
  }
}
