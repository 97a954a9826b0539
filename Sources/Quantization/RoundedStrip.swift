import Models
import Tensors

/// The rows of a weight that one thread has rounded to nearest so far: the parameters of their groups, and what rounding did to them.
struct RoundedStrip {
  private let search: ScaleSearch
  private let columns: Int
  private let groupSize: Int
  private let importance: [Float]?
  private let isMeasured: Bool
  /// Of every group so far, in order.
  private(set) var parameters: [GroupParameters] = []
  private(set) var sums = RoundingFigures.Sums()

  /// - Parameters:
  ///   - importance: a factor per column.
  ///   - isMeasured: whether the sums are wanted.
  init(search: ScaleSearch, columns: Int, importance: [Float]?, isMeasured: Bool) {
    self.search = search
    self.columns = columns
    self.importance = importance
    self.isMeasured = isMeasured
    groupSize = search.scheme.groupSize(columns: columns)
  }

  /// Rounds the rows that share one row of scales.
  ///
  /// - Parameters:
  ///   - first: [rows × columns].
  ///   - codes: where as many codes go.
  mutating func round(_ first: UnsafePointer<Float>, rows: Int, into codes: UnsafeMutablePointer<UInt8>) {
    let groups = stride(from: 0, to: columns, by: max(1, groupSize)).map { $0..<min($0 + groupSize, columns) }
    let start = parameters.count
    for group in groups {
      let (found, covering) = search.parameters(first, stride: columns, rows: rows, columns: group, importance)
      parameters.append(found)
      if isMeasured { sums.add(clip: abs(found.scale / covering.scale)) }
    }
    withUnsafeTemporaryAllocation(of: Float.self, capacity: columns) { rounded in
      for row in 0..<rows {
        let (exact, codes) = (first + row * columns, codes + row * columns)
        for (group, found) in zip(groups, parameters[start...]) {
          search.encode(UnsafeBufferPointer(start: exact + group.lowerBound, count: group.count), found, into: codes + group.lowerBound)
          guard isMeasured else { continue }
          search.decode(
            UnsafeBufferPointer(start: codes + group.lowerBound, count: group.count), found, into: rounded.baseAddress! + group.lowerBound)
        }
        if isMeasured { sums.add(UnsafeBufferPointer(start: exact, count: columns), rounded: rounded.baseAddress!) }
      }
    }
  }
}
