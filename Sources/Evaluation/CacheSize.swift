/// What key-value caches take, all blocks together.
public struct CacheSize: Sendable, Equatable, Codable {
  /// Codes, scales, and what is not quantized, once every window has been read.
  public internal(set) var bytes = 0
  /// Tokens of these windows.
  public internal(set) var tokens = 0
  /// Tokens that were fed at a time, where it went through caches at all.
  public internal(set) var chunk: Int?

  init() {}

  public var bytesPerToken: Double { Double(bytes) / Double(max(1, tokens)) }
}
