import CompressKit
import TestSupport
import Testing

struct GPTQSolverTests {
  private func solver(_ x: Matrix, group: Int, order: GPTQ.Order, damping: Double = 0.01) throws -> GPTQSolver {
    try GPTQSolver.prepare(hessian(x), groupSize: group, order: order, damping: damping).get()
  }

  @Test(arguments: 0..<12) func solvesTheFixtureAsItsDefinitionDoes(_ index: Int) throws {
    let json = try fixture("gptq")
    let (weight, x) = (try #require(json["weights"]).matrix(), try #require(json["inputs"]).matrix().transposed())
    let golden = try #require(json["cases"]?.elements)[index]
    let group = try #require(golden["group_size"]?.integer)
    let order = try #require(GPTQ.Order(rawValue: golden["order"]?.string ?? ""))
    let scheme = QuantizationScheme(
      bits: try #require(golden["bits"]?.integer), granularity: .group(group), symmetric: golden["symmetric"] == .bool(true),
      scaleType: .bfloat16)
    let damping = try #require(json["damping"]?.double)
    let solver = try solver(x, group: group, order: order, damping: damping)
    let (quantized, own) = solver.quantize(weight, scheme: scheme, scales: .minmax, staticGroups: true)
    #expect(try quantized.codes.map { Float($0) } == #require(golden["codes"]).matrix().elements)
    #expect(try quantized.scales == #require(golden["scales"]).matrix())
    if scheme.symmetric {
      #expect(quantized.zeroPoints == nil)
    } else {
      #expect(try quantized.zeroPoints == #require(golden["zero_points"]).matrix())
    }
    let relative = loss(difference(weight, quantized.dense()), x) / loss(weight, x)
    let expected = try #require(golden["relative_loss"]?.double)
    #expect(abs(relative - expected) < 1e-5 * expected)
    let nearest = RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
    let expectedNearest = try #require(golden["relative_loss_nearest"]?.double)
    #expect(abs(loss(difference(weight, nearest.dense()), x) / loss(weight, x) - expectedNearest) < 1e-5 * expectedNearest)
    // The solver's own figure is the same sum with the damped Hessian.
    let damped = loss(difference(weight, quantized.dense()), x, damping: damping) / loss(weight, x, damping: damping)
    #expect(abs(own - damped) < 1e-4 * damped)
  }

  @Test(arguments: GPTQ.Order.allCases, [true, false])
  func theLossItStatesIsTheLoss(_ order: GPTQ.Order, _ fixed: Bool) throws {
    let (x, weight) = (correlated(tokens: 120, features: 48, key: "x"), Matrix.random(rows: 70, columns: 48, key: "w"))
    for bits in [2, 3, 4, 8] {
      let scheme = QuantizationScheme(bits: bits, granularity: .group(16), symmetric: bits % 2 == 0, scaleType: .float32)
      let (quantized, own) = try solver(x, group: 16, order: order).quantize(weight, scheme: scheme, staticGroups: fixed)
      let exact = loss(difference(weight, quantized.dense()), x, damping: 0.01) / loss(weight, x, damping: 0.01)
      #expect(abs(own - exact) < 1e-3 * exact, "\(bits) bits: \(own), not \(exact)")
    }
  }

  @Test(arguments: GPTQ.Order.allCases, [true, false]) func refiningLosesLessAndSaysSo(_ order: GPTQ.Order, _ refit: Bool) throws {
    let (x, weight) = (correlated(tokens: 300, features: 64, key: "refine"), Matrix.random(rows: 70, columns: 64, key: "w"))
    let solver = try GPTQSolver.prepare(hessian(x), groupSize: 16, order: order, damping: 0.01, refining: true).get()
    for bits in [2, 3, 4, 8] {
      for choice in [ScaleChoice.clip, .fullRange] {
        let scheme = QuantizationScheme(bits: bits, granularity: .group(16), symmetric: bits != 3, scaleType: .float32)
        var last = Double.infinity
        for rounds in [0, 1, 3] {
          let (quantized, own) = solver.quantize(weight, scheme: scheme, scales: choice, refit: refit, refine: rounds, blockSize: 24)
          let exact = loss(difference(weight, quantized.dense()), x, damping: 0.01) / loss(weight, x, damping: 0.01)
          #expect(abs(own - exact) < 1e-3 * exact, "\(scheme), \(rounds) rounds: \(own), not \(exact)")
          #expect(own < last, "\(scheme), \(rounds) rounds")
          last = own
        }
      }
    }
  }

  @Test func afterManyRoundsNoCodeHasABetterNeighbour() throws {
    let (x, weight) = (correlated(tokens: 200, features: 32, key: "settled"), Matrix.random(rows: 20, columns: 32, key: "w"))
    let solver = try GPTQSolver.prepare(hessian(x), groupSize: 16, order: .natural, damping: 0.01, refining: true).get()
    let scheme = QuantizationScheme(bits: 3, granularity: .group(16), symmetric: true, scaleType: .float32)
    let quantized = solver.quantize(weight, scheme: scheme, refine: 30).quantized
    let error = difference(weight, quantized.dense())
    let moment = hessian(x).matrix
    let shift = 0.01 * moment.diagonal.reduce(0, +) / 32
    for row in 0..<20 {
      for column in 0..<32 {
        let gradient = (0..<32).reduce(0.0) { $0 + Double(error[row, $1]) * (moment[$1, column] + ($1 == column ? shift : 0)) }
        let scale = Double(quantized.scales[row, column / 16])
        for step in [-1, 1] where (0...7).contains(Int(quantized.codes[row * 32 + column]) + step) {
          let change = -2 * gradient * scale * Double(step) + (moment[column, column] + shift) * scale * scale
          #expect(change > -1e-4 * moment[column, column] * scale * scale, "row \(row), column \(column)")
        }
      }
    }
  }

  @Test(arguments: GPTQ.Order.allCases) func losesLessThanRoundingAlone(_ order: GPTQ.Order) throws {
    let (x, weight) = (correlated(tokens: 200, features: 64, key: "less"), Matrix.random(rows: 40, columns: 64, key: "w"))
    for bits in [2, 3, 4, 8] {
      for symmetric in [true, false] {
        for choice in ScaleChoice.allCases {
          let scheme = QuantizationScheme(bits: bits, granularity: .group(16), symmetric: symmetric, scaleType: .bfloat16)
          let quantized = try solver(x, group: 16, order: order).quantize(weight, scheme: scheme, scales: choice).quantized
          let nearest = RoundToNearest.quantize(weight, scheme: scheme, scales: choice)
          #expect(loss(difference(weight, quantized.dense()), x) <= loss(difference(weight, nearest.dense()), x), "\(scheme) \(choice)")
        }
      }
    }
  }

  @Test(arguments: GPTQ.Order.allCases) func withoutCorrelationItIsRounding(_ order: GPTQ.Order) throws {
    var x = Matrix(rows: 32, columns: 32)
    for index in 0..<32 { x[index, index] = 0.5 + Float(index * 7 % 32) / 8 }
    let weight = Matrix.random(rows: 20, columns: 32, key: "diagonal")
    let mean = (0..<32).reduce(Float(0)) { $0 + x[$1, $1] * x[$1, $1] } / 32
    for choice in ScaleChoice.allCases {
      let scheme = QuantizationScheme(bits: 3, granularity: .group(8), symmetric: false, scaleType: .bfloat16)
      let quantized = try solver(x, group: 8, order: order).quantize(weight, scheme: scheme, scales: choice).quantized
      let importance = (0..<32).map { Float(Double(x[$0, $0]) * Double(x[$0, $0]) / Double(mean) + 1e-6) }
      let nearest = RoundToNearest.quantize(weight, scheme: scheme, scales: choice, importance: importance)
      #expect(quantized == nearest, "\(choice)")
    }
  }

  @Test(arguments: GPTQ.Order.allCases) func theSizeOfBlocksChangesNothingButRounding(_ order: GPTQ.Order) throws {
    let (x, weight) = (correlated(tokens: 150, features: 96, key: "blocks"), Matrix.random(rows: 33, columns: 96, key: "w"))
    let scheme = QuantizationScheme(bits: 4, granularity: .group(32), symmetric: true, scaleType: .bfloat16)
    let solver = try solver(x, group: 32, order: order)
    let (whole, expected) = solver.quantize(weight, scheme: scheme, blockSize: 128)
    for size in [1, 7, 32, 48, 96, 1000] {
      let (quantized, loss) = solver.quantize(weight, scheme: scheme, blockSize: size)
      #expect(abs(loss - expected) < 1e-5, "blocks of \(size)")
      let equal = zip(quantized.codes, whole.codes).count { $0 == $1 }
      #expect(Double(equal) > 0.99 * Double(whole.codes.count), "blocks of \(size)")
    }
  }

  @Test(arguments: GPTQ.Order.allCases) func anyNumberOfThreadsGivesTheSameBytes(_ order: GPTQ.Order) throws {
    let (x, weight) = (correlated(tokens: 100, features: 64, key: "threads"), Matrix.random(rows: 200, columns: 64, key: "w"))
    let scheme = QuantizationScheme(bits: 3, granularity: .group(32), symmetric: false, scaleType: .bfloat16)
    func solve(_ width: Int) throws -> (QuantizedMatrix, Double) {
      try Parallel.$width.withValue(width) {
        let (quantized, loss) = try solver(x, group: 32, order: order).quantize(weight, scheme: scheme)
        return (quantized, loss)
      }
    }
    let (one, two, five) = (try solve(1), try solve(2), try solve(5))
    #expect(one.0 == two.0 && one.0 == five.0)
    #expect(one.1 == two.1 && one.1 == five.1)
  }

  @Test(arguments: GPTQ.Order.allCases) func deadInputsAreRounded(_ order: GPTQ.Order) throws {
    var x = correlated(tokens: 60, features: 16, key: "dead")
    let dead = [0, 5, 15]
    for row in 0..<x.rows { for column in dead { x[row, column] = 0 } }
    let weight = Matrix.random(rows: 9, columns: 16, key: "w")
    let solver = try solver(x, group: 16, order: order)
    #expect(solver.deadInputs == 3)
    #expect(solver.damping == 0.01)
    let scheme = QuantizationScheme(bits: 4, granularity: .channel, symmetric: true, scaleType: .float32)
    let quantized = solver.quantize(weight, scheme: scheme, scales: .minmax, staticGroups: true).quantized
    let nearest = RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
    for row in 0..<9 { for column in dead { #expect(quantized.codes[row * 16 + column] == nearest.codes[row * 16 + column]) } }
    #expect(quantized.codes != nearest.codes)
  }

  @Test func withoutAnyDataItIsRounding() throws {
    let weight = Matrix.random(rows: 4, columns: 16, key: "w")
    let solver = try GPTQSolver.prepare(Hessian(features: 16), groupSize: 8, order: .activation, damping: 0.01).get()
    let scheme = QuantizationScheme(bits: 4, granularity: .group(8), symmetric: true)
    #expect(solver.deadInputs == 16)
    #expect(
      solver.quantize(weight, scheme: scheme, scales: .minmax).quantized == RoundToNearest.quantize(weight, scheme: scheme, scales: .minmax)
    )
  }

  @Test func aSingularHessianRaisesTheDamping() throws {
    // Five tokens cannot span sixteen inputs.
    let x = correlated(tokens: 5, features: 16, key: "singular")
    let solver = try solver(x, group: 16, order: .activation, damping: 0)
    #expect(solver.damping > 0 && solver.damping <= 10)
    let scheme = QuantizationScheme(bits: 4, granularity: .channel, symmetric: true)
    let loss = solver.quantize(Matrix.random(rows: 3, columns: 16, key: "w"), scheme: scheme).relativeLoss
    #expect(loss.isFinite && loss >= 0)
  }

  @Test func aHessianWithoutAFactorFails() {
    // Products of such inputs overflow Float.
    let x = Matrix(rows: 4, columns: 3, repeating: 1e30)
    guard case .failure(let failure) = GPTQSolver.prepare(hessian(x), groupSize: 3, order: .natural, damping: 0.01) else {
      Issue.record("factored")
      return
    }
    #expect(failure.tokens == 4)
    #expect(failure.features == 3)
    #expect(failure.damping > 0.01)
    #expect(failure.description.contains("4 calibration tokens for 3 inputs"))
  }

  @Test func rowsWithoutFiniteInputsAreSkipped() {
    var x = correlated(tokens: 10, features: 8, key: "finite")
    let clean = hessian(x.rows(0..<9))
    x[9, 3] = .nan
    let found = hessian(x)
    #expect(found.tokens == 9)
    #expect(found.skippedTokens == 1)
    #expect(found.matrix == clean.matrix)
  }
}
