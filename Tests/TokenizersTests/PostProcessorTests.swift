import Testing

@testable import Tokenizers

@Suite struct PostProcessorTests {
  static let model = #"{"vocab": {"a": 0, "<s>": 1, "</s>": 2}, "merges": []}"#
  static let template = """
    {"type": "TemplateProcessing", "special_tokens": {"</s>": {"ids": [2, 2]}},
     "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]}
    """
  static let roberta = #"{"type": "RobertaProcessing", "cls": ["<s>", 1], "sep": ["</s>", 2]}"#
  static let asking = #"{"add_bos_token": true, "add_eos_token": true, "bos_token": "<s>", "eos_token": {"content": "</s>"}}"#

  static func tokenizer(_ processor: String?, _ configuration: String? = nil) throws -> Tokenizer {
    try Tokenizer(model: model, processor.map { "\"post_processor\": \($0)" } ?? "", configuration: configuration)
  }

  @Test func templates() throws {
    let tokenizer = try Self.tokenizer(Self.template)
    #expect(tokenizer.prefix == [] && tokenizer.suffix == [2, 2])
    #expect(try tokenizer.encode("a", addingSpecialTokens: true) == [0, 2, 2])
    #expect(try tokenizer.encode("a", addingSpecialTokens: false) == [0])
  }

  @Test func laterProcessorsWrapEarlierOnes() throws {
    let tokenizer = try Self.tokenizer(#"{"type": "Sequence", "processors": [\#(Self.template), {"type": "ByteLevel"}, \#(Self.roberta)]}"#)
    #expect(try tokenizer.encode("a", addingSpecialTokens: true) == [1, 0, 2, 2, 2])
  }

  @Test func configurationCountsWhereNothingElseDecides() throws {
    for processor in [nil, #"{"type": "ByteLevel"}"#] {
      let tokenizer = try Self.tokenizer(processor, Self.asking)
      #expect(tokenizer.prefix == [1] && tokenizer.suffix == [2])
    }
    #expect(try Self.tokenizer(Self.template, Self.asking).prefix.isEmpty)
    #expect(try Self.tokenizer(nil, #"{"add_bos_token": false, "bos_token": "<s>"}"#).prefix.isEmpty)
    #expect(try Self.tokenizer(nil, #"{"bos_token": "<s>"}"#).prefix.isEmpty)
  }

  @Test func tokensMustExist() {
    #expect(throws: TokenizerError.unknownToken("<x>", field: "tokenizer_config.json.bos_token")) {
      try Self.tokenizer(nil, #"{"add_bos_token": true, "bos_token": "<x>"}"#)
    }
    #expect(throws: TokenizerError.invalidField("tokenizer_config.json.bos_token", expected: .string)) {
      try Self.tokenizer(nil, #"{"add_bos_token": true, "bos_token": null}"#)
    }
    let template = #"{"type": "TemplateProcessing", "special_tokens": {}, "single": [{"SpecialToken": {"id": "<s>"}}]}"#
    #expect(throws: TokenizerError.unknownToken("<s>", field: "post_processor.single[0].SpecialToken")) {
      try Self.tokenizer(template)
    }
  }
}
