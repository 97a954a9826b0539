import CheckpointIO
import Foundation
import Tensors
import Testing

/// Files that torch and numpy wrote, and what is in them; made by `tools/golden/containers.py`.
enum ForeignFiles {
  struct Expected: Decodable {
    let name, dtype: String
    let shape: [Int]
    let bytes: String

    init(from decoder: any Decoder) throws {
      var list = try decoder.unkeyedContainer()
      name = try list.decode(String.self)
      dtype = try list.decode(String.self)
      shape = try list.decode([Int].self)
      bytes = try list.decode(String.self)
    }
  }

  static func url(_ name: String) throws -> URL {
    try #require(Bundle.module.url(forResource: "Fixtures", withExtension: nil)).appending(path: name)
  }

  static func expected(_ file: String) throws -> [Expected] {
    let all = try JSONDecoder().decode([String: [Expected]].self, from: try Data(contentsOf: url("containers.json")))
    return try #require(all[file])
  }

  /// Holds every tensor of a source against the list: names and their order, types, shapes, bytes.
  static func compare(_ source: any TensorSource, with file: String) throws {
    let expected = try expected(file)
    #expect(source.names == expected.map(\.name))
    for tensor in expected {
      let found = try source.tensor(tensor.name)
      #expect(found.dtype.rawValue == tensor.dtype && found.shape == tensor.shape, "\(tensor.name)")
      #expect(source.info(tensor.name) == TensorInfo(dtype: found.dtype, shape: tensor.shape))
      #expect(found.bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() == tensor.bytes, "\(tensor.name)")
    }
    #expect(source.info("absent") == nil)
    #expect(throws: CheckpointError.missingTensor(name: "absent")) { try source.tensor("absent") }
  }

  /// What a reader says of a file it refuses.
  static func complaint(_ read: () throws -> any TensorSource) -> String? {
    do {
      _ = try read()
      return nil
    } catch { return "\(error)" }
  }
}
