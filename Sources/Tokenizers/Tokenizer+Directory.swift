public import Foundation
import StrictJSON

extension Tokenizer {
  /// Reads `tokenizer.json`, and `tokenizer_config.json` where there is one, of a model directory.
  ///
  /// - Throws: `TokenizerError`: a file that is missing, unreadable or damaged, or whatever `init(json:configuration:)` throws.
  public init(directory: URL) throws(TokenizerError) {
    let main = directory.appending(path: "tokenizer.json")
    guard let json = try Self.json(at: main) else { throw .missingFile(path: main.path) }
    try self.init(json: json, configuration: try Self.json(at: directory.appending(path: "tokenizer_config.json")))
  }

  /// The content of a file; `nil` where there is no file.
  private static func json(at file: URL) throws(TokenizerError) -> JSON? {
    guard FileManager.default.fileExists(atPath: file.path) else { return nil }
    let data: Data
    do {
      data = try Data(contentsOf: file)
    } catch {
      throw .unreadableFile(path: file.path, reason: error.localizedDescription)
    }
    do {
      return try JSON(parsing: data)
    } catch {
      throw .malformedJSON(path: file.path, error)
    }
  }
}
