import CompressKit
import Foundation
import TestSupport
import Testing

struct InputQuantizationTests {
  private let input = Matrix.random(rows: 5, columns: 64, key: "input", scale: 3)

  /// Every element of `rounded` against the definition, written out in double precision.
  private func check(_ quantization: InputQuantization, _ groups: Int, _ expected: (_ value: Double, _ group: [Double]) -> Double) {
    let rounded = quantization.rounded(input)
    let size = 64 / groups
    for row in 0..<5 {
      for group in 0..<groups {
        let values = (0..<size).map { Double(input[row, group * size + $0]) }
        for (index, value) in values.enumerated() {
          let wanted = expected(value, values)
          #expect(abs(Double(rounded[row, group * size + index]) - wanted) <= 1e-5 * abs(wanted) + 1e-7, "\(quantization)")
        }
      }
    }
  }

  private func amax(_ values: [Double]) -> Double { values.map(abs).max()! }

  @Test func integersByToken() {
    for bits in [4, 8] {
      let half = Double(1 << (bits - 1))
      check(.int(bits), 1) { value, group in
        let scale = amax(group) / (half - 0.5)
        return min(max((value / scale).rounded(.toNearestOrEven), -half), half - 1) * scale
      }
    }
  }

  @Test func floatsByTokenAndByGroup() {
    for (quantization, groups) in [(InputQuantization.fp8, 1), (InputQuantization(bits: 8, grid: .float, granularity: .group(16)), 4)] {
      check(quantization, groups) { value, group in
        let scale = amax(group) / 448
        return Double(MiniFloat.e4m3.rounded(Float(value / scale))) * scale
      }
    }
  }

  @Test func microscaling() {
    for bits in [4, 8] {
      let format = bits == 4 ? MiniFloat.e2m1 : .e4m3
      check(.mx(bits: bits), 2) { value, group in
        let scale = Double(PowerOfTwoScale.value(PowerOfTwoScale.code(amax: Float(amax(group)), of: format)))
        return Double(format.rounded(Float(value / scale))) * scale
      }
    }
  }

  @Test func calibratedScales() {
    let largest = input.elements.map(abs).max()!
    check(InputQuantization.intTensor(8).calibrated(amax: largest), 1) { value, _ in
      let scale = Double(largest) / 127.5
      return min(max((value / scale).rounded(.toNearestOrEven), -128), 127) * scale
    }
    let local = InputQuantization.nvfp4.calibrated(amax: largest)
    #expect(local.scale == 2688 / largest)
    check(local, 4) { value, group in
      let scale = Double(MiniFloat.e4m3.rounded(local.scale! * Float(amax(group)) / 6)) / Double(local.scale!)
      return Double(MiniFloat.e2m1.rounded(Float(value / scale))) * scale
    }
  }

  @Test func zerosStayZeros() {
    let zeros = Matrix(rows: 2, columns: 32)
    for quantization in [
      InputQuantization.int(8), .fp8, .fp8Group, .mx(bits: 4), .nvfp4.calibrated(amax: 0), .fp8Tensor.calibrated(amax: 0),
    ] {
      #expect(quantization.rounded(zeros) == zeros)
    }
  }

  @Test func aBlockSeesQuantizedInputs() throws {
    let model = try TinyModel.model()
    var block = try model.block(0)
    let hidden = Matrix.random(rows: 7, columns: 32, key: "hidden")
    let plain = try PreparedBlock(block, positions: 7).forward(hidden)
    for name in block.linears.keys { block[name].inputQuantization = .int(8) }
    let quantized = try PreparedBlock(block, positions: 7).forward(hidden)
    let error = zip(plain.elements, quantized.elements).map { abs($0 - $1) }.max()!
    #expect(error > 0 && error < 0.05)
    // The same by hand for the one layer that is easy to isolate.
    var state = try PreparedBlock(block, positions: 7).start(hidden)
    let input = try #require(state.input)
    try PreparedBlock(block, positions: 7).advance(&state)
    block["self_attn.q_proj"].inputQuantization = nil
    block["self_attn.k_proj"].inputQuantization = nil
    block["self_attn.v_proj"].inputQuantization = nil
    var byHand = try PreparedBlock(block, positions: 7).resume(
      stage: 0, [.stream: hidden, "attention input": InputQuantization.int(8).rounded(input)])
    try PreparedBlock(block, positions: 7).advance(&byHand)
    #expect(byHand.input == state.input)
  }

  @Test(arguments: [QuantizationScheme.Grid.integer, .float]) func headsAreRoundedByTheirOwnScales(_ grid: QuantizationScheme.Grid) {
    let states = Matrix.random(rows: 5, columns: 12, key: "states")
    let scales: [Float] = [0.01, 0.05, 0.2]
    var rounded = states
    CacheScale(grid: grid, headScales: scales).round(&rounded)
    for (head, scale) in scales.enumerated() {
      var alone = Matrix(
        rows: 5, columns: 4, elements: (0..<5).flatMap { row in (0..<4).map { states[row, head * 4 + $0] } })
      CacheScale(grid: grid, scale: scale).round(&alone)
      for row in 0..<5 { for column in 0..<4 { #expect(rounded[row, head * 4 + column] == alone[row, column]) } }
    }
    #expect(CacheScale(grid: grid, headScales: scales).scale == 0.2)
  }

  @Test func theCacheIsRounded() throws {
    let model = try TinyModel.model()
    var block = try model.block(0)
    let hidden = Matrix.random(rows: 7, columns: 32, key: "hidden")
    let plain = try PreparedBlock(block, positions: 7).forward(hidden)
    for grid in [QuantizationScheme.Grid.integer, .float] {
      block.cache = CacheQuantization(key: CacheScale(grid: grid, amax: 4), value: CacheScale(grid: grid, amax: 4))
      let cached = try PreparedBlock(block, positions: 7).forward(hidden)
      let error = zip(plain.elements, cached.elements).map { abs($0 - $1) }.max()!
      #expect(error > 0 && error < 0.2, "\(grid)")
    }
    // A scale far too large leaves nothing of either.
    block.cache = CacheQuantization(key: CacheScale(grid: .integer, scale: 1e6), value: CacheScale(grid: .integer, scale: 1e6))
    let prepared = PreparedBlock(block, positions: 7)
    var state = try prepared.start(hidden)
    try prepared.advance(&state)
    #expect(try #require(state.input).elements.allSatisfy { $0 == 0 })
  }
}
