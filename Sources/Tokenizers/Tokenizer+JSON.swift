public import StrictJSON

extension Tokenizer {
  /// Reads parsed files.
  ///
  /// - Parameters:
  ///   - json: the content of `tokenizer.json`; members that the reference does not know are passed over, as it does.
  ///   - configuration: the content of `tokenizer_config.json`, asked for the tokens around a text where `json` has no template for them.
  /// - Throws: `TokenizerError`, but for its cases about files.
  public init(json: JSON, configuration: JSON?) throws(TokenizerError) {
    try self.init(json: json, configuration: configuration, model: nil)
  }

  /// - Parameter model: in place of what `json` has under `model`, which then may lack its merges.
  init(json: JSON, configuration: JSON?, model: (any TokenModel)?) throws(TokenizerError) {
    let root = Field(path: "", json: json)
    if let version = root["version"], version.json != .string("1.0") {
      throw .unsupportedOption(field: version.path, value: version.json.text())
    }
    var steps = try PreTokenizers.steps(of: root["pre_tokenizer"])
    let last = steps.last as? ByteLevel
    if let last { steps[steps.count - 1] = last.leavingBytes() }
    let core =
      if let model { model } else { try TokenModels.model(try root.required("model", .object), readsBytes: last != nil) }
    if let words = (core as? BytePairEncoding)?.wordStarts { steps.append(words) }

    var parts = Parts(model: core)
    parts.normalizers = try Normalizers.steps(of: root["normalizer"])
    parts.preTokenizers = steps
    parts.decoders = try Decoders.steps(of: root["decoder"])
    for element in try root["added_tokens"]?.elements() ?? [] {
      parts.addedTokens.append(try AddedToken(element, normalizers: parts.normalizers))
    }
    let settings = configuration.map { Field(path: "tokenizer_config.json", json: $0) }
    parts.surroundings = try Surroundings(root["post_processor"], configuration: settings) { [parts] in parts.id(of: $0) }
    self.init(parts)
  }
}
