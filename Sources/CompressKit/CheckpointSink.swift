import CheckpointIO
import Formats
import Models
import Passes
import Tensors

/// Spells finished blocks in a format and hands them to its writer.
actor CheckpointSink: BlockSink {
  private let format: any CheckpointFormat
  private let writer: (any CheckpointWriter)?
  private(set) var modules: [StoredModule] = []
  /// Of the decoder blocks, as they came.
  private(set) var descriptions: [BlockDescription] = []
  /// Bits of all linears of decoder blocks as stored, and how many weights they are.
  private(set) var linearBits = 0
  private(set) var linearWeights = 0
  private(set) var byteCount = 0
  /// Of the blocks that have one, by their names.
  private(set) var cachePolicies: [String: CachePolicy] = [:]

  /// - Parameter writer: `nil` for a rehearsal that writes nothing.
  init(format: any CheckpointFormat, writer: (any CheckpointWriter)?) {
    self.format = format
    self.writer = writer
  }

  func append(_ block: Block) async throws {
    let tensors = try format.encode(block)
    modules += format.modules(of: block)
    if let description = block.description { descriptions.append(description) }
    if case .decoder = block.kind {
      if let policy = block.cachePolicy { cachePolicies[block.name] = policy }
      for linear in block.linears.values {
        // A dense result does not know what it will be stored as; its layer does.
        switch linear.weight {
        case let dense as Matrix: linearBits += dense.rows * dense.columns * linear.storageType.bitCount
        case let quantized as QuantizedMatrix:
          linearBits +=
            quantized.storedBits - quantized.scheme.storedBits(rows: quantized.rows, columns: quantized.columns)
            + format.storedBits(quantized.scheme, input: linear.inputQuantization, rows: quantized.rows, columns: quantized.columns)
        case let factors as FactoredWeight: linearBits += factors.storedBits(denseAs: linear.storageType)
        case let other: linearBits += other.storedBits
        }
        linearWeights += linear.weight.rows * linear.weight.columns
      }
    }
    try await append(tensors)
  }

  func append(_ tensors: [NamedTensor]) async throws {
    byteCount += tensors.reduce(0) { $0 + $1.tensor.bytes.count }
    try await writer?.append(tensors)
  }

  func complete(files: [CheckpointFile]) async throws { try await writer?.complete(files: files) }
  func abandon() async { await writer?.abandon() }
}
