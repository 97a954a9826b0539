import Models
import Tensors

/// The keys or the values of one head: codes of the older tokens, the newer ones as they were computed.
struct HeadStore: Sendable, Equatable {
  /// Numbers of one token.
  let size: Int
  /// So many of the newest tokens are never coded.
  let residual: Int
  /// What is coded together: a token, or for scales along time a group of them.
  private let step: Int
  private var runs: CodeRuns?
  /// The first tokens, coded.
  private(set) var coded = 0
  /// The tokens after those, [tokens × size].
  private var plain: [Float] = []

  /// - Parameter coding: `nil` for all tokens as they are.
  init(_ coding: CodeRuns.Coding?, size: Int, residual: Int) {
    self.size = size
    self.residual = residual
    switch coding {
    case .measured(let numbers) where numbers.axis == .channel:
      step = numbers.groupSize
      runs = CodeRuns(.measured(numbers), length: numbers.groupSize)
    case .measured(let numbers):
      step = 1
      runs = CodeRuns(.measured(numbers), length: numbers.groupSize)
    case .fixed(let scale):
      step = 1
      runs = CodeRuns(.fixed(scale), length: size)
    case nil: step = 1
    }
  }

  private var isByChannel: Bool { if case .measured(let numbers) = runs?.coding { numbers.axis == .channel } else { false } }

  /// Tokens held.
  var count: Int { coded + plain.count / size }

  /// How many tokens are coded once `tokens` of them are held: what does not depend on how they came.
  func coded(of tokens: Int) -> Int { runs == nil ? 0 : max(coded, max(0, tokens - residual) / step * step) }

  /// Bytes a runtime would hold: codes, scales, and the rest in 16 bits.
  var byteCount: Int { (runs?.byteCount ?? 0) + plain.count * Self.plainBytes }
  static let plainBytes = 2

  /// Adds tokens that lie `stride` numbers apart and codes what is old enough.
  ///
  /// - Returns: everything that had not been coded before, the new tokens included, [tokens × size].
  mutating func append(_ states: UnsafePointer<Float>, stride: Int, tokens: Int) -> [Float] {
    plain.reserveCapacity(plain.count + tokens * size)
    for token in 0..<tokens { plain.append(contentsOf: UnsafeBufferPointer(start: states + token * stride, count: size)) }
    let all = plain
    let target = coded(of: count)
    guard target > coded, runs != nil else { return all }
    var column = [Float](repeating: 0, count: step)
    all.withUnsafeBufferPointer { all in
      for first in Swift.stride(from: 0, to: target - coded, by: step) {
        if isByChannel {
          for channel in 0..<size {
            for token in 0..<step { column[token] = all[(first + token) * size + channel] }
            column.withUnsafeBufferPointer { runs!.append($0) }
          }
        } else {
          for start in Swift.stride(from: first * size, to: (first + 1) * size, by: runs!.length) {
            runs!.append(UnsafeBufferPointer(rebasing: all[start..<start + runs!.length]))
          }
        }
      }
    }
    plain.removeFirst((target - coded) * size)
    coded = target
    return all
  }

  /// The coded tokens as numbers again: [tokens × size], or [size × tokens] where scales run along time.
  func decoded() -> (elements: [Float], isTransposed: Bool) {
    guard let runs, coded > 0 else { return ([], false) }
    let (size, coded, step, isByChannel) = (size, coded, step, isByChannel)
    let elements = [Float](unsafeUninitializedCapacity: coded * size) { out, count in
      let out = out.baseAddress!
      runs.decode { run in
        isByChannel ? out + run % size * coded + run / size * step : out + run * runs.length
      }
      count = coded * size
    }
    return (elements, isByChannel)
  }

  /// Everything that is held, [tokens × size].
  func dense() -> Matrix {
    let (elements, isTransposed) = decoded()
    let old = isTransposed ? Matrix(rows: size, columns: coded, elements: elements).transposed().elements : elements
    return Matrix(rows: count, columns: size, elements: old + plain)
  }

  /// Leaves only the given tokens, in ascending order.
  ///
  /// - Precondition: no scales run along time, which tokens would have to share with what is gone.
  mutating func keep(_ tokens: [Int]) {
    precondition(!isByChannel, "tokens that share scales cannot be given up one by one")
    let old = tokens.filter { $0 < coded }
    if var runs {
      let runsPerToken = size / runs.length
      runs.keep(old.flatMap { $0 * runsPerToken..<($0 + 1) * runsPerToken })
      self.runs = runs
    }
    plain = tokens.filter { $0 >= coded }.flatMap { plain[($0 - coded) * size..<($0 - coded + 1) * size] }
    coded = old.count
  }
}
