internal import Foundation

/// A matrix as its shape and its numbers' bytes, exactly.
extension Matrix: Codable {
  private enum CodingKeys: String, CodingKey { case rows, columns, elements }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let (rows, columns) = (try container.decode(Int.self, forKey: .rows), try container.decode(Int.self, forKey: .columns))
    let bytes = try container.decode(Data.self, forKey: .elements)
    guard rows >= 0, columns >= 0, bytes.count == 4 * rows * columns else {
      throw DecodingError.dataCorruptedError(
        forKey: .elements, in: container, debugDescription: "\(bytes.count) bytes do not fill \(rows)×\(columns)")
    }
    self.init(rows: rows, columns: columns, elements: Tensor(dtype: .float32, shape: [rows, columns], bytes: bytes).floats())
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(rows, forKey: .rows)
    try container.encode(columns, forKey: .columns)
    try container.encode(elements.withUnsafeBytes { Data($0) }, forKey: .elements)
  }
}
