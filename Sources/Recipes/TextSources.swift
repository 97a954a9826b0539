/// The texts of a recipe: the name of a file, a file with what is taken from it, or a list of these.
public struct TextSources: Sendable, Codable, Equatable, ExpressibleByStringLiteral {
  public var files: [TextSource]
  /// Whether they are spelled as a lone name.
  private var isName = false
  /// Whether they are spelled as a lone mapping.
  private var isLone = false

  public init(_ files: [TextSource]) { self.files = files }

  public init(_ file: String) {
    files = [TextSource(file: file)]
    isName = true
  }

  public static func == (a: Self, b: Self) -> Bool { a.files == b.files }
  public init(stringLiteral file: String) { self.init(file) }

  public init(from decoder: any Decoder) throws {
    if let file = try? decoder.singleValueContainer().decode(String.self) {
      self.init(file)
    } else if (try? decoder.unkeyedContainer()) != nil {
      self.init(try [TextSource](from: decoder))
    } else {
      self.init([try TextSource(from: decoder)])
      isLone = true
    }
  }

  public func encode(to encoder: any Encoder) throws {
    if isName, files.count == 1, files[0] == TextSource(file: files[0].file) {
      try files[0].file.encode(to: encoder)
    } else if isLone, files.count == 1 {
      try files[0].encode(to: encoder)
    } else {
      try files.encode(to: encoder)
    }
  }
}

/// One file of texts: a text (`.txt` or any other name), or JSON lines (`.jsonl`), gzipped or not.
public struct TextSource: Sendable, Codable, Equatable {
  public var file: String
  /// The field of JSON objects that holds the text.
  public var field = "text"
  /// What stands between the documents of a text; without it the file is one document.
  public var separator: String?
  /// Its share of the sequences, relative to the other files'.
  public var weight = 1.0

  public init(file: String, field: String = "text", separator: String? = nil, weight: Double = 1) {
    self.file = file
    self.field = field
    self.separator = separator
    self.weight = weight
  }

  private enum CodingKeys: String, CodingKey { case file, field, separator, weight }

  public init(from decoder: any Decoder) throws {
    if let file = try? decoder.singleValueContainer().decode(String.self) {
      self.init(file: file)
      return
    }
    let values = try decoder.container(keyedBy: CodingKeys.self)
    self.init(
      file: try values.decode(String.self, forKey: .file), field: try values.decodeIfPresent(String.self, forKey: .field) ?? "text",
      separator: try values.decodeIfPresent(String.self, forKey: .separator),
      weight: try values.decodeIfPresent(Double.self, forKey: .weight) ?? 1)
  }
}

/// How documents become calibration sequences.
public enum Packing: String, Sendable, Codable, CaseIterable {
  /// Their tokens follow each other, and are cut every so many.
  case concatenate
  /// A sequence is one document, cut off where it is too long, with the tokens around it that the tokenizer puts there.
  case documents
}
