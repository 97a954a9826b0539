import ArgumentParser
import CompressKit
import Foundation

struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Show what a checkpoint holds: architecture, tensors, bits per weight, size by role.",
    discussion: "Of files whose model is not known, the tensors and the metadata are listed.")

  @Argument(help: ArgumentHelp("The model directory, or a file of weights.", valueName: "model"), completion: .directory)
  var model: String

  @Flag(name: .long, help: "List every tensor, and the file's metadata.")
  var tensors = false

  @Flag(name: .long, help: "Print one JSON object.")
  var json = false

  private struct Role {
    var name: String
    var tensors = 0
    var bytes = 0
    var parameters = 0
  }

  func run() throws { try printResult(try report()) }

  /// What is printed.
  func report() throws -> String {
    let place = URL(userPath: model)
    do throws(CheckpointError) {
      let checkpoint = try Checkpoint(place)
      return try describe(checkpoint, try CompressCommand.toolkit.model(checkpoint), place)
    } catch {
      guard Self.mayBeSound(error), let collection = try? TensorCollection(place) else { throw error }
      let report = UnknownModelReport(collection: collection, reason: error)
      return json ? report.json.text(indent: 2) : report.text
    }
  }

  /// Whether tensors can be listed all the same: the error is about the model or its names, not about what is on the disk.
  private static func mayBeSound(_ error: CheckpointError) -> Bool {
    switch error {
    case .unsupportedOption, .malformedConfiguration, .malformedTensor, .unusableType: true
    default: error.isAboutUnknownModel
    }
  }

  private func describe(_ checkpoint: Checkpoint, _ opened: Model, _ place: URL) throws(CheckpointError) -> String {
    let plan: [PlannedLinear]
    do { plan = try Pipeline([]).plan(for: opened) } catch {
      throw (error as? CheckpointError) ?? .unreadable(path: place.path, reason: "\(error)")
    }
    let list = tensors ? TensorList(tensors: checkpoint.tensors, metadata: (try? TensorCollection(place))?.metadata ?? []) : nil
    let roles = roles(opened.tensors ?? checkpoint.tensors, opened, plan)
    let description = opened.description
    let parameters = roles.reduce(0) { $0 + $1.parameters }
    if json {
      var members = report(checkpoint, description, roles, parameters)
      members += [.init("remarks", .array(opened.remarks.map { .string($0) }))] + (list?.members ?? [])
      return JSON.object(members).text(indent: 2)
    }
    let feedForward = description.blocks.last { $0.feedForward != nil }?.feedForward
    let experts = feedForward?.mixture.map { ", \($0.experts) experts of which \($0.expertsPerToken) see a token" } ?? ""
    var lines = [
      "architecture     \(checkpoint.config.modelType), \(description.blocks.count) blocks",
      "hidden size      \(description.hiddenSize), feed-forward \(feedForward?.size ?? 0)\(experts)",
      "vocabulary       \(description.vocabularySize), \(description.headText)",
      "parameters       \(parameters)",
      "size             \(ByteCount.text(checkpoint.byteCount)), \((Double(checkpoint.byteCount) * 8 / Double(max(1, parameters))).rounded(toPlaces: 3)) bits per parameter",
      "",
    ]
    lines.insert(contentsOf: mixerLines(description), at: 2)
    var table = TextTable("role", "tensors", "parameters", "size", "bits/weight")
    for role in roles where role.tensors > 0 {
      table.rows.append([
        role.name, "\(role.tensors)", "\(role.parameters)", ByteCount.text(role.bytes),
        role.parameters > 0 ? (Double(role.bytes) * 8 / Double(role.parameters)).rounded(toPlaces: 3) : "",
      ])
    }
    lines.append(table.text)
    if let list { lines += ["", list.text] }
    for remark in opened.remarks { lines.append("note: \(remark)") }
    return lines.joined(separator: "\n")
  }

  /// Attention by its heads; where there are other mixers, how many of each kind.
  private func mixerLines(_ description: ModelDescription) -> [String] {
    var lines: [String] = []
    if let heads = description.blocks.lazy.compactMap(\.heads).first {
      lines.append("attention        \(heads.queries) heads over \(heads.keyValues) key-value heads of \(heads.size)")
    }
    let kinds = description.blocks.flatMap { block in block.mixers.map { type(of: $0).kind } }
    let counts = Dictionary(grouping: kinds) { $0 }.mapValues(\.count)
    guard counts.keys.contains(where: { $0 != AttentionDescription.kind }) else { return lines }
    let text = counts.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.key) in \($0.value)" }
    return lines + ["token mixers     \(text.joined(separator: ", ")) of \(description.blocks.count) blocks"]
  }

  /// Every tensor belongs to the linear whose name it begins with, to a norm, or to nobody.
  private func roles(_ tensors: any TensorSource, _ model: Model, _ plan: [PlannedLinear]) -> [Role] {
    var roles: [String: Role] = [:]
    let kinds: [String: String] = model.description.blocks.reduce(into: [:]) { kinds, block in
      for mixer in block.mixers {
        for name in mixer.linearShapes(hiddenSize: block.hiddenSize).keys { kinds[block.prefix + name.rawValue] = type(of: mixer).kind }
      }
    }
    let others = Set(kinds.values).subtracting([AttentionDescription.kind]).sorted()
    let order = ["embedding", "attention"] + others + ["feed-forward", "routers", "head", "norms and biases", "carried"]
    func role(of linear: PlannedLinear) -> String {
      switch linear.role {
      case .embedding: "embedding"
      case .head: "head"
      case .router: "routers"
      case .layer, .sensitive: kinds[linear.name] ?? "feed-forward"
      }
    }
    let owners = Dictionary(uniqueKeysWithValues: plan.map { ($0.name, $0) })
    for linear in plan { roles[role(of: linear), default: Role(name: role(of: linear))].parameters += linear.rows * linear.columns }
    for name in tensors.names {
      guard let info = tensors.info(name) else { continue }
      // What belongs to a weight may be called `weight.absmax`, or lie deeper still.
      let parts = name.split(separator: ".")
      let modules = (1...3).map { parts.dropLast($0).joined(separator: ".") }
      let owner = name.hasSuffix(".bias") ? nil : modules.lazy.compactMap { owners[$0] }.first
      let key = owner.map(role) ?? (model.carried.contains(name) ? "carried" : "norms and biases")
      roles[key, default: Role(name: key)].tensors += 1
      roles[key]!.bytes += info.byteCount
      if owner == nil { roles[key]!.parameters += info.elementCount }
    }
    return order.compactMap { roles[$0] }
  }

  private func report(_ checkpoint: Checkpoint, _ description: ModelDescription, _ roles: [Role], _ parameters: Int) -> [JSON.Member] {
    [
      .init("model_type", .string(checkpoint.config.modelType)), .init("blocks", .integer(description.blocks.count)),
      .init("hidden_size", .integer(description.hiddenSize)), .init("vocabulary_size", .integer(description.vocabularySize)),
      .init("tied", .bool(description.isTied)), .init("parameters", .integer(parameters)),
      .init("bytes", .integer(checkpoint.byteCount)),
      .init("bits_per_parameter", .double(Double(checkpoint.byteCount) * 8 / Double(max(1, parameters)))),
      .init(
        "roles",
        .array(
          roles.map {
            .object([
              .init("role", .string($0.name)), .init("tensors", .integer($0.tensors)), .init("parameters", .integer($0.parameters)),
              .init("bytes", .integer($0.bytes)),
            ])
          })),
    ]
  }
}

extension ModelDescription {
  fileprivate var headText: String { !hasLogits ? "no head" : isTied ? "head tied to the embedding" : "head separate" }
}
