import CompressKit
import Testing

/// The key `scheme`: one word for all that a pass's numbers are.
@Suite struct NamedSchemeTests {
  private func read(_ options: String, _ settings: String..., pass: String = "gptq") throws -> Recipe {
    try Recipe(yaml: "passes:\n- \(pass): { \(options) }\n", file: "r.yaml", settings: settings, passes: .standard)
  }

  /// As compressed-tensors 0.12 has them, with the group size that fits in place of 128.
  private static let schemes = [
    ("w4a16", "bits: 4, group_size: auto"), ("w4a16_asym", "bits: 4, group_size: auto, symmetric: false"),
    ("w3a16", "bits: 3, group_size: auto"), ("w2a16", "bits: 2, group_size: auto"), ("w8a16", "bits: 8, group_size: auto"),
    ("w8a8", "bits: 8, group_size: channel, activations: int8"), ("int8", "bits: 8, group_size: channel, activations: int8"),
    ("w4a8", "bits: 4, group_size: auto, activations: int8"), ("w4afp8", "bits: 4, group_size: auto, activations: fp8"),
    ("fp8", "numbers: fp8, group_size: tensor, activations: fp8_static"),
    ("fp8_dynamic", "numbers: fp8, group_size: channel, activations: fp8"),
    ("fp8_block", "numbers: fp8, group_size: 128x128, activations: fp8_g128"), ("nvfp4", "numbers: nvfp4, activations: nvfp4"),
    ("nvfp4a16", "numbers: nvfp4"), ("mxfp4", "numbers: mxfp4, activations: mxfp4"), ("mxfp4a16", "numbers: mxfp4"),
    ("mxfp8", "numbers: mxfp8, activations: mxfp8"),
  ]

  @Test(arguments: schemes, ["rtn", "gptq"])
  func aSchemeIsTheOptionsItStandsFor(_ scheme: (name: String, options: String), _ pass: String) throws {
    let named = try read("scheme: \(scheme.name)", pass: pass)
    #expect(try named.yaml == read(scheme.options, pass: pass).yaml)
    #expect(try named.yaml == read("scheme: \(scheme.name.uppercased())", pass: pass).yaml)
    // What is printed has the options, so that it can be changed one by one.
    #expect(!named.yaml.contains("scheme"))
    #expect(NamedScheme.names.contains(scheme.name))
  }

  @Test func whatRefinesIsTaken() throws {
    #expect(try read("scheme: w4a16, group_size: 32, order: natural").yaml == read("bits: 4, group_size: 32, order: natural").yaml)
    #expect(try read("scheme: w4a16, group_size: channel").yaml == read("bits: 4, group_size: channel").yaml)
    #expect(try read("scheme: w4a16, bits: 4, symmetric: true").yaml == read("scheme: w4a16").yaml)
    #expect(try read("bits: 3, group_size: 64, scheme: null").yaml == read("bits: 3, group_size: 64").yaml)
    #expect(try read("refine: 2", "passes.gptq.scheme=w3a16").yaml == read("bits: 3, group_size: auto, refine: 2").yaml)
    #expect(
      try read("scheme: w4a16, overrides: [{ layers: down_proj, bits: 8 }]").yaml
        == read("bits: 4, group_size: auto, overrides: [{ layers: down_proj, bits: 8 }]").yaml)
  }

  @Test(arguments: [
    ("scheme: w4a16, bits: 3", 32, "gptq.bits"), ("scheme: w4a16, symmetric: false", 37, "gptq.symmetric"),
    ("scheme: w4a16, activations: int8", 39, "gptq.activations"), ("scheme: nvfp4, numbers: fp8", 35, "gptq.numbers"),
    ("scheme: w8a8, group_size: 128", 37, "gptq.group_size"), ("scheme: fp8_block, group_size: tensor", 42, "gptq.group_size"),
  ])
  func whatContradictsIsRefused(_ options: String, _ column: Int, _ key: String) throws {
    let error = try #require(#expect(throws: RecipeError.self) { _ = try read(options) })
    guard case .invalid(key, let reason) = error.problem else {
      Issue.record("\(error)")
      return
    }
    #expect(reason.hasPrefix("it contradicts scheme: ") && error.line == 2 && error.column == column, "\(error)")
  }

  @Test func wordsThatAreNone() throws {
    let slip = try #require(#expect(throws: RecipeError.self) { _ = try read("scheme: fp8_dynamc") })
    #expect(slip.suggestion == "fp8_dynamic" && slip.line == 2 && slip.column == 19, "\(slip)")
    #expect(slip.description.contains("known: fp8, fp8_block, fp8_dynamic, int8, "))
    #expect(try #require(#expect(throws: RecipeError.self) { _ = try read("scheme: unquantized") }).description.contains("known: "))
    #expect(try #require(#expect(throws: RecipeError.self) { _ = try read("scheme: [w4a16]") }).description.contains("a word is needed"))
    let key = try #require(#expect(throws: RecipeError.self) { _ = try read("schem: w4a16", pass: "rtn") })
    #expect(key.suggestion == "scheme")
  }

  /// A pass without one of the options has no scheme; the cache's is another.
  @Test func otherPassesHaveNone() throws {
    let error = try #require(#expect(throws: RecipeError.self) { _ = try read("scheme: w4a16", pass: "hqq") })
    guard case .unknownKey("scheme", _) = error.problem else {
      Issue.record("\(error)")
      return
    }
    #expect(try read("scheme: kivi", pass: "kv_cache").yaml.contains("scheme: kivi"))
  }
}
