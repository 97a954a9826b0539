import Models
import Passes
import StrictJSON

extension LLMCompressor {
  /// What is done to the weights and inputs of some linears, and where in the file each part is said.
  struct Scheme {
    /// An order of columns that a scheme may ask for.
    enum Order: Equatable { case weight, group }

    /// `nil` where nothing is done to them.
    var preset: QuantizationPreset?
    var place: RecipeNode.Position
    /// By our option.
    var places: [String: RecipeNode.Position] = [:]
    var order: Order?
    var orderPlace: RecipeNode.Position?
    /// How the scales of weights are chosen.
    var observer: Entry?

    /// A preset by its name.
    init(named name: Entry, at path: String) throws(RecipeError) {
      place = name.place
      guard name.text.uppercased() != "UNQUANTIZED" else { return }
      guard let preset = QuantizationPreset.named(name.text) else {
        throw RecipeError(
          file: place.file, line: place.line, column: place.column,
          problem: .invalid(path, reason: "there is no preset named \"\(name.text)\""),
          suggestion: NearestName.of(name.text.uppercased(), among: QuantizationPreset.all.keys))
      }
      self.preset = preset
    }

    /// An explicit scheme: a config group without its targets.
    init(_ group: Arguments, _ remarks: inout Remarks) throws(RecipeError) {
      place = group.mark
      try group.check(known: ["targets", "weights", "input_activations", "output_activations", "format"])
      try group.refuse("output_activations", "outputs of linears are not quantized by any pass here")
      try group.refuse("format", "the layout follows from the numbers here; leave it out")
      let input = group.given("input_activations")
      guard let weights = group.given("weights") else {
        if let input { throw input.refusal("inputs are quantized only together with weights here; give weights too") }
        return
      }
      let arguments = try weights.arguments()
      let numbers = try Numbers(arguments, &remarks)
      var preset = QuantizationPreset(try numbers.weights())
      places = [
        "numbers": arguments.place(of: "type", "strategy"), "bits": arguments.place(of: "num_bits"),
        "group_size": arguments.place(of: "group_size", "strategy", "block_structure"), "symmetric": arguments.place(of: "symmetric"),
      ]
      (order, orderPlace) = (try numbers.order(), arguments["actorder"]?.mark)
      if let observer = arguments.given("observer") { self.observer = Entry(text: try observer.text(), place: observer.mark) }
      if let input {
        let arguments = try input.arguments()
        preset.input = try Numbers(arguments, &remarks).input(&remarks)
        places["activations"] = input.mark
      }
      self.preset = preset
    }

    /// The options of our quantizing passes that say the same, all of them, so that none is inherited.
    func options(activations: Bool) -> [RecipeNode.Member] {
      guard let preset else { return [] }
      let weights = preset.weights
      func member(_ key: String, _ json: JSON) -> RecipeNode.Member { .init(key, json, at: places[key] ?? place) }
      var options: [RecipeNode.Member] = []
      switch weights {
      case .nvfp4: options = [member("numbers", .string("nvfp4"))]
      case .mx(bits: weights.bits): options = [member("numbers", .string("mxfp\(weights.bits)"))]
      case _ where weights.grid == .float: options = [member("numbers", .string("fp8")), member("group_size", size(weights))]
      default: options = [member("numbers", .string("int")), member("bits", .integer(weights.bits)), member("group_size", size(weights))]
      }
      options.append(member("symmetric", .bool(weights.symmetric)))
      if activations { options.append(member("activations", .string(preset.input.map { Self.inputs[$0]! } ?? "none"))) }
      return options
    }

    private func size(_ weights: QuantizationScheme) -> JSON {
      switch weights.granularity {
      case .tensor: .string("tensor")
      case .channel: .string("channel")
      case .group(let count): .integer(count)
      case .block(let rows, let columns): .string("\(rows)x\(columns)")
      }
    }

    /// The inputs that our passes know, as recipes spell them.
    static let inputs: [InputQuantization: String] = [
      .int(8): "int8", .int(4): "int4", .intTensor(8): "int8_static", .fp8: "fp8", .fp8Tensor: "fp8_static", .fp8Group: "fp8_g128",
      .mx(bits: 4): "mxfp4", .mx(bits: 8): "mxfp8", .nvfp4: "nvfp4",
    ]
  }
}
