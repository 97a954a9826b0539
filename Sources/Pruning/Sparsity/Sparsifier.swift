package import Models
package import Passes
internal import Tensors

/// A pass that makes weights zero: the options all such passes share, and what follows from them.
package protocol Sparsifier: Pass {
  /// The share of weights to remove; by default half of them, or what the pattern prescribes.
  var sparsity: Double? { get set }
  var pattern: SparsityPattern { get }
  var layers: LayerSelector { get }
}

extension Sparsifier {
  /// The share of weights to remove.
  package var share: Double { pattern.sparsity ?? sparsity ?? 0.5 }

  public var effective: Self {
    var copy = self
    copy.sparsity = share
    return copy
  }

  func validateSparsity() throws(InvalidOption) {
    guard let sparsity else { return }
    guard sparsity >= 0, sparsity < 1 else { throw InvalidOption("sparsity", "\(sparsity): a share of the weights, 0 to below 1") }
    if let prescribed = pattern.sparsity, abs(prescribed - sparsity) > 1e-6 {
      throw InvalidOption("sparsity", "\(sparsity): the pattern \(pattern) prescribes \(prescribed); leave one of them out")
    }
  }

  /// In words, such as `2:4` or `50 % zeros`.
  var sparsityText: String { pattern == .unstructured ? "\(Int((share * 100).rounded())) % zeros" : "\(pattern)" }

  /// - Throws: `InvalidOption` where the pattern's groups do not fill a row.
  func checkFit(_ name: String, columns: Int) throws(InvalidOption) {
    guard !pattern.fits(columns: columns) else { return }
    throw InvalidOption("pattern", "\(pattern) does not divide the \(columns) columns of \(name); leave it out by `layers: { exclude: … }`")
  }

  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear {
    guard layers.contains(linear.name, isEnd: linear.isEnd) else { return linear }
    try checkFit(linear.name, columns: linear.columns)
    // Zeros are stored like any other number: the bits stay what they are.
    var planned = linear
    planned.scheme = "\(linear.storageType.rawValue) \(sparsityText)"
    planned.storedBits = linear.rows * linear.columns * linear.storageType.bitCount
    planned.weights = nil
    planned.isRewritten = true
    return planned
  }
}

extension Matrix {
  /// The share of elements that are exactly zero.
  package var zeroShare: Double { Double(elements.count { $0 == 0 }) / Double(max(1, elements.count)) }

  /// ‖W − W'‖² / ‖W‖².
  func relativeDistance(to other: Matrix) -> Double {
    var (error, norm) = (0.0, 0.0)
    for (own, found) in zip(elements, other.elements) {
      error += Double(own - found) * Double(own - found)
      norm += Double(own) * Double(own)
    }
    return norm > 0 ? error / norm : 0
  }
}
