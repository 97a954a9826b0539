import Foundation
import StrictJSON

@testable import Tokenizers

/// Files that lie beside the repository and are not part of it.
enum Assets {
  static let directory =
    URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .appending(path: "../shared/assets").standardizedFileURL

  static func url(_ path: String) -> URL { directory.appending(path: path) }

  static func has(_ paths: String...) -> Bool { paths.allSatisfy { FileManager.default.fileExists(atPath: url($0).path) } }

  static func text(_ path: String) throws -> String { try String(contentsOf: url(path), encoding: .utf8) }

  static func json(_ path: String) throws -> JSON { try JSON(parsing: Data(contentsOf: url(path))) }
}

extension Tokenizer {
  /// A tokenizer from the text of a model and, where a test needs them, further members of `tokenizer.json`.
  init(model: String, _ members: String = "", configuration: String? = nil) throws {
    let text = "{\"model\": \(model)\(members.isEmpty ? "" : ", \(members)")}"
    try self.init(json: try JSON(parsing: text), configuration: try configuration.map { try JSON(parsing: $0) })
  }
}
