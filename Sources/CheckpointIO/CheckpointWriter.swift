public import Foundation

/// Appends tensors to a checkpoint that lies in a staged directory; nothing exists under the final name until that is published.
public protocol CheckpointWriter: Actor {
  nonisolated var stage: StagedDirectory { get }
  func append(_ tensors: [NamedTensor]) throws(CheckpointError)
  /// Completes the checkpoint: the last shard, the index, and `files` beside them. It can be read where it lies, and does not have its name yet.
  func complete(files: [CheckpointFile]) throws(CheckpointError)
  /// Closes what is open and removes everything written so far.
  func abandon()
}

extension CheckpointWriter {
  /// Completes the checkpoint and gives it its final name.
  public func finish(files: [CheckpointFile]) throws(CheckpointError) {
    try complete(files: files)
    try stage.publish()
  }
}

/// A small file beside the weights: `config.json`, a tokenizer, the report. Its name may lie in a directory: `1_Pooling/config.json`.
public struct CheckpointFile: Sendable {
  public enum Content: Sendable { case text(String), copy(of: URL) }
  public let name: String
  public let content: Content

  public init(_ name: String, _ content: Content) {
    self.name = name
    self.content = content
  }
}
