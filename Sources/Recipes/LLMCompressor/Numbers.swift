import Models
import StrictJSON

extension LLMCompressor {
  /// The quantization arguments of weights, of inputs, or of the cache.
  struct Numbers {
    private let arguments: Arguments
    private let bits: Int
    private let isFloat: Bool
    private let symmetric: Bool
    private let strategy: String
    private let moment: Moment

    /// When scales are found.
    private enum Moment: String { case `static`, dynamic, local }

    init(_ arguments: Arguments, _ remarks: inout Remarks) throws(RecipeError) {
      self.arguments = arguments
      try arguments.check(known: [
        "num_bits", "type", "symmetric", "group_size", "strategy", "block_structure", "dynamic", "actorder", "observer", "observer_kwargs",
        "scale_dtype", "zp_dtype",
      ])
      bits = try arguments.given("num_bits")?.integer() ?? 8
      isFloat = try arguments.given("type")?.choice("int", "float") == "float"
      symmetric = try arguments.given("symmetric")?.flag() ?? true
      let size = try arguments.given("group_size")?.integer()
      let inferred = size.map { $0 > 0 ? "group" : "channel" } ?? "tensor"
      strategy =
        try arguments.given("strategy")?.choice("tensor", "channel", "group", "block", "token", "tensor_group", "attn_head") ?? inferred
      if let size = arguments.given("group_size"), !["group", "tensor_group"].contains(strategy), try size.integer() != -1 {
        throw size.refusal("a group size goes with strategy group or tensor_group")
      }
      if strategy != "block" { try arguments.refuse("block_structure", "it goes with strategy block") }
      let dynamic = arguments.given("dynamic")
      switch dynamic?.node.json {
      case nil, .bool(false)?: moment = .static
      case .bool(true)?: moment = .dynamic
      case .string("local")?: moment = .local
      default: throw dynamic!.refusal("true, false or local is needed")
      }
      if let kwargs = arguments.given("observer_kwargs"), kwargs.node.json != .object([]) {
        throw kwargs.refusal("the searches for scales here have no such parameters; leave it out")
      }
      if let type = arguments.given("zp_dtype") {
        let name = try type.text()
        guard symmetric || ["int8", "torch.int8"].contains(name) else { throw type.refusal("zero points are integers here") }
        if symmetric { remarks.add("zp_dtype has no meaning here: symmetric numbers have no zero points", at: type.mark) }
      }
    }

    private func size(of argument: String = "group_size") throws(RecipeError) -> Int {
      guard let given = arguments.given(argument), try given.integer() > 0 else {
        throw (arguments[argument] ?? arguments["strategy"])?.refusal("a group size is needed")
          ?? arguments.refusal("a group size is needed")
      }
      return try given.integer()
    }

    /// Whether scales are powers of two, as `scale_dtype` says.
    private func checkScales(_ allowed: String...) throws(RecipeError) {
      guard let type = arguments.given("scale_dtype") else { return }
      let name = try type.text()
      guard allowed.contains(where: { name == $0 || name == "torch.\($0)" }) else {
        let known =
          allowed.isEmpty ? "are of the checkpoint's type; leave it out" : "of this format are \(allowed.joined(separator: " or "))"
        throw type.refusal("scales \(known)")
      }
    }

    private var hasPowerScales: Bool {
      ["uint8", "torch.uint8", "float8_e8m0fnu", "torch.float8_e8m0fnu"].contains(arguments.given("scale_dtype")?.node.json.string)
    }

    func weights() throws(RecipeError) -> QuantizationScheme {
      if moment != .static { throw arguments["dynamic"]!.refusal("weights are quantized once: false") }
      guard isFloat else {
        try checkScales()
        return QuantizationScheme(bits: bits, granularity: try granularity(), symmetric: symmetric)
      }
      if !symmetric { throw arguments["symmetric"]!.refusal("floats have no zero points here") }
      switch (bits, strategy) {
      case (4, "tensor_group"):
        guard try size() == 16 else { throw arguments["group_size"]!.refusal("nvfp4 has groups of 16") }
        try checkScales("float8_e4m3fn")
        return .nvfp4
      case (4, "group"),
        (8, "group") where hasPowerScales:
        guard try size() == 32 else { throw arguments["group_size"]!.refusal("mxfp\(bits) has groups of 32") }
        try checkScales("uint8", "float8_e8m0fnu")
        return .mx(bits: bits)
      case (8, "channel"), (8, "tensor"), (8, "group"), (8, "block"):
        try checkScales()
        return QuantizationScheme(bits: 8, grid: .float, granularity: try granularity())
      case (4, _), (8, _):
        throw (arguments["strategy"] ?? arguments["num_bits"])?.refusal("floats of \(bits) bits by \(strategy) are not quantized here")
          ?? arguments.refusal("floats of \(bits) bits by \(strategy) are not quantized here")
      default: throw arguments["num_bits"]?.refusal("floats have 4 or 8 bits") ?? arguments.refusal("floats have 4 or 8 bits")
      }
    }

    private func granularity() throws(RecipeError) -> QuantizationScheme.Granularity {
      switch strategy {
      case "tensor": return .tensor
      case "channel": return .channel
      case "group": return .group(try size())
      case "block":
        guard let given = arguments.given("block_structure") else { throw arguments["strategy"]!.refusal("block_structure says how large") }
        let sides =
          if case .list(let nodes) = given.node.value { nodes.map(\.json.integer) } else {
            (given.node.json.string ?? "").split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
          }
        guard sides.count == 2, let rows = sides[0], let columns = sides[1], rows > 0, columns > 0 else {
          throw given.refusal("rows and columns are needed, such as [128, 128]")
        }
        return .block(rows: rows, columns: columns)
      default: throw arguments["strategy"]!.refusal("weights are not quantized by \(strategy) here")
      }
    }

    func input(_ remarks: inout Remarks) throws(RecipeError) -> InputQuantization {
      try arguments.refuse("actorder", "inputs have no order of columns")
      if !symmetric { throw arguments["symmetric"]!.refusal("inputs are quantized symmetrically here") }
      let found: InputQuantization? =
        switch (isFloat, bits, strategy, moment) {
        case (false, 4, "token", .dynamic), (false, 8, "token", .dynamic): .int(bits)
        case (false, 8, "tensor", .static): .intTensor(8)
        case (true, 8, "token", .dynamic): .fp8
        case (true, 8, "tensor", .static): .fp8Tensor
        case (true, 8, "group", .dynamic): hasPowerScales ? .mx(bits: 8) : .fp8Group
        case (true, 4, "group", .dynamic): .mx(bits: 4)
        case (true, 4, "tensor_group", .local): .nvfp4
        default: nil
        }
      guard let found else {
        let words = "\(isFloat ? "float" : "int") of \(bits) bits by \(strategy), \(moment.rawValue)"
        throw arguments.refusal(
          "inputs as \(words) are not quantized here; possible: \(Scheme.inputs.values.sorted().joined(separator: ", "))")
      }
      if case .group(let count) = found.granularity, try size() != count {
        throw arguments["group_size"]!.refusal("groups of \(count) are possible here")
      }
      switch found {
      case .nvfp4: try checkScales("float8_e4m3fn")
      case .mx(bits: 4), .mx(bits: 8): try checkScales("uint8", "float8_e8m0fnu")
      default: try checkScales()
      }
      if let observer = arguments.given("observer") { try Self.checkInput(observer, &remarks) }
      return found
    }

    /// The largest magnitude of all calibration data is what a calibrated input goes by here.
    static func checkInput(_ observer: Argument, _ remarks: inout Remarks) throws(RecipeError) {
      switch try observer.text() {
      case "static_minmax": break
      case "memoryless_minmax", "minmax":
        remarks.add("\(observer.key): inputs go by their extremes over all calibration data (static_minmax)", at: observer.mark)
      default: throw observer.refusal("inputs go by their extremes here: static_minmax, minmax or memoryless_minmax")
      }
    }

    /// The scheme of our pass `kv_cache`.
    func cache() throws(RecipeError) -> String {
      try arguments.refuse("actorder", "a cache has no order of columns")
      guard bits == 8 else { throw arguments.given("num_bits")!.refusal("the cache has 8 bits here") }
      guard strategy == "tensor" else {
        throw arguments.refusal("the cache has one scale for each block's keys and values here: strategy tensor")
      }
      if moment != .static { throw arguments["dynamic"]!.refusal("the scales of a cache are fixed here: false") }
      if !symmetric { throw arguments["symmetric"]!.refusal("caches are quantized symmetrically here") }
      try checkScales()
      return isFloat ? "fp8" : "int8"
    }

    func order() throws(RecipeError) -> Scheme.Order? {
      guard let argument = arguments.given("actorder") else { return nil }
      return try Self.order(argument)
    }

    /// - Returns: `nil` for `false`.
    static func order(_ argument: Argument) throws(RecipeError) -> Scheme.Order? {
      if let flag = argument.node.json.bool { return flag ? .group : nil }
      return ["group", "dynamic"].contains(try argument.choice("weight", "static", "group", "dynamic")) ? .group : .weight
    }
  }
}
