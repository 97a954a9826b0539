public import Foundation

/// Appends tensors to a checkpoint; nothing exists under the final name until `finish`.
public protocol CheckpointWriter: Actor {
  func append(_ tensors: [NamedTensor]) throws(CheckpointError)
  /// Completes the checkpoint: the last shard, the index, `files` beside them, and the final name.
  func finish(files: [CheckpointFile]) throws(CheckpointError)
  /// Removes everything written so far.
  func abandon()
}

/// A small file beside the weights: `config.json`, a tokenizer, the report.
public struct CheckpointFile: Sendable {
  public enum Content: Sendable { case text(String), copy(of: URL) }
  public let name: String
  public let content: Content

  public init(_ name: String, _ content: Content) {
    self.name = name
    self.content = content
  }
}
