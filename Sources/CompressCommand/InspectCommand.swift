import ArgumentParser
import CompressKit
import Foundation

struct InspectCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Show what a checkpoint holds: architecture, tensors, bits per weight, size by role.")

  @Argument(help: ArgumentHelp("The model directory.", valueName: "model"), completion: .directory)
  var model: String

  @Flag(name: .long, help: "List every tensor.")
  var tensors = false

  @Flag(name: .long, help: "Print one JSON object.")
  var json = false

  private struct Role {
    var name: String
    var tensors = 0
    var bytes = 0
    var parameters = 0
  }

  func run() throws {
    let checkpoint = try Checkpoint(URL(userPath: model))
    let opened = try Model(checkpoint)
    let plan = try Pipeline([]).plan(for: opened)
    let roles = roles(checkpoint, opened, plan)
    let description = opened.description
    let parameters = roles.reduce(0) { $0 + $1.parameters }
    if json { return try printResult(report(checkpoint, description, roles, parameters).text(indent: 2)) }
    let (attention, feedForward) = (description.blocks[0].attention, description.blocks[description.blocks.count - 1].feedForward)
    let experts = feedForward.mixture.map { ", \($0.experts) experts of which \($0.expertsPerToken) see a token" } ?? ""
    var lines = [
      "architecture     \(checkpoint.config.modelType), \(description.blocks.count) blocks",
      "hidden size      \(description.hiddenSize), feed-forward \(feedForward.size)\(experts)",
      "attention        \(attention.heads) heads over \(attention.keyValueHeads) key-value heads of \(attention.headSize)",
      "vocabulary       \(description.vocabularySize), \(description.headText)",
      "parameters       \(parameters)",
      "size             \(ByteCount.text(checkpoint.byteCount)), \((Double(checkpoint.byteCount) * 8 / Double(max(1, parameters))).rounded(toPlaces: 3)) bits per parameter",
      "",
    ]
    var table = TextTable("role", "tensors", "parameters", "size", "bits/weight")
    for role in roles where role.tensors > 0 {
      table.rows.append([
        role.name, "\(role.tensors)", "\(role.parameters)", ByteCount.text(role.bytes),
        role.parameters > 0 ? (Double(role.bytes) * 8 / Double(role.parameters)).rounded(toPlaces: 3) : "",
      ])
    }
    lines.append(table.text)
    if tensors {
      var list = TextTable("tensor", "type", "shape", "bytes")
      for name in checkpoint.tensors.names.sorted() {
        let info = checkpoint.tensors.info(name)!
        list.rows.append([name, info.typeName, info.shape.map(String.init).joined(separator: "×"), "\(info.byteCount)"])
      }
      lines += ["", list.text]
    }
    for remark in opened.remarks { lines.append("note: \(remark)") }
    try printResult(lines.joined(separator: "\n"))
  }

  /// Every tensor belongs to the linear whose name it begins with, to a norm, or to nobody.
  private func roles(_ checkpoint: Checkpoint, _ model: Model, _ plan: [PlannedLinear]) -> [Role] {
    var roles: [String: Role] = [:]
    let order = ["embedding", "attention", "feed-forward", "routers", "head", "norms and biases", "carried"]
    let attention = Set(
      model.description.blocks.flatMap { block in
        (block.attention.projections.linears + [block.attention.output]).map { block.prefix + $0.rawValue }
      })
    func role(of linear: PlannedLinear) -> String {
      switch linear.role {
      case .embedding: "embedding"
      case .head: "head"
      case .router: "routers"
      case .layer: attention.contains(linear.name) ? "attention" : "feed-forward"
      }
    }
    let owners = Dictionary(uniqueKeysWithValues: plan.map { ($0.name, $0) })
    for linear in plan { roles[role(of: linear), default: Role(name: role(of: linear))].parameters += linear.rows * linear.columns }
    for name in checkpoint.tensors.names {
      let info = checkpoint.tensors.info(name)!
      let module = name.split(separator: ".").dropLast().joined(separator: ".")
      let owner = name.hasSuffix(".bias") ? nil : owners[module]
      let key = owner.map(role) ?? (model.carried.contains(name) ? "carried" : "norms and biases")
      roles[key, default: Role(name: key)].tensors += 1
      roles[key]!.bytes += info.byteCount
      if owner == nil { roles[key]!.parameters += info.elementCount }
    }
    return order.compactMap { roles[$0] }
  }

  private func report(_ checkpoint: Checkpoint, _ description: ModelDescription, _ roles: [Role], _ parameters: Int) -> JSON {
    .object([
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
    ])
  }
}

extension ModelDescription {
  fileprivate var headText: String { !hasLogits ? "no head" : isTied ? "head tied to the embedding" : "head separate" }
}
