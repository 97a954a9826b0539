public import CheckpointIO
internal import StrictJSON

extension ModelConfig {
  /// The tokens that end a text.
  public var endTokens: Set<Int32> {
    let declared = json["eos_token_id"]
    return Set((declared?.elements ?? declared.map { [$0] } ?? []).compactMap { $0.integer.flatMap { Int32(exactly: $0) } })
  }
}
