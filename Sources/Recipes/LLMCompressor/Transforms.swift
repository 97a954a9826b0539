import Passes
import StrictJSON

// Modifiers that change weights without quantizing them.

extension LLMCompressor {
  private static func options(_ members: [RecipeNode.Member], of arguments: Arguments) -> RecipeNode {
    RecipeNode(value: .mapping(members), position: arguments.mark)
  }

  private static func member(_ name: String, _ arguments: Arguments, _ key: String, otherwise: JSON) -> RecipeNode.Member {
    if let given = arguments.given(key) { return .init(key: name, mark: given.mark, node: given.node) }
    return .init(name, otherwise, at: arguments.mark)
  }

  private static let mappings = "which layers are scaled against which follows from the model here; leave it out"

  /// `awq`, which takes the schemes and the choice of layers from the passes that follow, as the modifier does.
  static func awq(_ modifier: Modifier, before quantizers: [Quantizer]) throws(RecipeError) -> RecipeNode {
    let arguments = modifier.arguments
    try arguments.refuse("mappings", mappings)
    guard !quantizers.isEmpty else {
      throw arguments.refusal("it only prepares weights: a modifier that quantizes must follow, such as QuantizationModifier")
    }
    if let duo = arguments.given("duo_scaling"), duo.node.json.bool == nil { _ = try duo.choice("both") }
    return options(
      [
        member("grid", arguments, "n_grid", otherwise: .integer(20)), member("duo", arguments, "duo_scaling", otherwise: .bool(true)),
        // The reference scales and never clips.
        .init("clip", .bool(false), at: arguments.mark),
      ], of: arguments)
  }

  static func smoothQuant(_ modifier: Modifier) throws(RecipeError) -> RecipeNode {
    let arguments = modifier.arguments
    try arguments.refuse("mappings", mappings)
    try arguments.refuse("num_calibration_steps", "all calibration sequences are used here; calibration.sequences says how many")
    try arguments.refuse("calibration_function", "it is a function of Python; leave it out")
    if let algorithm = arguments.given("algorithm") { _ = try algorithm.choice("smoothquant") }
    var members = [member("strength", arguments, "smoothing_strength", otherwise: .double(0.5))]
    var ignored: [Entry] = []
    for entry in try arguments.given("ignore")?.entries() ?? [] {
      ignored += try Target(entry, in: "\(arguments.path).ignore").patterns
    }
    if let ignore = arguments.given("ignore"), !ignored.isEmpty {
      let layers = RecipeNode(value: .mapping(Selection.exclusions(ignored)), position: ignore.mark)
      members.append(.init(key: "layers", mark: ignore.mark, node: layers))
    }
    return options(members, of: arguments)
  }

  static func spinQuant(_ modifier: Modifier, _ remarks: inout Remarks) throws(RecipeError) -> RecipeNode {
    let arguments = modifier.arguments
    for key in ["randomize", "learnable"] {
      if let given = arguments.given(key), try given.flag() {
        throw given.refusal("rotations are drawn once and folded into the weights here: false")
      }
    }
    if let precision = arguments.given("precision"), !["float64", "torch.float64"].contains(precision.node.json.string) {
      throw precision.refusal("rotations are folded in double precision here: leave it out")
    }
    try arguments.refuse("transform_block_size", "rotations are of the full size here; leave it out")
    try arguments.refuse("transform_config", "rotations are named by `rotations` here; leave it out")
    var rotations = [Entry(text: "R1", place: arguments.mark), Entry(text: "R2", place: arguments.mark)]
    if let given = arguments.given("rotations") { rotations = try given.entries() }
    let type = arguments.given("transform_type")
    let kind: String
    switch try type?.choice("hadamard", "random-hadamard", "random-matrix") {
    case "random-matrix"?: kind = "random"
    case "random-hadamard"?: kind = "hadamard"
    default:
      kind = "hadamard"
      remarks.add("\(modifier.name): the Hadamard matrix gets random signs here (random-hadamard)", at: type?.mark ?? arguments.mark)
    }
    var choices = ["hidden": "none", "values": "none"]
    for rotation in rotations {
      guard let name = ["R1": "hidden", "R2": "values"][rotation.text.uppercased()] else {
        let online = ["R3", "R4"].contains(rotation.text.uppercased())
        throw RecipeError(
          file: rotation.place.file, line: rotation.place.line, column: rotation.place.column,
          problem: .invalid(
            "\(arguments.path).rotations",
            reason: online
              ? "\(rotation.text) acts while the model runs, which no pass here does yet" : "\(rotation.text): R1 and R2 are known"),
          suggestion: nil)
      }
      choices[name] = kind
    }
    let place = arguments.place(of: "transform_type", "rotations")
    return options(["hidden", "values"].map { .init($0, .string(choices[$0]!), at: place) }, of: arguments)
  }
}
