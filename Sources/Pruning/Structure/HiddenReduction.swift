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

  func apply(to block: inout Block, _ context: PassContext) throws {
    try block.requireDense()
    guard let description = block.description else {
      let norm = block.norms.first
      for name in block.linears.keys { reduce(inputsOf: name, of: &block, after: block.kind == .head ? norm?.value : nil) }
      if let norm { reduce(norm: norm.key, named: norm.key, of: &block) }
      return
    }
    for (norm, group) in description.residualReaders {
      for name in group.linears { reduce(inputsOf: name, of: &block, after: block.norms[norm]) }
      reduce(norm: norm, named: block.prefix + norm, of: &block)
    }
    for name in description.residualWriters { reduce(outputsOf: name, of: &block) }
    let size = basis.size
    block.normEpsilon = Self.epsilon(description.normEpsilon, from: description.hiddenSize, to: size)
    block.description?.normEpsilon = block.normEpsilon
    block.description?.hiddenSize = size
    context.recordBlock(
      block,
      ["hidden": Double(size)].merging(
        description.residualReaders.map { ("\($0.norm)_share", shares[block.prefix + $0.norm] ?? 0) }
      ) { first, _ in first },
      scheme: "\(size) of \(description.hiddenSize)")
  }

  /// - Parameter norm: the weight of the norm before it, which goes into the layer where directions mix.
  private func reduce(inputsOf name: LinearName, of block: inout Block, after norm: [Float]?) {
    switch basis {
    case .dimensions(let indices): block.keep(columns: indices, of: name)
    case .directions(let rows):
      var weight = block[name].weight.dense()
      if let norm { weight.scaleColumns(by: norm) }
      block[name].weight = weight.parallelTimes(transposed: rows)
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

  private func reduce(norm: String, named module: String, of block: inout Block) {
    guard let weight = block.norms[norm] else { return }
    let factor = Float((Double(weight.count) / Double(basis.size) * (shares[module] ?? 1)).squareRoot())
    switch basis {
    case .dimensions(let indices): block.norms[norm] = indices.map { weight[$0] * factor }
    case .directions(let rows): block.norms[norm] = Array(repeating: factor, count: rows.rows)
    }
    if block.kind == .head { block.normEpsilon = Self.epsilon(block.normEpsilon, from: weight.count, to: basis.size) }
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
