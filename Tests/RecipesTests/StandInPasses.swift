import CompressKit

// Passes with the options that recipes of llm-compressor are mapped to; they do nothing.

struct StandInAWQ: Pass {
  static let name = "awq"

  /// `true`, `false` or `both`.
  enum Duo: Codable, Equatable {
    case flag(Bool)
    case both

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let flag = try? container.decode(Bool.self) {
        self = .flag(flag)
      } else {
        guard try container.decode(String.self) == "both" else {
          throw DecodingError.dataCorruptedError(in: container, debugDescription: "true, false or both")
        }
        self = .both
      }
    }

    func encode(to encoder: any Encoder) throws {
      var container = encoder.singleValueContainer()
      switch self {
      case .flag(let flag): try container.encode(flag)
      case .both: try container.encode("both")
      }
    }
  }

  var numbers = NumberFormat.int
  var bits: Int?
  var groupSize: GroupSize?
  var symmetric = true
  var grid = 10
  var duo = Duo.flag(false)
  var clip = true
  var layers = LayerSelector()
  var overrides: [QuantizationOverride] = []

  private enum CodingKeys: String, CodingKey { case numbers, bits, groupSize = "group_size", symmetric, grid, duo, clip, layers, overrides }
  func run(on block: inout Block, in context: PassContext) {}
}

struct StandInSmoothQuant: Pass {
  static let name = "smoothquant"
  var strength = 0.1
  var layers = LayerSelector()
  func run(on block: inout Block, in context: PassContext) {}
}

struct StandInRotate: Pass {
  static let name = "rotate"
  enum Choice: String, Codable { case hadamard, random, none }
  var hidden = Choice.random
  var values = Choice.random
  func run(on block: inout Block, in context: PassContext) {}
}

/// Recipes of llm-compressor in tests.
enum Dialect {
  static let catalog = PassCatalog([
    RoundToNearest.self, GPTQ.self, StandInAWQ.self, StandInSmoothQuant.self, StandInRotate.self, KVCacheScales.self,
  ])

  static func read(_ yaml: String, _ settings: String..., file: String = "r.yaml") throws -> Recipe {
    try Recipe(yaml: yaml, file: file, settings: settings, passes: catalog)
  }

  /// One stage and one group over modifiers, which begin in line 3, column 5.
  static func stage(_ modifiers: String) -> String {
    let lines = modifiers.split(separator: "\n", omittingEmptySubsequences: false).map { "    \($0)\n" }
    return "quant_stage:\n  quant_modifiers:\n" + lines.joined()
  }
}
