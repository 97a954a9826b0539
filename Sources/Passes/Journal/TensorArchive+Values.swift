package import CheckpointIO
internal import Foundation
internal import Tensors

extension TensorArchive.Item {
  /// Words and numbers of any kind, to the last bit, as the bytes of a property list.
  package init(_ name: String, of value: some Encodable) throws {
    let encoder = PropertyListEncoder()
    encoder.outputFormat = .binary
    let data = try encoder.encode(value)
    self.init(name, TensorInfo(dtype: .uint8, shape: [data.count])) { data }
  }
}

extension TensorArchive {
  /// What was written as a value.
  ///
  /// - Throws: `CheckpointError` or `DecodingError` where it is missing or of another type.
  package func value<Value: Decodable>(_ name: String, as type: Value.Type = Value.self) throws -> Value {
    try PropertyListDecoder().decode(type, from: try tensor(name).bytes)
  }
}
