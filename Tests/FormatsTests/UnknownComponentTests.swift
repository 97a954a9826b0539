import CompressKit
import Foundation
import TestSupport
import Testing

/// Whole checkpoints of a format that is only read, and what may not lie beside their weights.
struct UnknownComponentTests {
  /// A tiny Llama whose query projections are ModelOpt's FP8, with further tensors.
  private static func write(_ more: [NamedTensor], to directory: URL) async throws {
    var config = try JSON(parsing: Families.configuration("llama-plain").utf8)
    var tensors: [NamedTensor] = []
    for named in try TinyModel.tensors(ModelConfig(text: config.text().utf8), dtype: .bfloat16) {
      guard named.name.hasSuffix("q_proj.weight") else {
        tensors.append(named)
        continue
      }
      let (module, shape) = (String(named.name.dropLast(".weight".count)), named.info.shape)
      let codes = MiniFloat.e4m3.encodedForTest(named.tensor.floats().map { $0 * 64 })
      tensors.append(NamedTensor(name: module + ".weight", tensor: Tensor(dtype: .float8E4M3, shape: shape, integers: codes)))
      for name in ["weight_scale", "input_scale"] {
        tensors.append(NamedTensor(name: "\(module).\(name)", tensor: Tensor([1.0 / 64], shape: [], dtype: .float32)))
      }
    }
    config["quantization_config"] = .object([.init("quant_method", .string("modelopt")), .init("quant_algo", .string("FP8"))])
    let writer = try SafetensorsWriter(to: directory)
    try await writer.append(tensors + more)
    try await writer.finish(files: [CheckpointFile("config.json", .text(config.text()))])
  }

  @Test func aCheckpointOfOneIsOpenedAndConverted() async throws {
    try await Places.withTemporaryDirectory { directory in
      let (source, plain) = (directory.appending(path: "model"), directory.appending(path: "plain"))
      try await Self.write([], to: source)
      let model = try Model(try Checkpoint(source))
      #expect(model.carried.isEmpty)
      let linear = try #require(try model.block(0).linears["self_attn.q_proj"])
      #expect((linear.weight as? QuantizedMatrix)?.scheme.description == "fp8 tensor" && linear.inputQuantization?.scale == 1.0 / 64)
      let report = try await Converter(to: PlainFormat()).run(try Checkpoint(source), to: plain)
      #expect(report.dequantized == model.description.blocks.count && report.roundedWeights == 0)
      let again = try #require(try Model(try Checkpoint(plain)).block(0).linears["self_attn.q_proj"])
      #expect(again.weight.dense() == linear.weight.dense())
    }
  }

  @Test func whatMayBelongToAWeightIsNotLeftOut() async throws {
    let name = "model.layers.1.self_attn.q_proj.pre_quant_scale"
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "model")
      try await Self.write([NamedTensor(name: name, tensor: Tensor([1], shape: [1], dtype: .float32))], to: source)
      let checkpoint = try Checkpoint(source)
      #expect(throws: CheckpointError.unknownComponent(tensor: name, module: "model.layers.1.self_attn.q_proj")) { try Model(checkpoint) }
    }
  }

  /// A plain linear, and what is no linear, may have what it likes beside it: it is carried along.
  @Test func whatLiesElsewhereIsCarried() async throws {
    let names = ["model.layers.1.self_attn.k_proj.note", "model.layers.1.note"]
    try await Places.withTemporaryDirectory { directory in
      let source = directory.appending(path: "model")
      try await Self.write(names.map { NamedTensor(name: $0, tensor: Tensor([1], shape: [1], dtype: .float32)) }, to: source)
      #expect(Set(try Model(try Checkpoint(source)).carried) == Set(names))
    }
  }
}

extension MiniFloat {
  /// The codes of the nearest numbers.
  fileprivate func encodedForTest(_ numbers: [Float]) -> [UInt8] {
    numbers.map { number in
      let nearest = rounded(number)
      return UInt8(values.firstIndex { $0 == nearest } ?? 0)
    }
  }
}
