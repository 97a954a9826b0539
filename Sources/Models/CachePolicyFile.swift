public import CheckpointIO
public import Foundation

/// `kv_cache.json` beside the weights: the cache policy of every block that has one, by the block's name. No runtime reads it; this
/// program does, so that a checkpoint is scored as it is meant to be run.
public struct CachePolicyFile: Sendable, Codable, Equatable {
  public static let name = "kv_cache.json"

  /// Of the file's layout.
  public var version = 1
  public var layers: [String: CachePolicy]

  public init(layers: [String: CachePolicy]) { self.layers = layers }

  /// - Throws: `CheckpointError.malformedConfiguration` for a file that cannot be understood; one that does not exist is `nil`.
  public init?(in directory: URL) throws(CheckpointError) {
    let file = directory.appending(path: Self.name)
    guard FileManager.default.fileExists(atPath: file.path) else { return nil }
    guard let data = try? Data(contentsOf: file) else { throw .unreadable(path: file.path, reason: "the file cannot be opened") }
    do { self = try JSONDecoder().decode(Self.self, from: data) } catch {
      throw .malformedConfiguration(path: file.path, reason: "it does not describe cache policies: \(error)")
    }
    guard version == 1 else { throw .malformedConfiguration(path: file.path, reason: "version \(version) is not known here") }
  }

  public var json: String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(self) else { return "{}" }
    return String(decoding: data, as: UTF8.self) + "\n"
  }
}

extension Model {
  /// The model with the policies that `kv_cache.json` in its directory gives its blocks, if there is one.
  ///
  /// - Throws: `CheckpointError.malformedConfiguration` also for a block the model does not have, and for a policy that does not fit it.
  package func withCachePolicies(in directory: URL) throws(CheckpointError) -> Model {
    guard let file = try CachePolicyFile(in: directory) else { return self }
    let path = directory.appending(path: CachePolicyFile.name).path
    let blocks = Dictionary(uniqueKeysWithValues: description.blocks.map { ($0.name, $0) })
    for (name, policy) in file.layers.sorted(by: { $0.key < $1.key }) {
      guard let block = blocks[name] else { throw .malformedConfiguration(path: path, reason: "the model has no block \(name)") }
      if let misfit = block.misfit(of: policy) {
        throw .malformedConfiguration(path: path, reason: "\(name): \(misfit)")
      }
    }
    return changingBlocks { block in if let policy = file.layers[block.name] { block.cachePolicy = policy } }
  }
}

extension BlockDescription {
  /// The block's name in the whole model, such as `model.layers.0`.
  var name: String { prefix.hasSuffix(".") ? String(prefix.dropLast()) : prefix }
}
