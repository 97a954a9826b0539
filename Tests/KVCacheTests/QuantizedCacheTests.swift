import CompressKit
import Foundation
import TestSupport
import Testing

@testable import KVCache

struct QuantizedCacheTests {
  static let policies: [CachePolicy] = [
    CachePolicy(), .kivi(4), .kivi(2, residual: 0), .kivi(8, group: 8, residual: 13), .byToken(4), .byToken(2, group: 4, residual: 5),
    .byToken(4, residual: 3, isRotated: true), .fp8,
    CachePolicy(key: CacheNumbers(bits: 4, axis: .channel, groupSize: 4), residual: 2),
    CachePolicy(value: CacheNumbers(bits: 3, axis: .token, groupSize: 8), residual: 2),
    // Values along time, too, which no published policy does.
    CachePolicy(
      key: CacheNumbers(bits: 4, axis: .token, groupSize: 8), value: CacheNumbers(bits: 4, axis: .channel, groupSize: 4), residual: 1),
  ]
  static let fixed: [CacheQuantization] = [QuantizationScheme.Grid.integer, .float].map {
    CacheQuantization(key: CacheScale(grid: $0, amax: 5), value: CacheScale(grid: $0, amax: 3))
  }
  static let cuts = [[], [1], Array(repeating: 1, count: 150), [7, 30, 2, 64], Array(repeating: 32, count: 5), [149]]

  @Test(arguments: policies)
  func aCacheInPiecesIsTheOneMadeAtOnce(policy: CachePolicy) throws {
    let sample = try Sample(tokens: 150)
    try compare(sample) { sample.cache(policy) }
  }

  @Test(arguments: fixed)
  func fixedScalesToo(scales: CacheQuantization) throws {
    let sample = try Sample(tokens: 150)
    try compare(sample) { sample.cache(CachePolicy(), fixed: scales) }
  }

  private func compare(_ sample: Sample, _ make: () -> KeyValueCache) throws {
    var whole = make()
    let output = sample.run(&whole)
    #expect(whole.tokens == 150 && whole.held == 150)
    for cut in Self.cuts {
      var pieces = make()
      let other = sample.run(&pieces, pieces: cut)
      #expect(pieces == whole, "\(cut.prefix(5))")
      #expect(other.largestDifference(from: output) < 1e-5, "\(cut.prefix(5))")
    }
  }

  /// The definition in double precision: what a run of numbers is stored as.
  private func stored(_ run: [Double], bits: Int) -> [Double] {
    let low = Double(Float(Float16(Float(run.min()!))))
    // The quotient in single precision, as the definition has it: it decides what the half is rounded from.
    let scale = Double(Float(Float16((Float(run.max()!) - Float(low)) / Float(1 << bits - 1))))
    return run.map { low + scale * min(max((($0 - low) / scale).rounded(.toNearestOrEven), 0), Double(1 << bits - 1)) }
  }

  @Test func kiviIsThatOfThePaper() throws {
    let sample = try Sample(tokens: 53)
    var cache = sample.cache(.kivi(4, group: 4, residual: 6))
    _ = sample.run(&cache)
    let keys = sample.rotated.keys
    for head in 0..<2 {
      let (original, values) = (sample.head(head, of: keys), sample.head(head, of: sample.values))
      let (heldKeys, heldValues) = (cache.keys(of: head), cache.values(of: head))
      // 47 tokens are older than the residual: eleven groups of four keys, and all 47 values.
      for token in 0..<53 {
        for channel in 0..<8 {
          var key = original[token][channel]
          if token < 44 { key = stored((0..<4).map { original[token / 4 * 4 + $0][channel] }, bits: 4)[token % 4] }
          var value = values[token][channel]
          if token < 47 { value = stored(Array(values[token][channel / 4 * 4..<channel / 4 * 4 + 4]), bits: 4)[channel % 4] }
          #expect(abs(Double(heldKeys[token, channel]) - key) < 1e-5, "key \(token) \(channel)")
          #expect(abs(Double(heldValues[token, channel]) - value) < 1e-5, "value \(token) \(channel)")
        }
      }
    }
    let keyBits = 44 * 8 * 4 + 11 * 8 * 32 + 9 * 8 * 16
    let valueBits = 47 * 8 * 4 + 47 * 2 * 32 + 6 * 8 * 16
    #expect(cache.byteCount == 2 * (keyBits + valueBits) / 8)
  }

  @Test(arguments: [4, 7, 20])
  func everyQuerySeesTheCacheOfItsMoment(window: Int) throws {
    let sample = try Sample(tokens: 40, window: window == 20 ? nil : window)
    let policy = CachePolicy.kivi(2, group: 4, residual: 3)
    var cache = sample.cache(policy)
    let output = sample.run(&cache)
    let (queries, keys) = sample.rotated
    for token in 0..<40 {
      // The cache as token by token would have left it, read through its public face.
      let now = try Sample(tokens: 40, window: sample.description.window)
      var moment = now.cache(policy)
      let rows = 0..<token + 1
      _ = moment.attend(queries: now.queries.rows(rows), keys: now.keys.rows(rows), values: now.values.rows(rows), by: now.block)
      let first = max(0, token + 1 - (sample.description.window ?? 40))
      for head in 0..<4 {
        let (held, values) = (moment.keys(of: head / 2), moment.values(of: head / 2))
        func rows(_ matrix: Matrix) -> [[Double]] { (first...token).map { row in (0..<8).map { Double(matrix[row, $0]) } } }
        let weights = Sample.probabilities(sample.head(head, of: queries)[token], rows(held))
        for (channel, expected) in Sample.mix(weights, rows(values)).enumerated() {
          #expect(abs(Double(output[token, head * 8 + channel]) - expected) < 1e-5, "\(token) \(head) \(channel)")
        }
      }
    }
    #expect(
      cache.keys(of: 0).largestDifference(from: Matrix(rows: 40, columns: 8, elements: sample.head(0, of: keys).joined().map { Float($0) }))
        > 0.05)
  }

  @Test func rotationChangesNothingByItself() throws {
    let sample = try Sample(tokens: 30)
    var (plain, rotated) = (sample.cache(CachePolicy()), sample.cache(CachePolicy(isRotated: true)))
    #expect(sample.run(&plain).largestDifference(from: sample.run(&rotated)) < 1e-5)
    #expect(plain.keys(of: 1).largestDifference(from: rotated.keys(of: 1)) < 1e-5)
  }

  @Test(arguments: [8, 12, 32, 80])
  func rotationsAreOrthogonalAndSpread(size: Int) throws {
    let rotation = try #require(HeadRotation(size: size))
    let states = Matrix.random(rows: 5, columns: 3 * size, key: "states")
    #expect(rotation.undone(in: rotation.applied(to: states)).largestDifference(from: states) < 1e-5)
    var unit = Matrix(rows: 1, columns: size)
    unit[0, size / 2] = 1
    #expect(rotation.applied(to: unit).elements.allSatisfy { abs(abs($0) - 1 / Float(size).squareRoot()) < 1e-6 })
    #expect(HeadRotation(size: 46) == nil)
  }

  @Test func moreBitsAreNeverWorse() throws {
    let sample = try Sample(tokens: 64)
    var plain = sample.cache(CachePolicy())
    let output = sample.run(&plain)
    let errors = [2, 3, 4, 6, 8].map { bits in
      var cache = sample.cache(.kivi(bits, residual: 0))
      return sample.run(&cache).largestDifference(from: output)
    }
    #expect(errors == errors.sorted(by: >), "\(errors)")
    #expect(errors.last! < errors.first! / 10)
  }

  @Test func constantAndHugeNumbersAreStored() throws {
    var runs = CodeRuns(.measured(CacheNumbers(bits: 2, axis: .token, groupSize: 4)), length: 4)
    for values in [[0, 0, 0, 0], [3, 3, 3, 3], [1000.25, 1000, 1000.75, 1000.5], [-1e9, 1e9, 0, 0], [1e-9, 2e-9, 0, 0]] as [[Float]] {
      values.withUnsafeBufferPointer { runs.append($0) }
    }
    var out = [Float](repeating: .nan, count: 20)
    out.withUnsafeMutableBufferPointer { out in runs.decode { out.baseAddress! + $0 * 4 } }
    #expect(Array(out[0..<12]) == [0, 0, 0, 0, 3, 3, 3, 3, 1000.25, 1000, 1000.75, 1000.5])
    #expect(out.allSatisfy(\.isFinite) && out[12] == -65504 && out[16...].allSatisfy { abs($0) < 1e-7 })
    #expect(runs.byteCount == 5 * (1 + 4))
  }
}
