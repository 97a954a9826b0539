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

/// Texts of a file, one after the other and no more than one in memory; a gzipped file is known by its first bytes, and inflated as it is read.
public struct TextFile {
  private let handle: FileHandle
  private let name: String
  private let form: TextForm
  private let field: String
  private let separator: [UInt8]

  /// Bytes that a line, or a text between separators, may have: what is longer is no line.
  private static let longest = 1 << 28

  /// - Parameters:
  ///   - form: by default what the name says.
  ///   - field: of JSON objects.
  ///   - separator: what stands between the texts of a file that would be one text without; of JSON lines, between those of one line. Texts
  ///     that are empty are passed over.
  /// - Throws: `CheckpointError` for a file that is not there or cannot be opened.
  public init(_ file: URL, form: TextForm? = nil, field: String = "text", separator: String? = nil) throws(CheckpointError) {
    guard FileManager.default.fileExists(atPath: file.path) else { throw .missingFile(path: file.path) }
    do { handle = try FileHandle(forReadingFrom: file) } catch {
      throw .unreadable(path: file.path, reason: SystemError.reason(error))
    }
    name = file.path
    self.form = form ?? TextForm(fileName: file.lastPathComponent)
    self.field = field
    self.separator = Array((separator ?? "").utf8)
  }

  public init(standardInput form: TextForm, field: String = "text") {
    handle = .standardInput
    name = "standard input"
    self.form = form
    self.field = field
    separator = []
  }

  /// Whether all of the file is one text.
  public var isOneText: Bool { form == .whole && separator.isEmpty }

  /// The start of a file that is one text, cut between two characters; no more than that is read.
  ///
  /// - Parameter limit: in bytes.
  /// - Returns: the text, and whether it is all of it.
  public func beginning(_ limit: Int) throws -> (text: String, isWhole: Bool) {
    let stream = ByteStream(handle, name: name)
    var bytes: [UInt8] = []
    while bytes.count <= limit, case let piece = try stream.next(), !piece.isEmpty {
      try Task.checkCancellation()
      bytes += piece
    }
    guard bytes.count > limit else { return (try text(bytes[...], line: nil), true) }
    var end = limit
    while end > 0, bytes[end] & 0xC0 == 0x80 { end -= 1 }
    return (try text(bytes[..<end], line: nil), false)
  }

  /// Calls `body` with every text until it answers false. Empty lines of JSON are passed over.
  ///
  /// - Throws: `CheckpointError` for data that is not gzip, UTF-8 or JSON as it should be, with the line; and what `body` throws.
  public func forEachText(_ body: (String) throws -> Bool) throws {
    if isOneText {
      _ = try body(try beginning(.max).text)
      return
    }
    if form == .whole { return try forEachPart(body) }
    let stream = ByteStream(handle, name: name)
    var rest: [UInt8] = []
    var number = 0
    while case let piece = try stream.next(), !piece.isEmpty {
      try Task.checkCancellation()
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
      guard rest.count <= Self.longest else {
        throw CheckpointError.unreadable(path: name, reason: "line \(number + 1) is longer than \(Self.longest) bytes")
      }
    }
    if !rest.isEmpty { _ = try handle(rest, number + 1, body) }
  }

  /// What lies between separators.
  private func forEachPart(_ body: (String) throws -> Bool) throws {
    let stream = ByteStream(handle, name: name)
    var pending: [UInt8] = []
    // Where in `pending` a separator may begin that has not been looked for.
    var searched = 0
    while case let piece = try stream.next(), !piece.isEmpty {
      try Task.checkCancellation()
      pending += piece
      var start = 0
      while let found = Self.first(separator, in: pending, from: max(searched, start)) {
        let part = pending[start..<found]
        start = found + separator.count
        searched = start
        if !part.isEmpty, try !body(try text(part, line: nil)) { return }
      }
      pending.removeFirst(start)
      searched = max(0, pending.count - separator.count + 1)
      guard pending.count <= Self.longest else {
        throw CheckpointError.unreadable(path: name, reason: "no separator stands in \(Self.longest) bytes of text")
      }
    }
    if !pending.isEmpty { _ = try body(try text(pending[...], line: nil)) }
  }

  private static func first(_ separator: [UInt8], in bytes: [UInt8], from start: Int) -> Int? {
    var position = start
    while position + separator.count <= bytes.count {
      guard let next = bytes[position..<bytes.count - separator.count + 1].firstIndex(of: separator[0]) else { return nil }
      if bytes[next..<next + separator.count].elementsEqual(separator) { return next }
      position = next + 1
    }
    return nil
  }

  private func handle(_ line: [UInt8], _ number: Int, _ body: (String) throws -> Bool) throws -> Bool {
    let line = line.last == UInt8(ascii: "\r") ? line.dropLast() : line[...]
    guard form == .jsonLines else { return try body(try self.text(line, line: number)) }
    guard !line.isEmpty else { return true }
    let json: JSON
    do { json = try JSON(parsing: line, allowsRepeatedKeys: true) } catch {
      throw CheckpointError.unreadable(path: name, reason: "line \(number), column \(error.column): \(error.reason)")
    }
    guard let text = json.string ?? json[field]?.string else {
      throw CheckpointError.unreadable(path: name, reason: "line \(number) has no text under \"\(field)\"")
    }
    guard !separator.isEmpty else { return try body(text) }
    for part in text.components(separatedBy: String(decoding: separator, as: UTF8.self)) where !part.isEmpty {
      guard try body(part) else { return false }
    }
    return true
  }

  private func text(_ bytes: ArraySlice<UInt8>, line: Int?) throws(CheckpointError) -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw .unreadable(path: name, reason: line.map { "line \($0) is not UTF-8" } ?? "the text is not UTF-8")
    }
    return text
  }
}
