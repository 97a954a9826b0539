import Models
import Tensors

/// How a quantized weight compares with the weight it was made from.
struct RoundingFigures {
  /// ‖W − Q‖² / ‖W‖².
  let relativeError: Double
  /// How far ranges were clipped: the mean over the groups of the chosen scale as a share of the one that covers the whole range.
  let clip: Double
  /// The share of zeros in the weight, and in what became of it.
  let zeros: (before: Double, now: Double)

  /// What is added up over the parts of a weight.
  struct Sums {
    private(set) var error = 0.0
    private(set) var norm = 0.0
    private(set) var clip = 0.0
    private(set) var zeros = (before: 0, now: 0)

    mutating func add(_ exact: UnsafeBufferPointer<Float>, rounded: UnsafePointer<Float>) {
      guard let base = exact.baseAddress else { return }
      error += Kernel.squaredDistance(base, rounded, count: exact.count)
      norm += Kernel.squaredDistance(base, nil, count: exact.count)
      zeros.before += Kernel.countZeros(exact)
      zeros.now += Kernel.countZeros(UnsafeBufferPointer(start: rounded, count: exact.count))
    }

    mutating func add(clip share: Float) { clip += Double(share) }
  }

  init(_ sums: [Sums], weights: Int, groups: Int) {
    let norm = sums.reduce(0) { $0 + $1.norm }
    relativeError = norm > 0 ? sums.reduce(0) { $0 + $1.error } / norm : 0
    clip = sums.reduce(0) { $0 + $1.clip } / Double(max(1, groups))
    func share(_ count: (Sums) -> Int) -> Double { Double(sums.reduce(0) { $0 + count($1) }) / Double(max(1, weights)) }
    zeros = (share(\.zeros.before), share(\.zeros.now))
  }

  /// Walks over both again.
  ///
  /// - Precondition: both have the same shape.
  init(of quantized: QuantizedMatrix, against weight: Matrix) {
    let (rows, columns, groups) = (weight.rows, weight.columns, quantized.scales.columns)
    precondition(quantized.rows == rows && quantized.columns == columns, "the shapes differ")
    let strip = max(1, (1 << 16) / max(1, columns))
    var ranges = [ClosedRange<Float>](repeating: 0...0, count: rows * groups)
    let errors = ranges.withUnsafeMutableBufferPointer { ranges in
      nonisolated(unsafe) let ranges = ranges
      return Parallel.map((rows + strip - 1) / strip) { index in
        var sums = Sums()
        for row in index * strip..<min((index + 1) * strip, rows) {
          weight.withUnsafeElements { elements in
            let exact = UnsafeBufferPointer(start: elements + row * columns, count: columns)
            sums.add(exact, rounded: quantized.dense(row: row))
            Self.findRanges(of: exact, in: quantized, into: ranges.baseAddress! + row * groups)
          }
        }
        return sums
      }
    }
    self.init(errors + Self.clips(quantized, ranges, rows: rows), weights: rows * columns, groups: quantized.scales.elements.count)
  }

  /// The range of every group of one row.
  private static func findRanges(
    of row: UnsafeBufferPointer<Float>, in quantized: QuantizedMatrix, into ranges: UnsafeMutablePointer<ClosedRange<Float>>
  ) {
    if let columnGroups = quantized.columnGroups {
      for (value, group) in zip(row, columnGroups) { ranges[Int(group)] = ranges[Int(group)].extended(by: value...value) }
      return
    }
    let size = quantized.groupSize
    for group in 0..<quantized.scales.columns {
      ranges[group] = Kernel.range(UnsafeBufferPointer(rebasing: row[group * size..<min((group + 1) * size, row.count)]))
    }
  }

  /// - Parameter ranges: [rows × groups], of the parts of each group that lie in one row.
  private static func clips(_ quantized: QuantizedMatrix, _ ranges: [ClosedRange<Float>], rows: Int) -> [Sums] {
    let search = ScaleSearch(scheme: quantized.scheme, choice: .minmax, globalScale: quantized.globalScale)
    let (scales, height) = (quantized.scales, max(1, quantized.scheme.groupHeight(rows: rows)))
    return Parallel.map(scales.rows) { scaleRow in
      var sums = Sums()
      for group in 0..<scales.columns {
        var range = ranges[scaleRow * height * scales.columns + group]
        for row in scaleRow * height..<min((scaleRow + 1) * height, rows) {
          range = range.extended(by: ranges[row * scales.columns + group])
        }
        sums.add(clip: abs(scales[scaleRow, group] / search.covering(range).scale))
      }
      return sums
    }
  }
}

extension ClosedRange<Float> {
  fileprivate func extended(by other: Self) -> Self {
    Swift.min(lowerBound, other.lowerBound)...Swift.max(upperBound, other.upperBound)
  }
}
