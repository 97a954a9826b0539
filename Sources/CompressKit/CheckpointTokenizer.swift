public import CheckpointIO
public import Foundation
internal import Formats
internal import StrictJSON
public import Tokenizers

extension Checkpoint {
  /// The model's tokenizer: of the files beside its weights the first there is in the order of `TokenizerSource`, or else the vocabulary of
  /// its GGUF file.
  ///
  /// - Throws: `TokenizerError` where there is none, or one that cannot be read.
  public func tokenizer() throws -> Tokenizer {
    do { return try Tokenizer(directory: directory) } catch TokenizerError.noTokenizer(let path) {
      guard let source = try (tensors as? GGUFCheckpoint)?.file.tokenizerSource() else { throw TokenizerError.noTokenizer(path: path) }
      return try Tokenizer(source)
    }
  }

  /// What travels with the weights: the files beside them, and those that a GGUF file has in itself.
  func travellers() throws -> Companions {
    let inside = try (tensors as? GGUFCheckpoint)?.file.tokenizerFiles() ?? []
    return companions(modules: modules()).adding(inside)
  }

  /// The folders that `modules.json` of sentence-transformers names, such as `1_Pooling` and `2_Dense`: without them the output could not be
  /// loaded as the sentence encoder that it is.
  private func modules() -> Set<String> {
    guard let data = try? Data(contentsOf: directory.appending(path: "modules.json")), let modules = try? JSON(parsing: data).elements
    else { return [] }
    return Set(modules.compactMap { $0["path"]?.string })
  }
}

extension Tokenizer {
  /// The tokenizer of a model directory, in a GGUF file, or in a file of its own.
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
    if place.pathExtension == "gguf" {
      guard let source = try GGUFFile(place).tokenizerSource() else { throw TokenizerError.noTokenizer(path: place.path) }
      try self.init(source)
      return
    }
    let data: Data
    do { data = try Data(contentsOf: place) } catch {
      throw TokenizerError.unreadableFile(path: place.path, reason: SystemError.reason(error))
    }
    // By its ending, so that any name will do.
    let name = place.pathExtension == "json" ? "tokenizer.json" : place.pathExtension == "txt" ? "vocab.txt" : "tokenizer.model"
    guard let source = try TokenizerSource(file: { $0 == name ? data : nil }) else { throw TokenizerError.noTokenizer(path: place.path) }
    try self.init(source)
  }
}
