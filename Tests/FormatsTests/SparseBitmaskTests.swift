import CompressKit
import Foundation
import TestSupport
import Testing

/// Sparse checkpoints of compressed-tensors.
@Suite struct SparseBitmaskTests {
  private func quantization(_ format: String, _ more: String = "") throws -> JSON {
    try JSON(
      parsing: Data(
        """
        {"quant_method":"compressed-tensors","format":"dense","sparsity_config":{"format":"\(format)","sparsity_structure":"2:4",
         "global_sparsity":0.5,"targets":["Linear"],"ignore":[]}\(more)}
        """.utf8))
  }

  /// The tensors of a layer by the published rule, one weight at a time.
  private func stored(_ weight: Matrix, _ module: String, twoOfFour: Bool) -> [NamedTensor] {
    let width = (weight.columns + 7) / 8
    var (bits, values, offsets) = ([UInt8](repeating: 0, count: weight.rows * width), [Float](), [Int64]())
    for row in 0..<weight.rows {
      offsets.append(Int64(values.count))
      for column in 0..<weight.columns where weight[row, column] != 0 {
        bits[row * width + column / 8] |= 1 << UInt8(column % 8)
        values.append(weight[row, column])
      }
    }
    let (prefix, shape) = (twoOfFour ? module : module + ".weight", [Int64(weight.rows), Int64(weight.columns)])
    var tensors = [
      NamedTensor(name: prefix + ".bitmask", tensor: Tensor(dtype: .uint8, shape: [weight.rows, width], integers: bits)),
      NamedTensor(name: prefix + ".shape", tensor: Tensor(dtype: .int64, shape: twoOfFour ? [2, 1] : [2], integers: shape)),
      NamedTensor(
        name: prefix + ".compressed",
        tensor: Tensor(values, shape: twoOfFour ? [weight.rows, weight.columns / 2] : [values.count], dtype: .float32)),
    ]
    if !twoOfFour {
      tensors.append(
        NamedTensor(name: prefix + ".row_offsets", tensor: Tensor(dtype: .int64, shape: [weight.rows], integers: offsets)))
    }
    return tensors
  }

  @Test func theRuleIsThePublishedOne() {
    let row = Matrix(rows: 1, columns: 8, elements: [0, 1, 0, 2, 3, 0, 0, 4])
    let tensors = stored(row, "m", twoOfFour: true)
    #expect(tensors[0].tensor.integers(UInt8.self) == [0x9A] && tensors[2].tensor.floats() == [1, 2, 3, 4])
  }

  @Test(arguments: [true, false]) func sparseCheckpointsAreRead(twoOfFour: Bool) throws {
    var edited = try EditableCheckpoint()
    edited.config["quantization_config"] = try quantization(twoOfFour ? "sparse-24-bitmask" : "sparse-bitmask")
    var expected: [String: Matrix] = [:]
    for (name, tensor) in edited.tensors where name.contains("_proj.weight") && !name.contains("o_proj") {
      let dense = Matrix(rows: tensor.shape[0], columns: tensor.shape[1], elements: tensor.floats())
      let scores = Matrix(rows: dense.rows, columns: dense.columns, elements: dense.elements.map { abs($0) })
      let pattern = twoOfFour ? SparsityPattern.grouped(kept: 2, group: 4) : .unstructured
      let sparse = SparsityMask(scores: scores, pattern: pattern, sparsity: 0.6, comparing: .layer).applied(to: dense)
      expected[String(name.dropLast(7))] = sparse
      edited[name] = nil
      for part in stored(sparse, String(name.dropLast(7)), twoOfFour: twoOfFour) { edited[part.name] = part.tensor }
    }
    let model = try edited.model()
    #expect(model.carried.isEmpty && expected.count == 12)
    for index in 0..<2 {
      let block = try model.block(index)
      for (name, linear) in block.linears {
        guard let weight = expected[block.fullName(of: name)] else { continue }
        #expect(linear.weight.dense() == weight && linear.weight is StoredWeight)
      }
    }
    // A bit too many.
    let name = "model.layers.0.self_attn.q_proj" + (twoOfFour ? ".bitmask" : ".weight.bitmask")
    var bits = try #require(edited[name]).integers(UInt8.self)
    bits[0] = ~bits[0] | bits[0]
    edited[name] = Tensor(dtype: .uint8, shape: [32, 4], integers: bits)
    let error = #expect(throws: CheckpointError.self) { try edited.model().block(0) }
    #expect(error?.description.contains("q_proj") == true)
  }

  @Test func quantizedAndSparseAtOnceIsRefused() throws {
    var edited = try EditableCheckpoint()
    let groups = #","config_groups":{"group_0":{"targets":["Linear"],"weights":{"num_bits":8}}}"#
    edited.config["quantization_config"] = try quantization("sparse-24-bitmask", groups)
    let error = #expect(throws: CheckpointError.self) { try edited.model() }
    #expect(error?.description.contains("quantized and sparse") == true)
    // Zeros that are stored are numbers like any other.
    edited.config["quantization_config"] = try quantization("dense", groups)
    #expect(throws: Never.self) { try edited.model() }
  }
}
