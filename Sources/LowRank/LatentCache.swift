public import Models
public import Passes
import Tensors

/// Makes keys and values from fewer latents, which are what a runtime caches: k = B·(A·x), and A·x is kept (Palu, Chang et al. 2024).
///
/// Heads are taken in groups, and each group's projection is factored by the principal components of its outputs over the calibration data.
/// With `weighted`, errors count as they will be seen: those of values in the metric of the output projection, those of a key's pair of
/// dimensions by the mean square of the queries that meet it, because the rotary embedding mixes a pair and nothing else. Deviations from the
/// paper: that weighting, ranks by a given share instead of Fisher information, and factors that are stored as the two linears they are: B of
/// the values could be folded into the output projection, B of the keys not, as it stands before the rotary embedding.
public struct LatentCache: BlockPass {
  public static let name = "kv_latents"
  public static let summary = "keys and values through low-rank latents, which take their place in the cache (Palu)"

  /// Share of the keys' width that their latents have; 1 leaves keys alone.
  public var keys = 0.5
  public var values = 0.5
  /// Heads with latents in common, at most.
  public var headsPerGroup = 4
  public var rankMultiple = 4
  public var weighted = true

  public init() {}

  private enum CodingKeys: String, CodingKey {
    case keys, values, headsPerGroup = "heads_per_group", rankMultiple = "rank_multiple", weighted
  }

  public func validate() throws(InvalidOption) {
    for (name, share) in [("keys", keys), ("values", values)] where !(share > 0 && share <= 1) {
      throw InvalidOption(name, "\(share): a share of the width, above 0 and at most 1")
    }
    guard keys < 1 || values < 1 else { throw InvalidOption("keys", "1, and values 1: nothing is left to do") }
    guard headsPerGroup > 0 else { throw InvalidOption("heads_per_group", "\(headsPerGroup): a positive number") }
    guard rankMultiple > 0 else { throw InvalidOption("rank_multiple", "\(rankMultiple): a positive number") }
  }

  /// - Throws: `InvalidOption` for a model that keeps no cache.
  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    if let reason = description.cacheObstacle { throw InvalidOption("passes", reason) }
    if let reason = description.headObstacle { throw InvalidOption("passes", "\(reason); there are no keys and values to make latents of") }
    if let block = description.blocks.first(where: { $0.heads?.rotary?.isInterleaved == true }) {
      throw InvalidOption(
        "passes", "\(block.prefix.dropLast()) rotates neighbouring dimensions together, which keys' latents are not weighed for")
    }
    return description
  }

  /// The latents of one group; `nil` where they would be no fewer than what they stand for.
  private func shape(share: Double, _ heads: AttentionHeads) -> (groups: Int, rank: Int)? {
    let together = (1...min(headsPerGroup, heads.keyValues)).last { heads.keyValues % $0 == 0 } ?? 1
    let width = together * heads.size
    let rank = max(rankMultiple, Int(share * Double(width)) / rankMultiple * rankMultiple)
    return share < 1 && rank < width ? (heads.keyValues / together, rank) : nil
  }

  private func share(of name: LinearName, _ block: BlockDescription) -> Double? {
    let group = block.inputGroups[0].linears
    guard group.count == 3, group[2] == block.valuePath?.maker else { return nil }
    return name == group[1] ? keys : name == group[2] ? values : nil
  }

  public func plan(_ linear: PlannedLinear, in description: ModelDescription) throws(InvalidOption) -> PlannedLinear {
    guard let block = description.blocks.first(where: { linear.name.hasPrefix($0.prefix) }),
      let share = share(of: LinearName(rawValue: String(linear.name.dropFirst(block.prefix.count))), block),
      let heads = block.heads, let shape = shape(share: share, heads)
    else { return linear }
    guard linear.rank == nil, linear.weights == nil else {
      throw InvalidOption("passes", "\(linear.name) is stored as \(linear.scheme); put kv_latents before what compresses")
    }
    var planned = linear
    planned.rank = shape.rank
    (planned.isRewritten, planned.blocks) = (true, nil)
    planned.scheme = "\(shape.groups) × \(shape.rank) latents"
    planned.storedBits = shape.rank * (linear.rows + shape.groups * linear.columns) * linear.storageType.bitCount
    return planned
  }

  public func run(on block: inout Block, in context: PassContext) throws {
    let description = block.description
    guard let heads = description.heads, let path = description.valuePath else { return }
    let group = block.inputGroups[0]
    let names = group.linears.filter { share(of: $0, description) != nil }
    guard names.count == 2 else {
      throw InvalidOption("passes", "\(block.name) has no key and value projections of their own")
    }
    let moment = DoubleMatrix(try context.statistic(Hessian.self, of: group, in: block).matrix)
    let parts = MergedHeads(block, heads, group.linears, path.reader, per: 1, moment: moment)
    var cached = 0
    for name in names {
      guard block[name].weight is StoredWeight || block[name].weight is Matrix else {
        throw InvalidOption("passes", "\(block.fullName(of: name)) is compressed already; put kv_latents before what compresses")
      }
      guard let shape = shape(share: share(of: name, description)!, heads) else {
        cached += block[name].weight.rows
        continue
      }
      cached += shape.groups * shape.rank
      try factor(name, shape, of: &block, moment, name == names[0] ? .keys(parts) : .values(parts), context)
    }
    let whole = 2 * heads.keyValues * heads.size
    let type = block.norms.storageType
    context.recordBlock(
      block, ["cache_bytes_per_token": type.cacheBytes(cached), "cache_bytes_per_token_before": type.cacheBytes(whole)],
      scheme: "\(cached) latents for \(whole) numbers")
  }

  private enum Kind {
    case keys(MergedHeads)
    case values(MergedHeads)
  }

  private func factor(
    _ name: LinearName, _ shape: (groups: Int, rank: Int), of block: inout Block, _ moment: DoubleMatrix, _ kind: Kind,
    _ context: PassContext
  ) throws {
    guard let heads = block.description.heads else { return }
    let weight = DoubleMatrix(block[name].weight.dense())
    let (height, together) = (weight.rows / shape.groups, heads.keyValues / shape.groups)
    var (outputs, inputs) = ([DoubleMatrix](), [DoubleMatrix]())
    var (tail, total) = (0.0, 0.0)
    for group in 0..<shape.groups {
      let own = weight.rows(group * height..<(group + 1) * height)
      var metrics: [DoubleMatrix] = []
      for head in group * together..<(group + 1) * together {
        switch kind {
        case _ where !weighted: metrics.append(DoubleMatrix(diagonal: [Double](repeating: 1, count: heads.size)))
        case .keys(let parts): metrics.append(parts.keyMetric(of: head))
        case .values(let parts): metrics.append(parts.valueMetric(of: head))
        }
      }
      let roots = metrics.compactMap { $0.root() }
      let inverses = roots.compactMap { $0.pseudoinverse() }
      guard inverses.count == metrics.count,
        let components = OutputComponents(of: own.times(blocks: roots), moment: moment)
      else {
        try context.recordFallback(name, in: block, "LAPACK found no eigenvectors: left dense")
        return
      }
      let (b, a) = components.factors(of: own.times(blocks: roots), rank: shape.rank)
      outputs.append(b.times(blocks: inverses))
      inputs.append(a)
      tail += components.tail(beyond: shape.rank)
      total += components.total
    }
    let type = block[name].storageType
    let factored = FactoredWeight(
      input: DoubleMatrix(stacking: inputs).stored(as: type), output: DoubleMatrix(stacking: outputs).stored(as: type),
      groups: shape.groups)
    let error = weight.subtracting(DoubleMatrix(factored.dense()))
    let size = weight.energy(under: moment)
    block[name].weight = factored
    context.record(
      name, in: block,
      [
        "rank": Double(shape.rank), "latents": Double(factored.latents), "spectral_tail": total > 0 ? tail / total : 0,
        "relative_layer_loss": size > 0 ? error.energy(under: moment) / size : 0,
        "bits_per_weight": Double(factored.storedBits(denseAs: type)) / Double(weight.rows * weight.columns),
      ], scheme: "\(shape.groups) × \(shape.rank) latents")
  }
}

extension DoubleMatrix {
  /// diag(blocks) · self.
  func times(blocks: [DoubleMatrix]) -> DoubleMatrix {
    var first = 0
    return DoubleMatrix(
      stacking: blocks.map { block in
        defer { first += block.columns }
        return block.times(rows(first..<first + block.columns))
      })
  }
}
