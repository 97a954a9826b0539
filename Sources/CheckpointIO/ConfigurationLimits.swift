/// The sizes that a model may have: what is larger is no model but a damaged or made-up file, and arithmetic on it would overflow.
enum ConfigurationLimits {
  /// A width, such as the hidden size or the vocabulary: 64 times the largest there is.
  static let width = 1 << 24
  /// What is counted out one by one: layers and experts.
  static let count = 1 << 12
  /// What only measures a sequence: positions and windows.
  static let length = Int(Int32.max)

  /// Checks the whole numbers among the keys a family has read.
  ///
  /// - Parameter path: where they were read.
  /// - Throws: `CheckpointError.malformedConfiguration` naming the key.
  static func check(_ keys: Any, path: String) throws(CheckpointError) {
    for child in Mirror(reflecting: keys).children {
      guard let key = child.label, let value = child.value as? Int else { continue }
      let largest =
        key.contains("position") || key.contains("window") ? length : key.contains("layer") || key.contains("expert") ? count : width
      // The size of an expert is a width.
      let limit = key.contains("size") ? width : largest
      guard (0...limit).contains(value) else {
        throw .malformedConfiguration(path: path, reason: "\"\(key)\" is \(value); a number from 0 to \(limit) is possible")
      }
    }
  }
}
