public import Models
public import Passes
import Tensors

/// Fixed scales for the key-value cache: the largest key and value of every block over the calibration data, so that a runtime may keep its
/// cache in 8 bits from the first token on.
///
/// Keys are taken after the rotary embedding, as they are cached. Scales are amax / 448 for E4M3 and amax / 127.5 for integers, rounded to the
/// checkpoint's type.
public struct KVCacheScales: Pass {
  public static let name = "kv_cache"
  public static let summary = "calibrated scales for an 8-bit key-value cache"

  public enum Scheme: String, Sendable, Codable, CaseIterable { case fp8, int8 }

  public var scheme = Scheme.fp8

  public init() {}

  public var acceptsFactors: Bool { true }

  public func run(on block: inout Block, in context: PassContext) throws {
    guard case .decoder = block.kind else { return }
    let range = try context.cacheRange(of: block)
    let grid: QuantizationScheme.Grid = scheme == .fp8 ? .float : .integer
    let type = block.storageType
    func stored(_ amax: Float) -> CacheScale {
      CacheScale(grid: grid, scale: type.rounded(CacheScale(grid: grid, amax: amax).scale))
    }
    let cache = CacheQuantization(key: stored(range.key), value: stored(range.value))
    block.cache = cache
    context.recordBlock(
      block,
      [
        "key_maximum": Double(range.key), "value_maximum": Double(range.value), "key_scale": Double(cache.key.scale),
        "value_scale": Double(cache.value.scale),
      ], scheme: "\(scheme.rawValue) cache")
  }
}
