import CompressKit
import Testing

/// A pass with options of all kinds.
private struct Sample: Pass {
  static let name = "sample"
  static let summary = "a pass of a test"

  enum Kind: String, Codable, CaseIterable { case plain, striped = "with_stripes" }
  struct Inner: Codable, Equatable {
    var depth = 2
    var note: String?
  }

  var isOn = true
  var count = 3
  var share = 0.5
  var kind = Kind.plain
  var kinds = [Kind.striped]
  var limit: Int?
  var inner = Inner()
  var layers = LayerSelector()
  func run(on part: inout any ModelPart, in context: PassContext) throws {}
}

@Suite struct PassOptionTests {
  @Test func everyOptionHasASentenceAndNoneIsOfAnother() throws {
    let catalog = PassCatalog.standard
    #expect(Set(catalog.sentences.keys) == Set(catalog.names))
    for name in catalog.names {
      let options = try #require(catalog.options(of: name))
      #expect(Set(options.map(\.path)) == Set(catalog.sentences[name]?.keys ?? [:].keys), "\(name)")
      for option in options {
        let sentence = try #require(option.sentence, "\(name).\(option.path)")
        #expect(sentence.hasSuffix(".") && sentence.first?.isUppercase == true && !sentence.contains("\n"), "\(name).\(option.path)")
        #expect(option.type != "options" || options.contains { $0.path.hasPrefix(option.path + ".") }, "\(name).\(option.path)")
      }
    }
  }

  /// What is listed is what recipes take: the default read back changes nothing, and every word of a closed set is known.
  @Test func defaultsAndWordsAreTaken() throws {
    for name in PassCatalog.standard.names {
      let plain = try Recipe(yaml: "passes: [\(name)]", file: "r.yaml", passes: .standard).yaml
      for option in try #require(PassCatalog.standard.options(of: name)) {
        let setting = "passes.\(name).\(option.path)="
        if let standard = option.standard {
          #expect(
            try Recipe(yaml: "passes: [\(name)]", file: "r.yaml", settings: [setting + standard], passes: .standard).yaml == plain,
            "\(setting)\(standard)")
        }
        guard option.type == "word" else { continue }
        for word in option.choices {
          do { _ = try Recipe(yaml: "passes: [\(name)]", file: "r.yaml", settings: [setting + word], passes: .standard) } catch {
            // A word may go ill with the other options, but it is known.
            #expect(!"\(error)".contains("unknown"), "\(error)")
          }
        }
      }
    }
  }

  @Test func typesDefaultsAndWordsFollowFromThePass() throws {
    let catalog = PassCatalog([]).adding(Sample.self, sentences: ["sample": ["count": "How many."]])
    let options = try #require(catalog.options(of: "sample"))
    #expect(
      options.map { "\($0.path) | \($0.type) | \($0.choices.joined(separator: ",")) | \($0.standard ?? "-") | \($0.sentence ?? "-")" } == [
        "count | whole number |  | 3 | How many.", "inner | options |  | - | -", "inner.depth | whole number |  | 2 | -",
        "inner.note | text |  | - | -", "isOn | true or false |  | true | -", "kind | word | plain,with_stripes | plain | -",
        "kinds | list of words | plain,with_stripes | [\"with_stripes\"] | -",
        "layers | \(LayerSelector.spelling) |  | {\"exclude\":[],\"include\":[\"*\"]} | -", "limit | whole number |  | - | -",
        "share | number |  | 0.5 | -",
      ])
    #expect(catalog.options(of: "nothing") == nil)
  }

  @Test func aSchemeIsListedWhereItIsTaken() throws {
    let taking = PassCatalog.standard.names.filter { name in
      PassCatalog.standard.options(of: name)!.contains { $0.path == "scheme" && $0.choices == NamedScheme.names }
    }
    #expect(taking == ["rtn", "gptq"])
  }
}
