import Foundation
import Tensors
import TestSupport
import Testing

/// The generator of the golden blocks' inputs.
private func generated(_ count: Int, from seed: UInt32, _ value: (UInt32) -> Float) -> [Float] {
  var state = seed
  return (0..<count).map { _ in
    state = state &* 1_664_525 &+ 1_013_904_223
    return value(state)
  }
}

private let weights = generated(256, from: 12345) { (Float($0 >> 8) - 8_388_608) / 8_388_608 }
private let importances = generated(256, from: 777) { Float(1 + ($0 >> 24)) / 64 }

private let blocks = BlockType.allCases.filter { $0.dtype == nil && $0.isWritten }

private func hex(_ bytes: some Sequence<UInt8>) -> String { bytes.map { String(UInt32($0) + 256, radix: 16).dropFirst() }.joined() }

private func bytes(_ hex: String) -> [UInt8] {
  stride(from: 0, to: hex.count, by: 2).map { UInt8(hex.dropFirst($0).prefix(2), radix: 16)! }
}

private func dequantized(_ blocks: Tensor, _ type: BlockType) -> [Float] {
  let count = blocks.bytes.count / type.bytesPerBlock * type.blockLength
  return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
    type.dequantize(blocks, rows: 0..<blocks.shape[0], into: UnsafeMutableBufferPointer(rebasing: buffer[..<count]))
    initialized = count
  }
}

struct BlockTypeTests {
  @Test func theFixtureStartsAsDocumented() {
    #expect(weights[..<2].map { $0.bitPattern.byteSwapped } == [0xC88D_75BF, 0x0C87_77BF])
    #expect(importances[..<4] == [2.15625, 3.03125, 3.359375, 1.71875])
  }

  @Test(arguments: goldenBlocks.indices)
  func bytesAreThoseOfGGML(_ index: Int) throws {
    let golden = goldenBlocks[index]
    let type = try #require(BlockType(name: golden.name))
    #expect(type.name == golden.name)
    let n = type.blockLength
    let row = Matrix(rows: 1, columns: n, elements: Array(weights[..<n]))
    let found = type.quantize(row, importance: golden.hasImportance ? Array(importances[..<n]) : nil)
    #expect(hex(found.bytes) == golden.bytes)
  }

  /// The rows tools/golden/gguf_blocks.py describes.
  @Test(arguments: numpyBlocks.indices)
  func bytesAreThoseOfTheNumpyQuantizers(_ index: Int) throws {
    let type = try #require(BlockType(name: numpyBlocks[index].type))
    var rows = Matrix(rows: 3, columns: 96, elements: generated(288, from: 2024) { (Float($0 >> 8) - 8_388_608) / 8_388_608 })
    for column in 0..<96 {
      rows[1, column] /= 1024
      if column < 95 { rows[2, column] = 0 }
    }
    #expect(hex(type.quantize(rows).bytes) == numpyBlocks[index].bytes)
  }

  @Test(arguments: numpyValues.indices)
  func valuesAreThoseOfTheNumpyDequantizers(_ index: Int) throws {
    let golden = numpyValues[index]
    let type = try #require(BlockType(name: golden.type))
    let found = dequantized(Tensor(dtype: .uint8, shape: [1, type.bytesPerBlock], bytes: Data(bytes(golden.block))), type)
    let picked = stride(from: 0, to: found.count, by: 32).map { found[$0] } + [found[found.count - 1]]
    for (value, expected) in zip(picked, golden.values.map { Float(bitPattern: $0) }) {
      // Scale and code may be multiplied in another order, which is one rounding.
      #expect(abs(value - expected) <= 1e-6 * max(1, abs(expected)), "\(type)")
    }
  }

  /// Types that are only read: all values of two blocks of arbitrary bytes.
  @Test(arguments: codebookBlocks.indices)
  func codebooksAreThoseOfGGML(_ index: Int) throws {
    let golden = codebookBlocks[index]
    let type = try #require(BlockType(name: golden.type))
    let found = dequantized(Tensor(dtype: .uint8, shape: [1, 2 * type.bytesPerBlock], bytes: Data(bytes(golden.blocks))), type)
    #expect(stride(from: 0, to: found.count, by: 32).map { found[$0].bitPattern } == golden.values)
    let sum = found.enumerated().reduce(0.0) { $0 + Double($1.element) * Double($1.offset % 7 + 1) }
    #expect(abs(sum - golden.sum) <= 1e-9 * max(1, abs(golden.sum)))
  }

  /// d at 0, then the bits or pairs of bits of the elements in their order.
  @Test func oneAndTwoBits() {
    let one = dequantized(
      Tensor(dtype: .uint8, shape: [1, 18], bytes: Data([0, 0x3E, 0b0000_0101] + [UInt8](repeating: 0, count: 15))), .q1_0)
    #expect(one[..<4] == [1.5, -1.5, 1.5, -1.5] && one[127] == -1.5)
    let two = dequantized(
      Tensor(dtype: .uint8, shape: [1, 18], bytes: Data([0, 0x3E, 0b1110_0100] + [UInt8](repeating: 0, count: 15))), .q2_0)
    #expect(two[..<5] == [-1.5, 0, 1.5, 3, -1.5])
  }

  @Test func theFixtureCoversEveryType() {
    #expect(Set(goldenBlocks.map(\.name)) == Set(blocks.map(\.name)))
    let searched = Set(blocks).subtracting([.q8_0, .mxfp4, .nvfp4])
    #expect(Set(goldenBlocks.filter(\.hasImportance).map(\.name)) == Set(searched.map(\.name)))
  }

  /// Every byte pattern stands for a number, so random bytes try all paths; halves are kept finite.
  @Test(arguments: BlockType.allCases.filter(\.isWritten))
  func dequantizationFollowsTheFormula(_ type: BlockType) {
    for golden in goldenBlocks where golden.name == type.name || type.dtype != nil {
      let original = bytes(golden.bytes)
      let count = original.count / type.bytesPerBlock
      var random = KeyedRandomness(seed: 1, key: golden.name)
      for trial in 0..<20 {
        var stored = Array(original.prefix(count * type.bytesPerBlock))
        // Later trials change bytes anywhere; infinities and NaN are skipped below.
        if trial > 0 {
          for _ in 0..<trial { stored[Int.random(in: stored.indices, using: &random)] = UInt8.random(in: 0...255, using: &random) }
        }
        let found = dequantized(Tensor(dtype: .uint8, shape: [1, stored.count], bytes: Data(stored)), type)
        for (index, value) in found.enumerated() {
          let block = Array(stored[index / type.blockLength * type.bytesPerBlock..<(index / type.blockLength + 1) * type.bytesPerBlock])
          let expected = Reference.element(index % type.blockLength, of: block, type: type)
          guard expected.isFinite else { continue }
          let size = (0..<type.blockLength).map { abs(Reference.element($0, of: block, type: type)) }.max()!
          #expect(abs(Double(value) - expected) <= 1e-6 * size, "\(type) \(index)")
        }
      }
    }
  }

  /// A row is as many blocks, whatever number of them the kernels take at once, and rows do not know each other.
  @Test(arguments: blocks, [1, 2, 3, 17])
  func blocksAreIndependent(_ type: BlockType, _ count: Int) {
    let n = type.blockLength
    let matrix = Matrix.random(rows: 5, columns: n * count, key: "rows")
    let importance = Matrix.random(rows: 1, columns: n * count, key: "importance").elements.map { $0 * $0 + 0.01 }
    // These four weigh with the mean square of the whole row.
    let needsRow: Set<BlockType> = [.q4_0, .q4_1, .q5_0, .q5_1]
    for importance in [nil, importance] where importance == nil || !needsRow.contains(type) {
      let together = type.quantize(matrix, importance: importance)
      #expect(together.shape == [5, type.byteCount(columns: n * count)])
      for row in 0..<5 {
        for block in 0..<count {
          let part = Array(matrix.elements[row * n * count + block * n..<row * n * count + (block + 1) * n])
          let alone = type.quantize(
            Matrix(rows: 1, columns: n, elements: part), importance: importance.map { Array($0[block * n..<(block + 1) * n]) })
          let start = (row * count + block) * type.bytesPerBlock
          #expect(alone.bytes == together.bytes[start..<start + type.bytesPerBlock], "row \(row) block \(block)")
        }
      }
    }
  }

  /// Σ importance · error² of what the bytes stand for, relative to Σ importance · x².
  private func loss(_ matrix: Matrix, _ type: BlockType, importance: [Float]?, measuredWith factor: [Float]) -> Double {
    let found = dequantized(type.quantize(matrix, importance: importance), type)
    var (error, norm) = (0.0, 0.0)
    for (index, value) in matrix.elements.enumerated() {
      let c = Double(factor[index % matrix.columns])
      error += c * Double(value - found[index]) * Double(value - found[index])
      norm += c * Double(value) * Double(value)
    }
    return error / norm
  }

  @Test(arguments: blocks)
  func errorsAreOfTheSizeOfTheGrid(_ type: BlockType) {
    let matrix = Matrix.random(rows: 8, columns: 1024, key: "error")
    let ones = [Float](repeating: 1, count: 1024)
    let bound: [BlockType: Double] = [
      .q2_k: 0.09, .q3_k: 0.03, .q4_k: 0.006, .q5_k: 0.0016, .q6_k: 0.0005, .q4_0: 0.009, .q4_1: 0.007, .q5_0: 0.0022, .q5_1: 0.0018,
      .q8_0: 0.00004, .iq4_nl: 0.006, .iq4_xs: 0.007, .mxfp4: 0.03, .nvfp4: 0.015,
    ]
    #expect(loss(matrix, type, importance: nil, measuredWith: ones) < bound[type]!)
    // Four of sixteen columns matter: knowing which ones must help those that search.
    let importance = (0..<1024).map { Float($0 % 4 == 0 ? 30 : 0.1) }
    let (with, without) = (
      loss(matrix, type, importance: importance, measuredWith: importance), loss(matrix, type, importance: nil, measuredWith: importance)
    )
    if [.q8_0, .mxfp4, .nvfp4].contains(type) { #expect(with == without) } else { #expect(with < without) }
  }

  @Test(arguments: blocks)
  func degenerateBlocksStayFinite(_ type: BlockType) {
    let n = type.blockLength * 2
    func check(_ elements: [Float], _ importance: [Float]?, _ limit: Float, _ note: String) {
      let row = Matrix(rows: 1, columns: n, elements: elements)
      let found = dequantized(type.quantize(row, importance: importance), type)
      #expect(!found.contains { !$0.isFinite }, "\(note)")
      let size = elements.map(abs).max()!
      #expect(zip(elements, found).allSatisfy { abs($0 - $1) <= limit * size }, "\(note)")
    }
    let flat = [Float](repeating: 1, count: n)
    for importance in [nil, flat, [Float](repeating: 0, count: n), flat.indices.map { $0 < n / 2 ? 0 : 1 }] {
      check([Float](repeating: 0, count: n), importance, 0, "zeros")
      check(flat.indices.map { $0 == 3 ? 1 : 0 }, importance, importance?.contains(0) == true ? 1.01 : 0.35, "one")
    }
    check(flat, nil, 0.2, "positive")
    check(flat.map { -$0 }, nil, 0.2, "negative")
    // Scales of NVFP4 end at 448.
    check(flat.indices.map { Float($0 % 2 == 0 ? 1 : -1) * (type == .nvfp4 ? 2e3 : 3e4) }, nil, 0.35, "large")
    check(flat.indices.map { Float($0 % 2 == 0 ? 1 : -1) * 1e-20 }, nil, 1.01, "tiny")
  }

  @Test func plainTypesAreConversions() {
    let matrix = Matrix.random(rows: 3, columns: 7, key: "plain")
    for type in [BlockType.f32, .f16, .bf16] {
      let expected = Tensor(matrix.elements, shape: [3, 7], dtype: type.dtype!)
      let stored = type.quantize(matrix)
      #expect(stored.bytes == expected.bytes && stored.shape == [3, 7 * type.bytesPerBlock])
      #expect(dequantized(stored, type) == expected.floats())
    }
  }

  @Test func namesAndSizes() {
    #expect(BlockType(name: "q4_K") == .q4_k && BlockType(name: "Q4_K_M") == nil && BlockType(name: "") == nil)
    #expect(BlockType.q4_k.bitsPerWeight == 4.5 && BlockType.q6_k.bitsPerWeight == 6.5625 && BlockType.iq4_xs.bitsPerWeight == 4.25)
    #expect(BlockType(.bfloat16) == .bf16 && BlockType(.int8) == nil)
  }
}
