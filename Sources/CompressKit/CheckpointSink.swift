import CheckpointIO
import Formats
import Models
import Passes
import Tensors

/// Spells finished parts of a model in a format and hands them to its writer.
actor CheckpointSink: PartSink {
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

  private let dequantized: Set<String>

  /// - Parameters:
  ///   - writer: `nil` for a rehearsal that writes nothing.
  ///   - dequantized: full names of linears whose blocks or foreign codes are written as the numbers they stand for.
  init(format: any CheckpointFormat, writer: (any CheckpointWriter)?, dequantizing dequantized: Set<String> = []) {
    self.format = format
    self.writer = writer
    self.dequantized = dequantized
  }

  func append(_ finished: any ModelPart) async throws {
    var part = finished
    for (name, linear) in finished.linears where dequantized.contains(finished.fullName(of: name)) {
      guard linear.weight is BlockQuantizedMatrix || linear.weight is ForeignWeight else { continue }
      part[name].weight = linear.weight.dense()
    }
    let tensors = try format.encode(part)
    try checkFinite(tensors, of: part)
    modules += format.modules(of: part)
    if let block = part as? Block {
      descriptions.append(block.description)
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

  /// - Throws: `FormatError` for a number that the type it is stored in cannot hold.
  private func checkFinite(_ tensors: [NamedTensor], of part: any ModelPart) throws(FormatError) {
    // What is stored as it was read was looked through when it was read.
    let asRead = Set(part.linears.filter { $0.value.weight is StoredWeight }.keys)
    let stacks = ((part as? Block)?.denseStacks() ?? []).filter { asRead.isSuperset(of: $0.linears.joined()) }
    let read = Set(asRead.map { part.fullName(of: $0) + ".weight" } + stacks.map { part.prefix + $0.name })
    for named in tensors where [.float16, .bfloat16, .float32].contains(named.info.dtype) && !read.contains(named.name) {
      var isFinite = true
      named.forEachPart { isFinite = isFinite && !$0.holdsNonfinite }
      guard !isFinite else { continue }
      let reason =
        named.info.dtype == .float16
        ? "a number of it is beyond 65504, the largest that F16 can hold" : "a number of it is not finite as \(named.info.dtype.rawValue)"
      throw .cannotStore(module: named.name, format: type(of: format).name, reason: reason)
    }
  }

  func append(_ tensors: [NamedTensor]) async throws {
    byteCount += tensors.reduce(0) { $0 + $1.info.byteCount }
    try await writer?.append(tensors)
  }

  func complete(files: [CheckpointFile]) async throws { try await writer?.complete(files: files) }
  func abandon() async { await writer?.abandon() }
}
