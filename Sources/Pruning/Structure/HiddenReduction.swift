import Models
import Passes
import Tensors

/// A narrower residual stream: the one choice that all blocks and both ends share.
struct HiddenReduction: Sendable {
  enum Basis: Sendable {
    /// Dimensions that stay, ascending.
    case dimensions([Int])
    /// Orthonormal rows [kept × hidden]: the stream becomes x · Qᵀ.
    case directions(Matrix)

    var size: Int {
      switch self {
      case .dimensions(let indices): indices.count
      case .directions(let rows): rows.rows
      }
    }
  }

  let basis: Basis
  /// By the norm's module: the share of its input's square that stays, E[‖x_K‖² / ‖x‖²].
  let shares: [String: Double]

  /// A norm divides by the root of the mean, which is over fewer dimensions now. With this ε and with weights times √(hidden / kept), nothing
  /// changes where the dimensions that go are always zero.
  static func epsilon(_ epsilon: Float, from hidden: Int, to kept: Int) -> Float { epsilon * Float(hidden) / Float(kept) }

  func apply(to part: inout any ModelPart, _ context: PassContext) throws {
    try part.requireDense()
    part.withBlock { reduce(&$0, context) }
    if part is Block { return }
    let norm = part.norms.weights.first
    for name in part.linears.keys { reduce(inputsOf: name, of: &part, after: part is Head ? norm?.value : nil) }
    if let norm { reduce(norm: norm.key, of: &part) }
    guard var head = part as? Head, let norm else { return }
    head.norm.epsilon = Self.epsilon(head.norm.epsilon, from: norm.value.count, to: basis.size)
    part = head
  }

  private func reduce(_ block: inout Block, _ context: PassContext) {
    let description = block.description
    for case (let norm?, let group) in description.residualReaders {
      for name in group.linears { reduce(inputsOf: name, of: &block, after: block.norms[norm]) }
      reduce(norm: norm, of: &block)
    }
    for name in description.residualWriters { reduce(outputsOf: name, of: &block) }
    let size = basis.size
    block.description.normEpsilon = Self.epsilon(description.normEpsilon, from: description.hiddenSize, to: size)
    block.description.hiddenSize = size
    context.recordBlock(
      block,
      ["hidden": Double(size)].merging(
        description.residualReaders.compactMap(\.norm).map { ("\($0)_share", shares[block.prefix + $0] ?? 0) }
      ) { first, _ in first },
      scheme: "\(size) of \(description.hiddenSize)")
  }

  /// - Parameter norm: the weight of the norm before it, which goes into the layer where directions mix.
  private func reduce(inputsOf name: LinearName, of part: inout some ModelPart, after norm: [Float]?) {
    switch basis {
    case .dimensions(let indices): part.keep(columns: indices, of: name)
    case .directions(let rows):
      var weight = part[name].weight.dense()
      if let norm { weight.scaleColumns(by: norm) }
      part[name].weight = weight.parallelTimes(transposed: rows)
    }
  }

  private func reduce(outputsOf name: LinearName, of block: inout Block) {
    switch basis {
    case .dimensions(let indices): block.keep(rows: indices, of: name)
    case .directions(let rows):
      block[name].weight = rows.parallelTimes(transposed: block[name].weight.dense().transposed())
      if let bias = block[name].bias {
        block[name].bias = Matrix(rows: 1, columns: bias.count, elements: bias).times(transposed: rows).elements
      }
    }
  }

  private func reduce(norm: String, of part: inout some ModelPart) {
    guard let weight = part.norms[norm] else { return }
    let factor = Float((Double(weight.count) / Double(basis.size) * (shares[part.fullName(ofNorm: norm)] ?? 1)).squareRoot())
    switch basis {
    case .dimensions(let indices): part.norms[norm] = indices.map { weight[$0] * factor }
    case .directions(let rows): part.norms[norm] = Array(repeating: factor, count: rows.rows)
    }
  }
}

extension Matrix {
  /// `times(transposed:)` on all threads.
  func parallelTimes(transposed other: Matrix) -> Matrix {
    let strip = 256
    let parts = Parallel.map((rows + strip - 1) / strip) { index in
      rows(index * strip..<min((index + 1) * strip, rows)).times(transposed: other)
    }
    return Matrix(stacking: parts)
  }
}
