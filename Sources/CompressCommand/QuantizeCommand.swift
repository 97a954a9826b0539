import ArgumentParser
import CompressKit
import Foundation

struct QuantizeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "quantize", abstract: "Quantize a model by the name of a scheme, without a recipe file.",
    discussion: """
      The recipe is made of the options, and --print-recipe shows it; everything else is as with `compress run`. Integers come in groups of \
      128, or of 64 or 32 where that is what divides a layer.
      """)

  enum Method: String, ExpressibleByArgument, CaseIterable { case rtn, gptq, awq }

  @Argument(help: ArgumentHelp("The model directory or file.", valueName: "model"), completion: .directory)
  var model: String

  @Option(
    name: .long,
    help: ArgumentHelp(
      "What weights and inputs become: w4a16, w4a16_asym, w8a16, w8a8, fp8_dynamic, fp8_block, nvfp4, nvfp4a16, mxfp4, w3a16, …",
      valueName: "name"),
    completion: .list(NamedScheme.names))
  var scheme: String

  @Option(
    name: .long,
    help: ArgumentHelp(
      "rtn rounds to nearest and needs no text, gptq corrects by the text, awq scales by it before it rounds (default: gptq if a text is given, rtn otherwise).",
      valueName: "rtn|gptq|awq"))
  var method: Method?

  @Option(
    name: .long, help: ArgumentHelp("Calibration text, plain or JSON lines, perhaps gzipped.", valueName: "file"), completion: .file())
  var text: String?

  @Option(name: .long, help: ArgumentHelp("Calibration sequences.", valueName: "n"))
  var sequences = 128

  @Option(name: .long, help: ArgumentHelp("Tokens of a calibration sequence.", valueName: "n"))
  var length = 512

  @Option(
    name: .long, help: ArgumentHelp("Text to score the model on before and after.", valueName: "file"), completion: .file())
  var evaluate: String?

  @Option(name: .long, help: ArgumentHelp("Tokens of a window of that text.", valueName: "n"))
  var window = 512

  @Option(name: .long, help: ArgumentHelp("The output's format; see `compress list formats`.", valueName: "format"))
  var format = "compressed-tensors"

  @OptionGroup var options: RunOptions

  func validate() throws {
    try require("--sequences", sequences)
    try require("--length", length, atLeast: 2)
    try require("--window", window, atLeast: 2)
  }

  /// The passes and what else the options say. JSON is YAML, and quotes whatever a file may be called.
  private var recipe: JSON {
    let method = method ?? (text == nil ? .rtn : .gptq)
    let named = JSON.Member(NamedScheme.key, .string(scheme))
    let passes: [JSON] =
      switch method {
      case .rtn: [.object([.init("rtn", .object([named]))])]
      case .gptq: [.object([.init("gptq", .object([named]))])]
      case .awq:
        [
          .object([.init("awq", .object([]))]),
          .object([.init("rtn", .object([named, .init("importance", .string("activations"))]))]),
        ]
      }
    var members: [JSON.Member] = []
    if let text {
      members.append(
        .init(
          "calibration",
          .object([.init("text", .string(text)), .init("sequences", .integer(sequences)), .init("length", .integer(length))])))
    }
    members += [.init("passes", .array(passes)), .init("output", .object([.init("format", .string(format))]))]
    if let evaluate {
      members.append(.init("evaluation", .object([.init("text", .string(evaluate)), .init("window", .integer(window))])))
    }
    return .object(members)
  }

  func run() async throws {
    guard NamedScheme.names.contains(scheme.lowercased()) else {
      throw OptionError(option: "--scheme", value: scheme, known: NamedScheme.names)
    }
    let recipe = try Recipe(
      yaml: recipe.text(), file: "compress quantize", settings: options.set, passes: CompressCommand.toolkit.passes)
    if recipe.calibration == nil, let pass = recipe.passes.first(where: \.usesCalibration) {
      throw ValidationError("--text is needed: \(type(of: pass).name) fits what \(scheme.lowercased()) needs to calibration text")
    }
    let name = URL(userPath: model).standardizedFileURL.deletingPathExtensionOfFile.lastPathComponent
    try await options.run(recipe, on: model, into: "\(name)-\(scheme.lowercased())", bases: [])
  }
}

extension URL {
  /// A directory as it is; a file without its extension.
  fileprivate var deletingPathExtensionOfFile: URL {
    var isDirectory: ObjCBool = false
    let exists = FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory)
    return exists && !isDirectory.boolValue ? deletingPathExtension() : self
  }
}
