import Models
import Passes
import Tensors

/// The linears of a block by what they do, for passes that make it smaller.
struct BlockParts {
  /// q, k and v.
  let attentionReaders: [LinearName]
  let attentionWriter: LinearName
  /// gate and up.
  let feedForwardReaders: [LinearName]
  let feedForwardWriter: LinearName

  /// - Throws: `InvalidOption` for blocks of another shape, and for weights that are compressed already.
  init(_ block: Block) throws(InvalidOption) {
    let groups = block.inputGroups
    guard groups.count == 4, groups[0].linears.count == 3, groups[1].linears.count == 1, groups[3].linears.count == 1 else {
      throw InvalidOption("passes", "\(block.name) is not a block of q, k, v, o and one feed-forward network; it cannot be made narrower")
    }
    attentionReaders = groups[0].linears
    attentionWriter = groups[1].linears[0]
    feedForwardReaders = groups[2].linears
    feedForwardWriter = groups[3].linears[0]
    try block.requireDense()
  }
}

extension ModelPart {
  /// - Throws: `InvalidOption` for the first weight that is stored compressed: its codes cannot be cut.
  func requireDense() throws(InvalidOption) {
    for (name, linear) in linears.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
      guard linear.weight is StoredWeight || linear.weight is Matrix else {
        throw InvalidOption("passes", "\(fullName(of: name)) is stored as \(type(of: linear.weight)); prune before anything is compressed")
      }
    }
  }

  mutating func keep(rows: [Int], of name: LinearName) {
    self[name].weight = self[name].weight.dense().selecting(rows: rows)
    if let bias = self[name].bias { self[name].bias = rows.map { bias[$0] } }
  }

  mutating func keep(columns: [Int], of name: LinearName) {
    self[name].weight = self[name].weight.dense().selecting(columns: columns)
  }
}

extension Block {
  /// Leaves queries, keys and values of some heads; what reads them has been cut already.
  mutating func keepReaders(queries: [Int], keyValues: [Int], _ parts: BlockParts) {
    guard let size = description.heads?.size else { return }
    func channels(_ heads: [Int]) -> [Int] { heads.flatMap { $0 * size..<($0 + 1) * size } }
    keep(rows: channels(queries), of: parts.attentionReaders[0])
    for name in parts.attentionReaders.dropFirst() where keyValues.count * size < self[name].weight.rows {
      keep(rows: channels(keyValues), of: name)
    }
    description.heads?.queries = queries.count
    description.heads?.keyValues = keyValues.count
    cache = cache?.keeping(heads: keyValues)
  }
}

extension Matrix {
  func selecting(rows indices: [Int]) -> Matrix {
    Matrix(
      rows: indices.count, columns: columns, elements: indices.flatMap { elements[$0 * columns..<($0 + 1) * columns] })
  }

  func selecting(columns indices: [Int]) -> Matrix {
    Matrix(rows: rows, columns: indices.count) { out in
      for row in 0..<rows {
        for (place, column) in indices.enumerated() { out[row * indices.count + place] = elements[row * columns + column] }
      }
    }
  }
}
