package import Models
import Passes
package import Tensors

/// SliceGPT as published, in memory: before every norm the residual stream is projected onto the leading principal directions of what enters
/// there (Ashkboos et al. 2024, section 3.3). In the coordinates of the original model the published bases and the matrices between them
/// are these projections, and norms divide by the mean over the original size, as the authors' code does.
///
/// No checkpoint can hold it; it is here to be compared with.
package struct ProjectedModel {
  private let model: Model
  /// Orthonormal rows [kept × hidden], in the order of the norms.
  private var bases: [Matrix] = []

  /// - Parameter size: directions kept before every norm.
  package init?(_ model: Model, calibration: [[Int32]], size: Int) throws {
    self.model = model
    var failed = false
    var bases: [Matrix] = []
    _ = try run(calibration) { states in
      var moment = SymmetricMatrix(size: model.description.hiddenSize)
      for state in states { moment.addGram(of: state) }
      let rows = moment.leadingEigenvectors(size)
      failed = failed || rows == nil
      bases.append(rows ?? Matrix(rows: size, columns: model.description.hiddenSize))
      return bases[bases.count - 1]
    }
    guard !failed else { return nil }
    self.bases = bases
  }

  /// What enters the final norm, [tokens × hidden size] of every sequence.
  package func hidden(of sequences: [[Int32]]) throws -> [Matrix] {
    var next = 0
    return try run(sequences) { _ in
      defer { next += 1 }
      return bases[next]
    }
  }

  /// Weights of a block's linears and of its two matrices in the skip connections, at a width.
  package static func weights(of block: BlockDescription, size: Int) -> Int {
    var narrow = block
    narrow.hiddenSize = size
    return narrow.weights + 2 * size * size
  }

  /// - Parameter basis: asked before every norm.
  private func run(_ sequences: [[Int32]], basis: ([Matrix]) throws -> Matrix) throws -> [Matrix] {
    let walk = ModelWalk(model, carrying: sequences)
    var states = try walk.embedded()
    try walk.visit(expanding: { PartwiseBlock($0, positions: walk.positions) }) { _, block in
      for part in block.parts.indices {
        let (inputs, rows) = (states, try basis(states))
        states = try Parallel.map(inputs.count) { try block.forward(inputs[$0].projected(onto: rows), through: [part]) }
      }
    }
    let (inputs, rows) = (states, try basis(states))
    return Parallel.map(inputs.count) { inputs[$0].projected(onto: rows) }
  }
}

extension Matrix {
  /// self · Qᵀ · Q.
  fileprivate func projected(onto rows: Matrix) -> Matrix { times(transposed: rows).times(transposed: rows.transposed()) }
}
