internal import StrictJSON

/// The metadata and the tensors of a file as its architecture asks for them.
package struct GGUFReading: Sendable {
  let architecture: String
  let metadata: GGUFMetadata
  /// Of the file, for messages.
  let path: String
  /// Shapes by the file's own names; `nil` where there is no such tensor.
  let shape: @Sendable (String) -> [Int]?

  func has(_ tensor: String) -> Bool { shape(tensor) != nil }

  func key(_ name: String) -> String { "\(architecture).\(name)" }

  func value(_ name: String) -> GGUFValue? { metadata[key(name)] }

  func number(_ name: String) -> Double? { value(name)?.double }

  func missing(_ name: String) -> CheckpointError { .malformedConfiguration(path: path, reason: "\"\(key(name))\" is missing") }

  func unsupported(_ name: String, _ value: String, _ reason: String) -> CheckpointError {
    .unsupportedOption(option: key(name), value: value, reason: reason)
  }

  func size(_ name: String) throws(CheckpointError) -> Int {
    guard let value = try optionalSize(name) else { throw missing(name) }
    return value
  }

  /// A whole number, or one for each layer that is the same for all.
  func optionalSize(_ name: String) throws(CheckpointError) -> Int? {
    guard let value = value(name) else { return nil }
    if let elements = value.elements {
      guard let first = elements.first?.integer, first > 0, elements.allSatisfy({ $0.integer == first }) else {
        throw unsupported(name, "an array", "layers that differ are not read")
      }
      return first
    }
    guard let number = value.integer, number >= 0, number < 1 << 31 else {
      throw .malformedConfiguration(path: path, reason: "\"\(key(name))\" should be a whole number")
    }
    return number
  }

  func keyValueHeads() throws(CheckpointError) -> Int {
    guard let heads = try optionalSize("attention.head_count_kv") else { return try size("attention.head_count") }
    return heads
  }

  func headSize() throws(CheckpointError) -> Int {
    let heads = try size("attention.head_count")
    guard heads > 0 else { throw .malformedConfiguration(path: path, reason: "\"\(key("attention.head_count"))\" is 0") }
    let size: Int
    if let own = try optionalSize("attention.key_length") { size = own } else { size = try self.size("embedding_length") / heads }
    guard size > 0 else { throw .malformedConfiguration(path: path, reason: "heads of 0 dimensions") }
    return size
  }

  /// How wide windows are, and which layers have one; `nil` where none has.
  ///
  /// - Throws: where the file does not say what its architecture needs, or speaks of another number of layers.
  func windows(_ rule: GGUFWindows) throws(CheckpointError) -> (width: Int, slides: [Bool])? {
    let layers = try size("block_count")
    let width = try optionalSize("attention.sliding_window") ?? rule.width
    guard let width, width > 0 else {
      guard rule.isOptional else { throw missing("attention.sliding_window") }
      return nil
    }
    let name = "attention.sliding_window_pattern"
    guard let list = value(name)?.elements else {
      let period = try optionalSize(name) ?? rule.period
      return (width, (0..<layers).map { rule.slides($0, period: period) })
    }
    let slides = list.compactMap { $0.bool ?? $0.integer.map { $0 != 0 } }
    guard list.count >= layers, slides.count == list.count else {
      throw unsupported(name, "\(list.count) elements", "\(layers) layers need as many")
    }
    return (width, Array(slides.prefix(layers)))
  }

  /// Sets the numbers of a mixture under the names that most families have for them.
  ///
  /// - Parameter count: the key for the number of experts.
  func setExperts(in json: inout JSON, count: String = "num_experts") throws(CheckpointError) {
    json[count] = .integer(try size("expert_count"))
    json["num_experts_per_tok"] = .integer(try size("expert_used_count"))
  }
}

extension GGUFWindows {
  /// Whether a layer has a window where the file does not say.
  package func slides(_ layer: Int, period: Int? = nil) -> Bool {
    let period = period ?? self.period
    return period == 0 || layer % period < period - 1
  }
}
