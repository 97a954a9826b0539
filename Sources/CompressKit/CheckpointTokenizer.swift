public import CheckpointIO
public import Foundation
internal import StrictJSON
public import Tokenizers

extension Checkpoint {
  /// The model's tokenizer: of the files beside its weights the first there is in the order of `TokenizerSource`.
  ///
  /// - Throws: `TokenizerError` where there is none, or one that cannot be read.
  public func tokenizer() throws -> Tokenizer { try Tokenizer(directory: directory) }
}

extension Tokenizer {
  /// The tokenizer of a model directory, or a tokenizer's own file.
  ///
  /// - Throws: `CheckpointError.missingFile`, or `TokenizerError` for what cannot be read.
  public init(at place: URL) throws {
    var isDirectory: ObjCBool = false
    guard FileManager.default.fileExists(atPath: place.path, isDirectory: &isDirectory) else {
      throw CheckpointError.missingFile(path: place.path)
    }
    guard !isDirectory.boolValue else {
      try self.init(directory: place)
      return
    }
    let data: Data
    do { data = try Data(contentsOf: place) } catch {
      throw TokenizerError.unreadableFile(path: place.path, reason: error.localizedDescription)
    }
    // By its ending, so that any name will do.
    let name = place.pathExtension == "json" ? "tokenizer.json" : place.pathExtension == "txt" ? "vocab.txt" : "tokenizer.model"
    guard let source = try TokenizerSource(file: { $0 == name ? data : nil }) else { throw TokenizerError.noTokenizer(path: place.path) }
    try self.init(source)
  }
}
