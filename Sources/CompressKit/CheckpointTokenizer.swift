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

  /// Files that travel with the weights: those beside them, the folders of a sentence encoder's further modules, and those that a GGUF file
  /// has in itself.
  func travellingFiles() throws -> [CheckpointFile] {
    let inside = try (tensors as? GGUFCheckpoint)?.file.tokenizerFiles() ?? []
    return inside + moduleFolders().map { CheckpointFile($0.lastPathComponent, .copy(of: $0)) }
      + companionFiles().map { CheckpointFile($0.lastPathComponent, .copy(of: $0)) }.filter { file in
        !inside.contains { $0.name == file.name }
      }
  }

  /// The folders that `modules.json` of sentence-transformers names, such as `1_Pooling`: without them the output could not be loaded as the
  /// sentence encoder that it is.
  private func moduleFolders() -> [URL] {
    guard let data = try? Data(contentsOf: directory.appending(path: "modules.json")), let modules = try? JSON(parsing: data).elements
    else { return [] }
    let names = Set(modules.compactMap { $0["path"]?.string })
    return names.filter { !$0.isEmpty && !$0.contains("/") && !$0.hasPrefix(".") }.sorted().map { directory.appending(path: $0) }.filter {
      (try? $0.resourceValues(forKeys: [.isDirectoryKey]).isDirectory) == true
    }
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
      throw TokenizerError.unreadableFile(path: place.path, reason: error.localizedDescription)
    }
    // By its ending, so that any name will do.
    let name = place.pathExtension == "json" ? "tokenizer.json" : place.pathExtension == "txt" ? "vocab.txt" : "tokenizer.model"
    guard let source = try TokenizerSource(file: { $0 == name ? data : nil }) else { throw TokenizerError.noTokenizer(path: place.path) }
    try self.init(source)
  }
}
