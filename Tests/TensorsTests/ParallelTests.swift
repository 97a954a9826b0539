import Synchronization
import Tensors
import Testing

struct ParallelTests {
  private struct Failure: Error, Equatable { var index: Int }

  @Test(arguments: [1, 2, 3, 16], [0, 1, 2, 5, 1000]) func everyIndexRunsOnce(_ width: Int, _ count: Int) {
    let visits = Mutex([Int](repeating: 0, count: count))
    Parallel.$width.withValue(width) { Parallel.forEach(count) { index in visits.withLock { $0[index] += 1 } } }
    #expect(visits.withLock { $0 } == Array(repeating: 1, count: count))
  }

  @Test(arguments: [1, 2, 7]) func theLowestErrorIsThrownAfterAllHaveRun(_ width: Int) {
    let ran = Mutex(0)
    #expect(throws: Failure(index: 3)) {
      try Parallel.$width.withValue(width) {
        try Parallel.forEach(
          200,
          throwing: { index throws(Failure) in
            ran.withLock { $0 += 1 }
            if [3, 4, 57, 199].contains(index) { throw Failure(index: index) }
          })
      }
    }
    #expect(ran.withLock { $0 } == 200)
  }

  @Test(arguments: [1, 2, 7]) func resultsKeepTheirOrder(_ width: Int) {
    #expect(Parallel.$width.withValue(width) { Parallel.map(300) { $0 * $0 } } == (0..<300).map { $0 * $0 })
  }

  @Test func sectionsDoNotNest() {
    let widths = Mutex(Set<Int>())
    Parallel.$width.withValue(4) { Parallel.forEach(8) { _ in widths.withLock { _ = $0.insert(Parallel.width) } } }
    #expect(widths.withLock { $0 } == [1])
  }
}

struct KeyedRandomnessTests {
  @Test func theSequenceIsFixed() {
    // Computed apart from the package: FNV-1a of the key, then SplitMix64.
    var random = KeyedRandomness(seed: 42, key: "pass", "model.layers.0")
    #expect((0..<3).map { _ in random.next() } == [0x97F9_08E0_2074_76FE, 0x5F16_6D8D_053F_7DCD, 0xF2D4_8EC8_0174_ADF0])
  }

  @Test func keysAndSeedsTellSequencesApart() {
    func first(_ random: KeyedRandomness) -> UInt64 {
      var random = random
      return random.next()
    }
    let values = [
      first(KeyedRandomness(seed: 1, key: "ab", "c")), first(KeyedRandomness(seed: 1, key: "a", "bc")),
      first(KeyedRandomness(seed: 1, key: "abc")),
      first(KeyedRandomness(seed: 2, key: "abc")), first(KeyedRandomness(seed: 1, key: "abc", "")),
    ]
    #expect(Set(values).count == values.count)
    #expect(first(KeyedRandomness(seed: 1, key: "abc")) == values[2])
  }
}
