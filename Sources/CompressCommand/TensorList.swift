import CompressKit
import Foundation

/// What `inspect` says of tensors: all of them, whatever model they belong to.
struct TensorList {
  let tensors: any TensorSource
  let metadata: [JSON.Member]

  private var infos: [(name: String, info: TensorInfo)] {
    tensors.names.sorted().compactMap { name in tensors.info(name).map { (name, $0) } }
  }

  var members: [JSON.Member] {
    [
      .init("metadata", .object(metadata)),
      .init(
        "tensors",
        .array(
          infos.map { name, info in
            .object([
              .init("name", .string(name)), .init("type", .string(info.typeName)), .init("shape", .array(info.shape.map { .integer($0) })),
              .init("bytes", .integer(info.byteCount)),
            ])
          })),
    ]
  }

  var text: String {
    var list = TextTable("tensor", "type", "shape", "bytes")
    for (name, info) in infos {
      list.rows.append([name, info.typeName, info.shape.map(String.init).joined(separator: "×"), "\(info.byteCount)"])
    }
    guard !metadata.isEmpty else { return list.text }
    var table = TextTable("metadata", "")
    table.rows = metadata.map { [$0.key, Self.short($0.value)] }
    return table.text + "\n\n" + list.text
  }

  /// A value on one line; templates and the like fill pages.
  private static func short(_ value: JSON) -> String {
    let text = value.string.map { $0.replacing("\n", with: "⏎") } ?? value.text()
    return text.count <= 60 ? text : text.prefix(59) + "…"
  }
}

/// What `inspect` says of files whose model is not known.
struct UnknownModelReport {
  let collection: TensorCollection
  let reason: CheckpointError

  private var names: [String] { collection.tensors.names }
  private func sum(_ count: (TensorInfo) -> Int) -> Int { names.reduce(0) { $0 + (collection.tensors.info($1).map(count) ?? 0) } }
  private var list: TensorList { TensorList(tensors: collection.tensors, metadata: collection.metadata) }

  /// The type that was probably meant, or is the nearest relative by name.
  private var nearest: String? {
    guard case .unsupportedModel(let type, let known) = reason else { return nil }
    let family = known.filter { type.lowercased().hasPrefix($0) }.max { $0.count < $1.count }
    return family ?? NearestName.of(type, among: known)
  }

  private var note: String { "the model is not known: \(reason)" + (nearest.map { "; the nearest known type is \($0)" } ?? "") }

  var json: JSON {
    .object(
      [
        .init("container", .string(collection.container.rawValue)), .init("model_type", .null), .init("note", .string(note)),
        .init("nearest_model_type", nearest.map { .string($0) } ?? .null), .init("parameters", .integer(sum(\.elementCount))),
        .init("bytes", .integer(sum(\.byteCount))), .init("remarks", .array(collection.tensors.remarks.map { .string($0) })),
      ] + list.members)
  }

  var text: String {
    ([
      "container        \(collection.container.rawValue)", "tensors          \(names.count)", "parameters       \(sum(\.elementCount))",
      "size             \(ByteCount.text(sum(\.byteCount)))", "", list.text, "note: \(note)",
    ] + collection.tensors.remarks.map { "note: \($0)" }).joined(separator: "\n")
  }
}
