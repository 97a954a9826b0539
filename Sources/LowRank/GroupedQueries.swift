public import Models
public import Passes
import Tensors

/// Merges key-value heads, so that more query heads share each: the cache and its traffic shrink in proportion, and the result is an ordinary
/// checkpoint with a smaller `num_key_value_heads`.
///
/// `mean` averages the heads (Ainslie et al. 2023). `procrustes` first turns them towards each other: values by orthogonal matrices, keys by one
/// angle for each pair of dimensions that the rotary embedding turns together, which is all that commutes with it; the turns are folded into
/// the query and output projections. `components` takes principal components instead of means: for the values of all heads together in the
/// metric of the output projection, and for keys one complex number for each head and pair, weighted by the queries that meet it. Both come
/// from the second moment of the inputs, as the calibration data have it. `compensate` then refits the output projection to what the original
/// attention would have put out.
public struct GroupedQueries: BlockPass {
  public static let name = "gqa"
  public static let summary = "merge key-value heads: fewer of them, shared by more queries (mean, Procrustes, components)"

  /// How many are left; half of them by default.
  public var keyValueHeads: Int?
  public var merge = HeadMergeMethod.components
  public var compensate = true

  public init() {}

  private enum CodingKeys: String, CodingKey { case keyValueHeads = "key_value_heads", merge, compensate }

  public var usesCalibration: Bool { merge != .mean || compensate }
  public var comparesInputs: Bool { compensate }

  public func validate() throws(InvalidOption) {
    guard keyValueHeads.map({ $0 > 0 }) ?? true else { throw InvalidOption("key_value_heads", "\(keyValueHeads!): a positive number") }
  }

  private func target(for heads: AttentionHeads) throws(InvalidOption) -> Int {
    let (count, target) = (heads.keyValues, keyValueHeads ?? heads.keyValues / 2)
    guard target > 0, target < count, count % target == 0 else {
      throw InvalidOption("key_value_heads", "\(target) is no smaller divisor of the model's \(count) key-value heads")
    }
    guard heads.rotary?.fraction ?? 1 == 1 else {
      throw InvalidOption("key_value_heads", "heads that are rotated in part only are not merged here")
    }
    guard heads.rotary?.isInterleaved != true else {
      throw InvalidOption("key_value_heads", "heads whose neighbouring dimensions are rotated together are not merged here")
    }
    if let reason = heads.obstacle { throw InvalidOption("passes", reason + "; they cannot be merged") }
    return target
  }

  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription {
    if let reason = description.cacheObstacle { throw InvalidOption("passes", "\(reason) that merged heads would make smaller") }
    if let reason = description.headObstacle { throw InvalidOption("passes", "\(reason); they cannot be merged") }
    var result = description
    for index in result.blocks.indices {
      guard let heads = description.blocks[index].heads else { continue }
      result.blocks[index].heads?.keyValues = try target(for: heads)
    }
    return result
  }

  public func run(on block: inout Block, in context: PassContext) throws {
    guard let heads = block.description.heads, let path = block.description.valuePath else { return }
    let group = block.inputGroups[0]
    for name in group.linears + [path.reader] where !(block[name].weight is StoredWeight || block[name].weight is Matrix) {
      throw InvalidOption("passes", "\(block.fullName(of: name)) is compressed already; put gqa before what compresses")
    }
    let target = try target(for: heads)
    let moment = merge == .mean ? nil : DoubleMatrix(try context.statistic(Hessian.self, of: group, in: block).matrix)
    let merged = MergedHeads(block, heads, group.linears, path.reader, per: heads.keyValues / target, moment: moment)
    var remark: String?
    let merges = (0..<target).map { merged.merge(at: $0, by: merge, fallback: &remark) }
    for (index, merge) in merges.enumerated() where moment != nil {
      let errors = merged.errors(of: merge, at: index)
      context.recordBlock(block, ["key_error_\(index)": errors.keys, "value_error_\(index)": errors.values])
    }
    merged.apply(merges, to: &block)
    block.description.heads?.keyValues = target
    block.cache = block.cache?.wholeBlock
    for name in group.linears + [path.reader] {
      context.record(name, in: block, ["bits_per_weight": Double(block[name].storageType.bitCount)])
    }
    if let remark { try context.recordFallback(group.linears[1], in: block, remark) }
    if compensate { try compensate(path.reader, of: &block, context) }
    let (type, width) = (block.norms.storageType, 2 * heads.size)
    context.recordBlock(
      block,
      [
        "cache_bytes_per_token": type.cacheBytes(target * width),
        "cache_bytes_per_token_before": type.cacheBytes(heads.keyValues * width),
      ], scheme: "\(heads.keyValues) → \(target) heads")
  }

  /// Refits the output projection W over the merged heads' outputs X to what the original one, W₀, makes of the original outputs X₀:
  /// W + (W₀·X₀ − W·X)·Xᵀ·(X·Xᵀ + λ)⁻¹, which the data draws away from W only as far as it must.
  private func compensate(_ reader: LinearName, of block: inout Block, _ context: PassContext) throws {
    let drift = try context.drift(of: InputGroup([reader]), in: block)
    let moment = DoubleMatrix(drift.hessian.matrix)
    let cross = DoubleMatrix(rows: moment.rows, columns: moment.columns, elements: drift.cross)
    let (own, original) = (DoubleMatrix(block[reader].weight.dense()), DoubleMatrix(context.reference[reader].weight.dense()))
    let missing = original.times(cross.adding(moment)).subtracting(own.times(moment))
    let mean = drift.hessian.matrix.diagonal.reduce(0, +) / Double(moment.rows)
    guard let correction = drift.hessian.matrix.solve(missing.elements, rows: own.rows, shift: Self.damping * mean) else {
      try context.recordFallback(reader, in: block, "the second moment of its inputs has no factor: not compensated")
      return
    }
    let refitted = own.adding(DoubleMatrix(rows: own.rows, columns: own.columns, elements: correction))
    block[reader].weight = Matrix(rows: own.rows, columns: own.columns, elements: refitted.elements.map { Float($0) })
  }

  /// Added to the diagonal of the second moment, as a fraction of its mean.
  private static let damping = 0.01
}
