import Foundation
import Tensors
import TestSupport
import Testing

struct KernelsTests {
  @Test func theInstructionSetHasAName() {
    #expect(["avx512", "avx2", "baseline"].contains(Kernel.instructionSet))
  }

  @Test(arguments: sizes) func rootMeanSquareNorm(_ count: Int) {
    for (row, scale) in [Float(1), 1e-4, 100].enumerated() {
      let (x, weight) = (values(count, "x\(row)", scale: scale), values(count, "weight"))
      let found = Matrix(rows: 1, columns: count, elements: x).rmsNormalized(weight: weight, epsilon: 1e-5)
      expectClose(found.elements, Reference.rmsNorm(x, weight: weight, epsilon: 1e-5), relative: 3e-6, absolute: 1e-20)
    }
  }

  @Test func everyRowIsNormalisedOnItsOwn() {
    let x = Matrix.random(rows: 5, columns: 33, key: "rows")
    let weight = values(33, "weight")
    let found = x.rmsNormalized(weight: weight, epsilon: 1e-6)
    for row in 0..<5 {
      expectClose(
        found.rows(row..<row + 1).elements, Reference.rmsNorm(x.rows(row..<row + 1).elements, weight: weight, epsilon: 1e-6), relative: 3e-6
      )
    }
  }

  @Test(arguments: sizes) func addition(_ count: Int) {
    var a = Matrix.random(rows: 3, columns: count, key: "a")
    let (before, b, row) = (a, Matrix.random(rows: 3, columns: count, key: "b"), values(count, "row"))
    a.add(b)
    #expect(a.elements == zip(before.elements, b.elements).map { $0 + $1 })
    a.add(row: row)
    #expect(a[2, count - 1] == before[2, count - 1] + b[2, count - 1] + row[count - 1])
    #expect(a[0, 0] == before[0, 0] + b[0, 0] + row[0])
  }

  @Test(arguments: sizes) func softmax(_ count: Int) {
    for scale in [Float(1), 0.125, 7] {
      var row = values(count, "softmax", scale: 3)
      let expected = Reference.softmax(row, scale: scale)
      Kernel.softmax(&row, count: count, scale: scale)
      expectClose(row, expected, relative: 2e-5, absolute: 1e-30)
      #expect(abs(row.reduce(0.0) { $0 + Double($1) } - 1) < 1e-5)
    }
  }

  @Test func softmaxSurvivesExtremes() {
    var row: [Float] = [-10_000, 0, 10_000, 9_999, -.infinity]
    Kernel.softmax(&row, count: 5, scale: 1)
    expectClose(row, [0, 0, 1 / (1 + exp(-1)), exp(-1) / (1 + exp(-1)), 0], relative: 1e-6, absolute: 1e-30)
  }

  @Test(arguments: sizes + [150_000]) func logSumExp(_ count: Int) {
    for scale in [Float(0.1), 3, 30] {
      let row = values(count, "logits", scale: scale)
      #expect(abs(Kernel.logSumExp(row, count: count) - Reference.logSumExp(row)) < 2e-6 * max(1, Double(scale)))
    }
  }

  @Test(arguments: sizes + [150_000]) func divergence(_ count: Int) {
    let (p, q) = (values(count, "p", scale: 2), values(count, "q", scale: 2))
    func divergence(_ a: [Float], _ b: [Float]) -> Double {
      Kernel.klDivergence(
        a, logSumExp: Kernel.logSumExp(a, count: count), b, logSumExp: Kernel.logSumExp(b, count: count), count: count)
    }
    #expect(abs(divergence(p, q) - Reference.klDivergence(p, q)) < 1e-5)
    #expect(divergence(p, p) == 0)
    // Near by, where cancellation would show.
    let near = zip(p, values(count, "noise", scale: 1e-3)).map { $0 + $1 }
    #expect(abs(divergence(p, near) - Reference.klDivergence(p, near)) < 2e-7)
  }

  @Test(arguments: sizes) func gates(_ count: Int) {
    let up = Matrix.random(rows: 1, columns: count, key: "up")
    for scale in [Float(1), 8] {
      let gate = Matrix.random(rows: 1, columns: count, key: "gate", scale: scale)
      var (silu, gelu) = (gate, gate)
      silu.siluGate(up)
      expectClose(silu.elements, Reference.siluGate(gate.elements, up.elements), relative: 4e-6, absolute: 1e-7)
      gelu.geluTanhGate(up)
      expectClose(gelu.elements, Reference.geluTanhGate(gate.elements, up.elements), relative: 1e-5, absolute: 2e-6)
    }
  }

  @Test(arguments: sizes) func ungatedActivations(_ count: Int) {
    let x = Matrix.random(rows: 1, columns: count, key: "x", scale: 3)
    let up = Matrix.random(rows: 1, columns: count, key: "up")
    var (gelu, relu, product) = (x, x, x)
    gelu.gelu()
    expectClose(gelu.elements, Reference.gelu(x.elements), relative: 1e-5, absolute: 1e-6)
    relu.relu()
    #expect(relu.elements == x.elements.map { max($0, 0) })
    product.multiply(by: up)
    #expect(product.elements == zip(x.elements, up.elements).map { $0 * $1 })
  }

  @Test(arguments: sizes) func layerNormalisation(_ count: Int) {
    let weight = values(count, "weight")
    let x = values(count, "x").map { $0 + 3 }
    let found = Matrix(rows: 1, columns: count, elements: x).layerNormalized(weight: weight, epsilon: 1e-5)
    expectClose(found.elements, Reference.layerNorm(x, weight: weight, epsilon: 1e-5), relative: 3e-5, absolute: 1e-5)
  }

  @Test func gatesSaturate() {
    let extremes: [Float] = [-1e4, -200, -88.5, 0, 88.5, 200, 1e4]
    let ones = Matrix(rows: 1, columns: 7, repeating: 1)
    var (silu, gelu) = (Matrix(rows: 1, columns: 7, elements: extremes), Matrix(rows: 1, columns: 7, elements: extremes))
    silu.siluGate(ones)
    gelu.geluTanhGate(ones)
    expectClose(silu.elements, extremes.map { max($0, 0) }, relative: 1e-6, absolute: 1e-30)
    expectClose(gelu.elements, extremes.map { max($0, 0) }, relative: 1e-6, absolute: 1e-30)
  }

  @Test(arguments: [2, 6, 14, 16, 18, 32, 34, 66, 128]) func rotary(_ headSize: Int) {
    let angles = (0..<headSize / 2).map { Float($0) * 0.7 + 0.1 }
    let (cosine, sine) = (angles.map { cos($0) }, angles.map { sin($0) })
    var row = values(3 * headSize, "rotary")
    let expected = Reference.rotary(row, cosine: cosine, sine: sine, headSize: headSize)
    Kernel.rotary(&row, cosine: cosine, sine: sine, heads: 3, headSize: headSize)
    expectClose(row, expected, absolute: 1e-6)
  }

  @Test(arguments: sizes) func findsWhatIsNotFinite(_ count: Int) {
    var row = values(count, "finite")
    #expect(!row.withUnsafeBufferPointer(Kernel.hasNonfinite))
    row[0] = .greatestFiniteMagnitude
    #expect(!row.withUnsafeBufferPointer(Kernel.hasNonfinite))
    for bad in [Float.nan, .infinity, -.infinity, -.nan] {
      for index in Set([0, count / 2, count - 1]) {
        var damaged = row
        damaged[index] = bad
        #expect(damaged.withUnsafeBufferPointer(Kernel.hasNonfinite), "\(bad) at \(index)")
      }
    }
    #expect(![Float]().withUnsafeBufferPointer(Kernel.hasNonfinite))
  }
}

struct QuantizationKernelTests {
  @Test(arguments: sizes) func range(_ count: Int) {
    let row = values(count, "range")
    #expect(row.withUnsafeBufferPointer(Kernel.range) == row.min()!...row.max()!)
    #expect([Float]().withUnsafeBufferPointer(Kernel.range) == 0...0)
  }

  @Test(arguments: sizes, [2, 3, 4, 8]) func codesAreThoseOfTheDefinition(_ count: Int, _ bits: Int) {
    let top = Float((1 << bits) - 1)
    var row = values(count, "codes")
    // Extremes, and ties: multiples of a half at a scale of 1/4.
    for index in stride(from: 0, to: count, by: 3) { row[index] = (row[index] * 8).rounded() / 8 }
    if count > 4 { row.replaceSubrange(0..<4, with: [1e30, -1e30, 0, -0.0]) }
    for (scale, zero) in [(Float(0.25), (top + 1) / 2), (0.037, 1), (3e-8, 0), (1e9, top), (2e-4, -9000.5)] {
      var codes = [UInt8](repeating: 77, count: count)
      row.withUnsafeBufferPointer { Kernel.quantize($0, scale: scale, zero: zero, top: top, into: &codes) }
      #expect(codes == row.map { UInt8(Reference.code($0, scale: scale, zero: zero, top: top)) })
      var back = [Float](repeating: 0, count: count)
      codes.withUnsafeBufferPointer { Kernel.dequantize($0, scale: scale, zero: zero, into: &back) }
      #expect(back == codes.map { scale * (Float($0) - zero) })
    }
  }

  @Test(arguments: sizes, [2, 3, 4, 8]) func errorIsThatOfTheDefinition(_ count: Int, _ bits: Int) {
    let top = Float((1 << bits) - 1)
    let row = values(count, "error")
    let importance = values(count, "importance").map { abs($0) }
    let (scale, zero) = (6 / top, ((top + 1) / 2).rounded())
    row.withUnsafeBufferPointer { part in
      let plain = Kernel.quantizationError(part, importance: nil, scale: scale, zero: zero, top: top)
      let expected = Reference.quantizationError(row, importance: nil, scale: scale, zero: zero, top: top)
      #expect(abs(Double(plain) - expected) <= 1e-4 * expected + 1e-12)
      let weighted = Kernel.quantizationError(part, importance: importance, scale: scale, zero: zero, top: top)
      let weightedExpected = Reference.quantizationError(row, importance: importance, scale: scale, zero: zero, top: top)
      #expect(abs(Double(weighted) - weightedExpected) <= 1e-4 * weightedExpected + 1e-12)
    }
  }

  @Test(arguments: sizes) func codeMoments(_ count: Int) {
    let (row, importance) = (values(count, "moments"), values(count, "importance").map { abs($0) })
    let (scale, zero, top) = (Float(0.31), Float(7), Float(15))
    row.withUnsafeBufferPointer { part in
      for weights in [nil, importance] {
        let found = Kernel.codeMoments(part, importance: weights, scale: scale, zero: zero, top: top)
        let expected = Reference.codeMoments(row, importance: weights, scale: scale, zero: zero, top: top)
        #expect(abs(Double(found.product) - expected.product) <= 1e-5 * abs(expected.product) + 1e-6)
        #expect(abs(Double(found.square) - expected.square) <= 1e-5 * expected.square + 1e-6)
      }
    }
  }

  @Test(arguments: sizes, [2, 4, 8]) func bestScaleIsThatOfTheDefinition(_ count: Int, _ bits: Int) {
    let (row, importance) = (values(count, "scales"), values(count, "importance").map { abs($0) })
    let (top, zero) = (Float((1 << bits) - 1), Float(1 << (bits - 1)))
    let offsets = (0..<Kernel.candidateCount).map { Float($0 % 2 == 0 ? 1 : -1) * (0.31 + Float($0) * 0.04) }
    let unit = 6 / top
    row.withUnsafeBufferPointer { part in
      for weights in [nil, importance] {
        let found = Kernel.bestScale(part, importance: weights, unit: unit, centre: 0.01, offsets: offsets, zero: zero, top: top)
        let gains = offsets.map {
          let moments = Reference.codeMoments(row, importance: weights, scale: unit * (0.01 + $0), zero: zero, top: top)
          return moments.square > 0 ? (moments.product * moments.product / moments.square, moments.product / moments.square) : (0, 0)
        }
        let best = gains.map(\.0).max() ?? 0
        #expect(abs(Double(found.gain) - best) <= 1e-4 * best + 1e-12)
        #expect(best - gains[found.index].0 <= 1e-4 * best)
        #expect(abs(Double(found.scale) - gains[found.index].1) <= 1e-4 * abs(gains[found.index].1) + 1e-9)
      }
    }
  }

  @Test(arguments: sizes, [2, 4, 8]) func bestGridIsThatOfTheDefinition(_ count: Int, _ bits: Int) {
    let (row, importance) = (values(count, "grids"), values(count, "importance").map { abs($0) })
    let top = Float((1 << bits) - 1)
    let scales = (0..<Kernel.candidateCount).map { (2 + 0.3 * Float($0)) / top }
    let zeros = (0..<Kernel.candidateCount).map { top * Float($0) / 31 }
    row.withUnsafeBufferPointer { part in
      for weights in [nil, importance] {
        let found = scales.withUnsafeBufferPointer { scales in
          zeros.withUnsafeBufferPointer { Kernel.bestGrid(part, importance: weights, scales: scales, zeros: $0, top: top) }
        }
        let errors = zip(scales, zeros).map { Reference.quantizationError(row, importance: weights, scale: $0, zero: $1, top: top) }
        #expect(abs(Double(found.error) - errors.min()!) <= 1e-4 * errors.min()! + 1e-12)
        #expect(errors[found.index] - errors.min()! <= 1e-4 * errors.min()!)
      }
    }
  }

  @Test(arguments: sizes) func zerosOfEitherSignAreCounted(_ count: Int) {
    let row = values(count, "zeros").enumerated().map { $0 % 3 == 0 ? 0 : $0 % 7 == 0 ? -0.0 : $1 }
    #expect(row.withUnsafeBufferPointer { Kernel.countZeros($0) } == row.count { $0 == 0 })
  }

  @Test(arguments: sizes) func squaredDistances(_ count: Int) {
    let (a, b) = (values(count, "left"), values(count, "right"))
    let distance = Reference.squaredDistance(a, b)
    #expect(abs(Kernel.squaredDistance(a, b, count: count) - distance) <= 1e-5 * distance + 1e-12)
    let norm = Reference.squaredDistance(a, a.map { _ in 0 })
    #expect(abs(Kernel.squaredDistance(a, nil, count: count) - norm) <= 1e-5 * norm + 1e-12)
  }

  @Test(arguments: 1...8, [1, 7, 8, 16, 17, 32, 33, 255, 4097]) func packing(_ bits: Int, _ count: Int) {
    var random = KeyedRandomness(seed: 3, key: "pack", "\(bits)", "\(count)")
    let codes = (0..<3 * count).map { _ in UInt8.random(in: 0...UInt8((1 << bits) - 1), using: &random) }
    let words = Kernel.pack(codes, rowLength: count, bits: bits)
    let expected = (0..<3).flatMap { (row: Int) -> [UInt32] in
      Reference.packBits(Array(codes[row * count..<(row + 1) * count]), bits: bits)
    }
    #expect(words == expected)
    #expect(Kernel.unpack(words, rowLength: count, bits: bits) == codes)
  }

  @Test func packingNothing() {
    #expect(Kernel.pack([], rowLength: 0, bits: 4).isEmpty)
    #expect(Kernel.unpack([], rowLength: 0, bits: 4).isEmpty)
  }

  @Test(arguments: [(1, 1), (7, 3), (16, 16), (17, 8), (33, 32), (64, 5)]) func blockOfGPTQColumns(_ rows: Int, _ columns: Int) {
    let stride = columns + 3
    let weight = values(rows * columns, "weight")
    let start = zip(weight, values(rows * columns, "feedback of earlier blocks", scale: 0.1)).map { $0 + $1 }
    let feedback = values(columns * stride, "feedback", scale: 0.2)
    let scales = values(rows * columns, "scales").map { 0.2 + 0.02 * abs($0) }
    let zeros = (0..<rows * columns).map { Float($0 % 5 + 5) }
    var (target, codes, errors) = (start, [UInt8](repeating: 0, count: rows * columns), [Float](repeating: 0, count: rows * columns))
    Kernel.gptqBlock(
      target: &target, weight: weight, feedback: feedback, feedbackStride: stride, scales: scales, zeros: zeros, top: 15, codes: &codes,
      errors: &errors, columns: columns, rows: rows)
    for row in 0..<rows {
      var sums = (0..<columns).map { Double(start[$0 * rows + row]) }
      for column in 0..<columns {
        let at = column * rows + row
        let (scale, zero) = (Double(scales[at]), Double(zeros[at]))
        let code = min(max((sums[column] / scale + zero - 8).rounded(.toNearestOrEven) + 8, 0), 15)
        #expect(Double(codes[at]) == code, "row \(row), column \(column)")
        let error = Double(weight[at]) - scale * (code - zero)
        #expect(abs(Double(errors[at]) - error) < 2e-6)
        #expect(abs(Double(target[at]) - sums[column]) < 1e-5)
        for later in column + 1..<max(columns, column + 1) { sums[later] += Double(feedback[column * stride + later]) * error }
      }
    }
  }

  @Test(arguments: [(1, 1), (7, 3), (16, 16), (17, 8), (33, 32), (64, 5)]) func aSweepOfCoordinateDescent(_ rows: Int, _ columns: Int) {
    let stride = columns + 3
    var hessian = values(columns * stride, "hessian", scale: 0.1)
    for i in 0..<columns {
      for k in 0..<i { hessian[i * stride + k] = hessian[k * stride + i] }
      hessian[i * stride + i] = 1 + abs(hessian[i * stride + i])
    }
    // A scale of zero holds its level; a negative one is a grid laid the other way.
    let scales = values(rows * columns, "scales").enumerated().map { $0 % 11 == 5 ? 0 : ($0 % 4 == 0 ? -1 : 1) * (0.2 + 0.02 * abs($1)) }
    let zeros = (0..<rows * columns).map { Float($0 % 5 + 5) }
    let start = (0..<rows * columns).map { Float($0 * 7 % 16) - zeros[$0] }
    let before = values(rows * columns, "gradient", scale: 0.3)
    var (gradient, levels, moves) = (before, start, [Float](repeating: 77, count: rows * columns))
    Kernel.descendBlock(
      gradient: &gradient, hessian: hessian, hessianStride: stride, scales: scales, zeros: zeros, top: 15, levels: &levels, moves: &moves,
      columns: columns, rows: rows)
    for row in 0..<rows {
      var sums = (0..<columns).map { Double(before[$0 * rows + row]) }
      for column in 0..<columns {
        let at = column * rows + row
        let (scale, curvature) = (Double(scales[at]), Double(hessian[column * stride + column]))
        #expect(abs(Double(moves[at]) - scale * Double(start[at] - levels[at])) < 1e-5)
        // The loss as a parabola of this level alone, against all others there are.
        func loss(_ level: Double) -> Double {
          let move = scale * (Double(start[at]) - level)
          return 2 * sums[column] * move + curvature * move * move
        }
        let best = scale == 0 ? Double(start[at]) : (0...15).map { Double($0) - Double(zeros[at]) }.min { loss($0) < loss($1) }!
        #expect(loss(Double(levels[at])) - loss(best) < 1e-5, "row \(row), column \(column)")
        if scale == 0 { #expect(levels[at] == start[at]) }
        for other in 0..<columns { sums[other] += Double(hessian[column * stride + other]) * scale * Double(start[at] - levels[at]) }
      }
    }
  }

  @Test(arguments: [(1, 1), (4, 8), (16, 7), (8, 33), (24, 64)], [(0, 0), (2, 4), (1, 8)])
  func aBlockOfSparseGPTIsItsRecursion(shape: (Int, Int), choice: (Int, Int)) {
    let (columns, rows) = shape
    let (pruned, group) = choice
    guard group == 0 || columns % group == 0 else { return }
    let stride = columns + 3
    let (start, weight) = (values(rows * columns, "target"), values(rows * columns, "weight"))
    let feedback = values(stride * columns, "feedback").map { $0 * 0.1 }
    let pivots = values(columns, "pivots").map { abs($0) + 0.1 }
    let given = (0..<rows * columns).map { $0 % 3 == 0 }
    var (target, mask, errors) = (start, given, [Float](repeating: 0, count: rows * columns))
    Kernel.sparseGPTBlock(
      target: &target, weight: weight, feedback: feedback, feedbackStride: stride, pivots: pivots,
      choosing: group == 0 ? nil : (pruned, group), mask: &mask, errors: &errors, columns: columns, rows: rows)
    for row in 0..<rows {
      var sums = (0..<columns).map { Double(start[$0 * rows + row]) }
      for column in 0..<columns {
        if group > 0, column % group == 0 {
          var kept = sums
          for at in column..<column + group {
            for later in at + 1..<max(column + group, at + 1) {
              kept[later] += Double(feedback[at * stride + later]) * (Double(weight[at * rows + row]) - kept[at])
            }
          }
          let costs = (column..<column + group).map { (at: Int) -> Double in Double(pivots[at]) * kept[at] * kept[at] }
          let order = (column..<column + group).sorted { costs[$0 - column] < costs[$1 - column] }
          for (rank, at) in order.enumerated() { #expect(mask[at * rows + row] == (rank < pruned), "row \(row), column \(at)") }
        } else if group == 0 {
          #expect(mask[column * rows + row] == given[column * rows + row])
        }
        let at = column * rows + row
        let error = Double(weight[at]) - (mask[at] ? 0 : sums[column])
        #expect(abs(Double(errors[at]) - error) < 1e-5)
        #expect(abs(Double(target[at]) - sums[column]) < 1e-5)
        for later in column + 1..<max(columns, column + 1) { sums[later] += Double(feedback[column * stride + later]) * error }
      }
    }
  }
}
