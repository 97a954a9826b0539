public import Foundation
internal import StrictJSON

/// How the texts lie in a file.
public enum TextForm: String, Sendable, CaseIterable {
  /// The file is one text.
  case whole
  case lines
  /// Every line is JSON: a string, or an object with the text in one of its fields.
  case jsonLines

  /// By the ending of a file's name, `.gz` apart: `.jsonl` and `.ndjson` hold JSON, all else is one text.
  public init(fileName: String) {
    let name = fileName.hasSuffix(".gz") ? String(fileName.dropLast(3)) : fileName
    self = name.hasSuffix(".jsonl") || name.hasSuffix(".ndjson") ? .jsonLines : .whole
  }
}

/// Texts of a file, one after the other and no more than one in memory; a gzipped file is known by its first bytes.
public struct TextFile {
  private let handle: FileHandle
  private let name: String
  private let form: TextForm
  private let field: String

  /// - Parameters:
  ///   - form: by default what the name says.
  ///   - field: of JSON objects.
  /// - Throws: `CheckpointError` for a file that is not there or cannot be opened.
  public init(_ file: URL, form: TextForm? = nil, field: String = "text") throws(CheckpointError) {
    guard FileManager.default.fileExists(atPath: file.path) else { throw .missingFile(path: file.path) }
    do { handle = try FileHandle(forReadingFrom: file) } catch {
      throw .unreadable(path: file.path, reason: error.localizedDescription)
    }
    name = file.path
    self.form = form ?? TextForm(fileName: file.lastPathComponent)
    self.field = field
  }

  public init(standardInput form: TextForm, field: String = "text") {
    handle = .standardInput
    name = "standard input"
    self.form = form
    self.field = field
  }

  /// Calls `body` with every text until it answers false. Empty lines of JSON are passed over.
  ///
  /// - Throws: `CheckpointError` for data that is not gzip, UTF-8 or JSON as it should be, with the line; and what `body` throws.
  public func forEachText(_ body: (String) throws -> Bool) throws {
    let stream = ByteStream(handle, name: name)
    guard form != .whole else {
      var bytes: [UInt8] = []
      while case let piece = try stream.next(), !piece.isEmpty { bytes += piece }
      _ = try body(try text(bytes[...], line: nil))
      return
    }
    var rest: [UInt8] = []
    var number = 0
    while case let piece = try stream.next(), !piece.isEmpty {
      var start = 0
      while let end = piece[start...].firstIndex(of: UInt8(ascii: "\n")) {
        number += 1
        rest += piece[start..<end]
        let line = rest
        rest.removeAll(keepingCapacity: true)
        start = end + 1
        guard try handle(line, number, body) else { return }
      }
      rest += piece[start...]
    }
    if !rest.isEmpty { _ = try handle(rest, number + 1, body) }
  }

  private func handle(_ line: [UInt8], _ number: Int, _ body: (String) throws -> Bool) throws -> Bool {
    let line = line.last == UInt8(ascii: "\r") ? line.dropLast() : line[...]
    guard form == .jsonLines else { return try body(try text(line, line: number)) }
    guard !line.isEmpty else { return true }
    let json: JSON
    do { json = try JSON(parsing: line, allowsRepeatedKeys: true) } catch {
      throw CheckpointError.unreadable(path: name, reason: "line \(number), column \(error.column): \(error.reason)")
    }
    guard let text = json.string ?? json[field]?.string else {
      throw CheckpointError.unreadable(path: name, reason: "line \(number) has no text under \"\(field)\"")
    }
    return try body(text)
  }

  private func text(_ bytes: ArraySlice<UInt8>, line: Int?) throws(CheckpointError) -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw .unreadable(path: name, reason: line.map { "line \($0) is not UTF-8" } ?? "the text is not UTF-8")
    }
    return text
  }
}
