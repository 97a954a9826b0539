import Models
import Tensors

/// The projections of one block, cut into the heads that are merged.
struct MergedHeads {
  private let heads: AttentionHeads
  private let names: [LinearName]
  private let reader: LinearName
  /// Key-value heads that become one.
  private let per: Int
  private let weights: [DoubleMatrix]
  private let output: DoubleMatrix
  private let moment: DoubleMatrix?

  init(
    _ block: Block, _ heads: AttentionHeads, _ names: [LinearName], _ reader: LinearName, per: Int, moment: DoubleMatrix?
  ) {
    (self.heads, self.names, self.reader, self.per, self.moment) = (heads, names, reader, per, moment)
    weights = names.map { DoubleMatrix(block[$0].weight.dense()) }
    output = DoubleMatrix(block[reader].weight.dense())
  }

  private var size: Int { heads.size }

  private func rows(_ weight: Int, heads: Range<Int>) -> DoubleMatrix {
    weights[weight].rows(heads.lowerBound * size..<heads.upperBound * size)
  }

  private func moments(_ weight: Int, at index: Int) -> HeadMoments {
    let own = rows(weight, heads: index * per..<(index + 1) * per)
    return HeadMoments(heads: per, size: size, moment: own.times(moment!).times(own.transposed()))
  }

  func errors(of merge: HeadMerge, at index: Int) -> (keys: Double, values: Double) {
    (moments(1, at: index).relativeError(merge.keys, merge.queries), moments(2, at: index).relativeError(merge.values, merge.outputs))
  }

  /// - Parameter fallback: is told where keys could only be averaged.
  func merge(at index: Int, by method: HeadMergeMethod, fallback: inout String?) -> HeadMerge {
    var merge = HeadMerge.mean(heads: per, size: size)
    guard method != .mean else { return merge }
    let values = moments(2, at: index)
    let found = method == .procrustes ? values.procrustes() : components(values, at: index)
    if let found { (merge.values, merge.outputs) = found } else { fallback = "LAPACK found no eigenvectors: values averaged" }
    guard !heads.areNormalized else {
      fallback = "keys are normalised behind their projection, which no turn passes through: averaged"
      return merge
    }
    if let pairs = moments(1, at: index).pairs(
      weights: (index * per..<(index + 1) * per).map(queryEnergies), onlyTurns: method == .procrustes)
    {
      (merge.keys, merge.queries) = pairs
    } else {
      fallback = "LAPACK found no eigenvectors: keys averaged"
    }
    return merge
  }

  private func components(_ values: HeadMoments, at index: Int) -> (mean: DoubleMatrix, parts: [DoubleMatrix])? {
    let roots = (index * per..<(index + 1) * per).compactMap { valueMetric(of: $0).root() }
    return roots.count == per ? values.components(roots: roots) : nil
  }

  /// Mean square of what meets every pair of dimensions of a key-value head, over its queries.
  private func queryEnergies(of head: Int) -> [Double] {
    var energies = [Double](repeating: 0, count: size / 2)
    for query in head * heads.group..<(head + 1) * heads.group {
      let own = rows(0, heads: query..<query + 1)
      let seen = own.times(moment!)
      for row in 0..<size {
        energies[row % (size / 2)] += (0..<own.columns).reduce(0.0) { $0 + seen[row, $1] * own[row, $1] }
      }
    }
    return energies
  }

  /// How errors of a head's keys show: by the queries that meet them, where those reach attention as they are projected.
  func keyMetric(of head: Int) -> DoubleMatrix {
    if heads.areNormalized { return DoubleMatrix(diagonal: [Double](repeating: 1, count: size)) }
    let energies = queryEnergies(of: head)
    return DoubleMatrix(diagonal: energies + energies)
  }

  /// How errors of a head's values show: W_oᵀ·W_o over the columns that read them.
  func valueMetric(of head: Int) -> DoubleMatrix {
    var metric = DoubleMatrix(rows: size, columns: size, elements: [Double](repeating: 0, count: size * size))
    for query in head * heads.group..<(head + 1) * heads.group {
      let columns = columns(of: query)
      metric = metric.adding(columns.transposed().times(columns))
    }
    return metric
  }

  /// The output projection's columns that read a query head, [hidden size × head size].
  private func columns(of query: Int) -> DoubleMatrix {
    DoubleMatrix(
      rows: output.rows, columns: size, elements: (0..<output.rows).flatMap { row in (0..<size).map { output[row, query * size + $0] } })
  }

  /// Folds the maps into the four projections and the biases of those that have one.
  func apply(_ merges: [HeadMerge], to block: inout Block) {
    func single(_ matrix: DoubleMatrix) -> Matrix {
      Matrix(rows: matrix.rows, columns: matrix.columns, elements: matrix.elements.map { Float($0) })
    }
    /// Rows of a projection and its bias, mapped stretch by stretch.
    func map(_ weight: Int, _ maps: [(map: DoubleMatrix, heads: Range<Int>)]) {
      block[names[weight]].weight = single(DoubleMatrix(stacking: maps.map { $0.map.times(rows(weight, heads: $0.heads)) }))
      guard let bias = block[names[weight]].bias else { return }
      block[names[weight]].bias = maps.flatMap { map, heads in
        let part = bias[heads.lowerBound * size..<heads.upperBound * size].map { Double($0) }
        return map.times(DoubleMatrix(rows: part.count, columns: 1, elements: part)).elements.map { Float($0) }
      }
    }
    map(1, merges.indices.map { (merges[$0].keys, $0 * per..<($0 + 1) * per) })
    map(2, merges.indices.map { (merges[$0].values, $0 * per..<($0 + 1) * per) })
    func owner(_ query: Int) -> (merge: HeadMerge, head: Int) {
      let head = query / heads.group
      return (merges[head / per], head % per)
    }
    map(0, (0..<heads.queries).map { (owner($0).merge.queries[owner($0).head].transposed(), $0..<$0 + 1) })
    let stretches = (0..<heads.queries).map { columns(of: $0).times(owner($0).merge.outputs[owner($0).head]) }
    block[reader].weight = single(DoubleMatrix(stacking: stretches.map { $0.transposed() }).transposed())
  }
}

extension DType {
  /// Bytes of so many cached numbers of this type.
  func cacheBytes(_ numbers: Int) -> Double { Double(numbers * bitCount) / 8 }
}
