public import Foundation
public import StrictJSON

/// `config.json`, kept verbatim so that what the toolkit does not understand survives.
public struct ModelConfig: Sendable, Equatable {
  /// The object as it stands in the file.
  public var json: JSON
  /// `model_type`: what chooses the architecture.
  public let modelType: String
  /// Where it was read; for messages.
  public let path: String

  /// - Throws: `CheckpointError.malformedConfiguration` for text that is not a JSON object or has no `model_type`.
  public init(text: some Sequence<UInt8>, path: String = "config.json") throws(CheckpointError) {
    do { json = try JSON(parsing: text, allowsRepeatedKeys: true) } catch {
      throw .malformedConfiguration(path: path, reason: error.description)
    }
    guard json.members != nil else { throw .malformedConfiguration(path: path, reason: "an object is needed") }
    guard let type = json["model_type"]?.string else {
      throw .malformedConfiguration(path: path, reason: "\"model_type\" is missing; it names the architecture")
    }
    modelType = type
    self.path = path
  }

  public init(contentsOf url: URL) throws(CheckpointError) {
    guard FileManager.default.fileExists(atPath: url.path) else { throw .missingFile(path: url.path) }
    guard let data = try? Data(contentsOf: url) else { throw .unreadable(path: url.path, reason: "the file cannot be opened") }
    try self.init(text: data, path: url.path)
  }

  /// Reads the keys a family knows.
  ///
  /// - Throws: `CheckpointError.malformedConfiguration` naming the key that is missing, of the wrong kind, or a whole number that no model has.
  public func decode<Keys: Decodable>(_: Keys.Type) throws(CheckpointError) -> Keys {
    let keys: Keys
    do { keys = try JSONDecoder().decode(Keys.self, from: Data(json.text().utf8)) } catch let error as DecodingError {
      throw .malformedConfiguration(path: path, reason: reason(error, Keys.self))
    } catch { throw .malformedConfiguration(path: path, reason: "\(error)") }
    try ConfigurationLimits.check(keys, path: path)
    return keys
  }

  /// - Throws: `CheckpointError.malformedConfiguration` for what is divided by and is not positive.
  package func positive(_ value: Int, _ key: String) throws(CheckpointError) -> Int {
    guard value > 0 else { throw .malformedConfiguration(path: path, reason: "\"\(key)\" is \(value); a positive number is needed") }
    return value
  }

  private func reason<Keys: Decodable>(_ error: DecodingError, _: Keys.Type) -> String {
    switch error {
    case .keyNotFound(let key, _): "\"\(key.stringValue)\" is missing"
    case .typeMismatch(let type, let context): "\"\(context.codingPath.map(\.stringValue).joined(separator: "."))\" should be \(type)"
    case .valueNotFound(_, let context): "\"\(context.codingPath.map(\.stringValue).joined(separator: "."))\" is null"
    case .dataCorrupted(let context):
      // Of a number, Foundation says that the data are no JSON.
      if let number = json[key(of: context, Keys.self)], number.double != nil {
        "\"\(key(of: context, Keys.self))\" is \(number.text()); a whole number is needed, and not so large a one"
      } else {
        "\"\(key(of: context, Keys.self))\": \(context.debugDescription)"
      }
    @unknown default: "\(error)"
    }
  }

  /// The key a decoding error is about. For a number that does not fit, Foundation does not say; it is the one without which the error is
  /// another or none.
  private func key<Keys: Decodable>(of context: DecodingError.Context, _: Keys.Type) -> String {
    let path = context.codingPath.map(\.stringValue).joined(separator: ".")
    guard path.isEmpty else { return path }
    let culprit = json.members?.first { member in
      guard member.value.double != nil, member.value.integer == nil else { return false }
      var rest = json
      rest[member.key] = nil
      do { _ = try JSONDecoder().decode(Keys.self, from: Data(rest.text().utf8)) } catch DecodingError.dataCorrupted { return false } catch
      {}
      return true
    }
    return culprit?.key ?? "the configuration"
  }
}
