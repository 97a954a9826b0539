import CheckpointIO
import Foundation
import StrictJSON
import Tensors
import TestSupport
import Testing

/// A file in parts, as gguf 0.19.0 writes one with `split_max_tensors=4` (`tools/golden/gguf_files.py`).
struct GGUFSplitTests {
  private static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Fixtures/split")
  private static func name(_ number: Int) -> String { "tiny-0000\(number)-of-00003.gguf" }

  private func withCopy(_ body: (URL) throws -> Void) throws {
    try Places.withTemporaryDirectory { directory in
      let copy = directory.appending(path: "split")
      try FileManager.default.copyItem(at: Self.folder, to: copy)
      try body(copy)
    }
  }

  @Test(arguments: [name(1), name(2), name(3), ""])
  func anyPartOpensAll(_ name: String) throws {
    let checkpoint = try Checkpoint(name.isEmpty ? Self.folder : Self.folder.appending(path: name))
    #expect(checkpoint.config.modelType == "llama" && checkpoint.tensors.names.count == 12)
    #expect(checkpoint.config.json["num_hidden_layers"]?.integer == 1 && checkpoint.config.json["vocab_size"]?.integer == 12)
    let embedding = try checkpoint.tensors.tensor("model.embed_tokens.weight")
    #expect(embedding.shape == [12, 8] && embedding.floats() == (0..<96).map { Float($0) / 64 })
    let down = try checkpoint.tensors.tensor("model.layers.0.mlp.down_proj.weight")
    #expect(down.shape == [8, 16] && down.floats() == (0..<128).map { Float($0) / 64 })
    // A key projection of one head of four rows: 0, 2, 1, 3 in llama.cpp's order.
    let key = try checkpoint.tensors.tensor("model.layers.0.self_attn.k_proj.weight")
    let rows: [Int] = [0, 2, 1, 3]
    let expected: [Float] = rows.flatMap { row in (0..<8).map { column in Float(8 * row + column) / 64 } }
    #expect(key.floats() == expected)
  }

  @Test func aMissingPartIsNamed() throws {
    for number in 1...3 {
      try withCopy { folder in
        try FileManager.default.removeItem(at: folder.appending(path: Self.name(number)))
        for place in [folder] + (1...3).filter({ $0 != number }).map({ folder.appending(path: Self.name($0)) }) {
          let error = #expect(throws: CheckpointError.self) { try Checkpoint(place) }
          #expect(error == .missingFile(path: folder.appending(path: Self.name(number)).path), "\(error.map { "\($0)" } ?? "")")
        }
      }
    }
  }

  @Test func partsThatDoNotBelongTogetherAreRefused() throws {
    func complaint(_ change: (URL) throws -> Void) throws -> String {
      var text = ""
      try withCopy { folder in
        try change(folder)
        do { _ = try Checkpoint(folder) } catch { text = "\(error)" }
      }
      return text
    }
    #expect(
      try complaint { folder in
        try FileManager.default.removeItem(at: folder.appending(path: Self.name(3)))
        try FileManager.default.copyItem(at: folder.appending(path: Self.name(2)), to: folder.appending(path: Self.name(3)))
      }.contains("part 3 of 3: split.no is 1"))
    #expect(
      try complaint { folder in
        for number in 2...3 { try FileManager.default.removeItem(at: folder.appending(path: Self.name(number))) }
        try FileManager.default.moveItem(at: folder.appending(path: Self.name(1)), to: folder.appending(path: "model.gguf"))
      }.contains("must be named NAME-00001-of-00003.gguf"))
    // The same tensors once more under another part's number.
    #expect(try complaint { folder in try rewrite(folder, 3, tensorsOf: 2) }.contains("is in tiny-00002-of-00003.gguf, too"))
    #expect(try complaint { folder in try rewrite(folder, 3, tensorsOf: nil) }.contains("split.tensors.count is 12, its 3 parts hold 8"))
  }

  /// A part with its own keys and the tensors of another, or none.
  private func rewrite(_ folder: URL, _ number: Int, tensorsOf other: Int?) throws {
    func read(_ number: Int) throws -> (header: GGUFHeader, data: Data) {
      let data = try Data(contentsOf: folder.appending(path: Self.name(number)))
      let header = try data.withUnsafeBytes { try GGUFHeader(parsing: $0, path: "part") }
      return (header, data[header.dataStart...])
    }
    let (own, source) = (try read(number), try other.map { try read($0) })
    let header = GGUFHeader(layingOut: source?.header.entries ?? [], metadata: own.header.metadata)
    try (Data(header.serialized()) + (source?.data ?? Data())).write(to: folder.appending(path: Self.name(number)))
  }
}
