package import CheckpointIO
package import Models
import StrictJSON
import Tensors

/// `quantization_config` of a checkpoint with factored linears.
///
///     "quant_method": "low_rank",
///     "factors": { "model.layers.0.self_attn.k_proj": { "rank": 40, "groups": 1, "input": "model.layers.0.self_attn.q_proj.A" }, … },
///     "quantization_config": null
///
/// A factored module `M` is stored as two: `M.A` [groups · rank × inputs] and `M.B` [outputs × rank], y = B·(A·x); with several groups the
/// outputs are cut into equal stretches, each with latents of its own. `input` names the module that stores A, which layers that read the
/// same input may share. Under the inner `quantization_config` is what the weights' own format says of modules, factors included. The method's
/// name is one that runtimes do not know, so that none of them takes the checkpoint for a dense one with missing weights.
struct LowRankConfiguration: Sendable {
  private struct Entry: Sendable {
    var groups: Int
    var input: String
  }

  private var entries: [String: Entry] = [:]
  /// The configuration as the weights' own format has it.
  let inner: ModelConfig

  static let method = "low_rank"
  /// Names of the factors inside their module.
  static let (inputName, outputName) = ("A", "B")

  // MARK: Reading

  /// - Returns: `nil` for a checkpoint without factors.
  init?(_ config: ModelConfig) throws(CheckpointError) {
    guard let json = config.json["quantization_config"], json["quant_method"]?.string == Self.method else { return nil }
    guard let factors = json["factors"]?.members else {
      throw .unsupportedOption(option: "quantization_config", value: Self.method, reason: "\"factors\" is missing")
    }
    for member in factors {
      let groups = member.value["groups"]?.integer ?? 1
      guard groups > 0, let input = member.value["input"]?.string else {
        throw .unsupportedOption(
          option: "quantization_config.factors.\(member.key)", value: member.value.text(),
          reason: "a positive number of groups and the name of the module that stores A are needed")
      }
      entries[member.key] = Entry(groups: groups, input: input)
    }
    var inner = config
    inner.json["quantization_config"] = json["quantization_config"].flatMap { $0.isNull ? nil : $0 }
    self.inner = inner
  }

  /// A reader of factored modules, and of all others by the weights' own format.
  func reader(over reader: WeightReader?) -> WeightReader {
    let entries = entries
    let factor: @Sendable (String, any TensorSource) throws(CheckpointError) -> any Weight = { module, source throws(CheckpointError) in
      if let reader, reader.holds(module, source) { return try reader.weight(module, source) }
      return StoredWeight(try StoredTensors.matrix(module + ".weight", source, [.float64] + StoredTensors.floats))
    }
    return WeightReader(
      components: (reader?.components ?? []).union(["weight"]), parts: [Self.inputName, Self.outputName],
      holds: { module, source in entries[module] != nil || reader?.holds(module, source) == true },
      weight: { module, source throws(CheckpointError) in
        guard let entry = entries[module] else {
          guard let reader else { throw .missingTensor(name: module + ".weight") }
          return try reader.weight(module, source)
        }
        let (a, b) = (try factor(entry.input, source), try factor("\(module).\(Self.outputName)", source))
        guard a.rows == entry.groups * b.columns, b.rows % entry.groups == 0 else {
          throw .wrongShape(tensor: entry.input, expected: [entry.groups * b.columns, a.columns], found: [a.rows, a.columns])
        }
        return FactoredWeight(
          input: a, output: b, groups: entry.groups, sharesInputOf: Self.owner(of: entry.input, besides: module))
      },
      input: { module, source throws(CheckpointError) in try entries[module] == nil ? reader?.input(module, source) : nil },
      cache: { attention, source throws(CheckpointError) in try reader?.cache(attention, source) })
  }

  /// The linear of the same block that stores `input`, where that is not `module` itself.
  private static func owner(of input: String, besides module: String) -> LinearName? {
    let owner = input.split(separator: ".").dropLast()
    guard owner.joined(separator: ".") != module else { return nil }
    // Names in a block are a sub-block's and a linear's.
    return LinearName(rawValue: owner.suffix(2).joined(separator: "."))
  }

  // MARK: Writing

  /// - Parameter weights: `quantization_config` of the weights' own format; `nil` where all are dense.
  /// - Returns: `nil` where no module is factored.
  static func json(for modules: [StoredModule], weights: JSON?) -> JSON? {
    let factored = modules.compactMap { module in module.factors.map { ($0, module) } }
    guard !factored.isEmpty else { return nil }
    return .object([
      .init("quant_method", .string(method)),
      .init(
        "factors",
        .object(
          factored.map { factors, _ in
            .init(
              factors.module,
              .object([
                .init("rank", .integer(factors.rank)), .init("groups", .integer(factors.groups)), .init("input", .string(factors.input)),
              ]))
          })), .init("quantization_config", weights ?? .null),
    ])
  }
}

/// What the configuration says of a factored linear.
public struct StoredFactors: Sendable, Equatable {
  /// The linear's name.
  public var module: String
  public var rank: Int
  public var groups: Int
  /// The module that stores A.
  public var input: String
}

extension CheckpointFormat {
  /// The factors of a linear as linears of their own, by their full names: A unless another linear stores it, and B.
  func factors(of linear: Linear, named name: LinearName, in part: any ModelPart) -> [(module: String, linear: Linear)] {
    guard let factors = linear.weight as? FactoredWeight else { return [] }
    func factor(_ weight: any Weight) -> Linear {
      var factor = Linear(weight: weight, storageType: linear.storageType)
      factor.scaleType = linear.scaleType
      return factor
    }
    let module = part.fullName(of: name)
    let own = [(module: "\(module).\(LowRankConfiguration.outputName)", linear: factor(factors.output))]
    return factors.sharesInputOf == nil ? [("\(module).\(LowRankConfiguration.inputName)", factor(factors.input))] + own : own
  }

  /// - Throws: `FormatError` where runtimes of the format know no factors, or where a factor said to be shared is not.
  func encodeFactors(of name: LinearName, in part: any ModelPart) throws(FormatError) -> [NamedTensor] {
    let module = part.fullName(of: name)
    guard let factors = part[name].weight as? FactoredWeight else { return [] }
    guard storesFactors else {
      throw .cannotStore(
        module: module, format: Self.name,
        reason: "it is two low-rank factors, and what loads this format multiplies by one matrix; choose safetensors, or merge the factors")
    }
    if let owner = factors.sharesInputOf {
      guard let other = part.linears[owner]?.weight as? FactoredWeight, other.sharesInputOf == nil,
        other.input.dense() == factors.input.dense()
      else { throw .cannotStore(module: module, format: Self.name, reason: "it shares a factor of \(owner), which has another") }
    }
    if let input = part[name].inputQuantization {
      throw .cannotStore(module: module, format: Self.name, reason: "its input is quantized (\(input)) and its latents are not")
    }
    var tensors: [NamedTensor] = []
    for own in self.factors(of: part[name], named: name, in: part) { tensors += try encode(own.linear, module: own.module) }
    return tensors
  }

  /// The modules that a factored linear is stored as; none for any other.
  func factorModules(of name: LinearName, in part: any ModelPart) -> [StoredModule] {
    guard let factors = part[name].weight as? FactoredWeight else { return [] }
    let module = part.fullName(of: name)
    let owner = factors.sharesInputOf.map { part.fullName(of: $0) } ?? module
    return self.factors(of: part[name], named: name, in: part).map { own in
      var stored = StoredModule(name: own.module, scheme: (own.linear.weight as? QuantizedMatrix)?.scheme)
      if own.module.hasSuffix("." + LowRankConfiguration.outputName) {
        stored.factors = StoredFactors(
          module: module, rank: factors.rank, groups: factors.groups, input: "\(owner).\(LowRankConfiguration.inputName)")
      }
      return stored
    }
  }

  /// What reads a checkpoint of this format, factored or not.
  package func completeReader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let factored = try LowRankConfiguration(config) else { return try reader(for: config) }
    return factored.reader(over: try reader(for: factored.inner))
  }
}
