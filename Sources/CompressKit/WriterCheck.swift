import CheckpointIO
import Formats
import Foundation
import Models
import Passes
import Tensors

/// Asks a format whether it has room for what a plan says, by giving its writer small weights of the same kinds: nothing is read, and what
/// the writer would refuse after all the work is refused before it.
struct WriterCheck {
  let format: any CheckpointFormat
  let linears: [String: PlannedLinear]
  /// Whether caches will have fixed scales.
  let hasCacheScales: Bool

  init(_ format: any CheckpointFormat, _ linears: [PlannedLinear], hasCacheScales: Bool) {
    self.format = format
    self.linears = Dictionary(linears.map { ($0.name, $0) }) { first, _ in first }
    self.hasCacheScales = hasCacheScales
  }

  /// - Throws: what the format's writer throws.
  func run(on description: ModelDescription) throws {
    var asked = Set<String>()
    for (place, block) in description.blocks.enumerated() {
      let names = block.inputGroups.flatMap(\.linears)
      let planned = names.compactMap { linears[block.prefix + $0.rawValue] }
      guard planned.count == names.count else { continue }
      for choice in 0..<max(1, planned.map(\.candidates.count).max() ?? 1) {
        // Blocks that are alike in all that a writer sees are asked about once.
        guard asked.insert("\(choice) " + planned.map(Self.kind).joined(separator: "|")).inserted else { continue }
        var own: [LinearName: Linear] = [:]
        for (name, linear) in zip(names, planned) { own[name] = Self.linear(linear, choice, isTransposed: block.storesTransposed) }
        var stand = Block(index: place, description: block, linears: own)
        if hasCacheScales {
          let scale = CacheScale(grid: .float, scale: 1)
          stand.cache = CacheQuantization(key: scale, value: scale)
        }
        _ = try format.encode(stand)
      }
    }
    if let table = linears[description.embedding] {
      _ = try format.encode(Embedding(tableName: LinearName(rawValue: table.name), table: Self.linear(table, 0)))
    }
    if let head = description.head, let matrix = linears[head] {
      _ = try format.encode(Head(linears: [LinearName(rawValue: head): Self.linear(matrix, 0)]))
    }
  }

  private static func kind(_ linear: PlannedLinear) -> String {
    let kinds: [String] = [
      linear.weights.map { "\($0) \($0.scaleType)" } ?? "", linear.factorNumbers.map { "\($0)" } ?? "", "\(linear.candidates)",
      linear.input.map { "\($0)" } ?? "", linear.blocks.map { "\($0)" } ?? "", "\(linear.keepsForm)", "\(linear.rank != nil)",
      "\(linear.hasBranch)", "\(linear.storageType)",
    ]
    return "\(linear.rows)×\(linear.columns) " + kinds.joined(separator: ",")
  }

  /// Formats care for what divides the rows, never for how many there are.
  private static func height(_ rows: Int) -> Int { rows <= 64 ? rows : 32 + rows % 32 }

  private static func linear(_ linear: PlannedLinear, _ choice: Int, isTransposed: Bool = false) -> Linear {
    let (rows, columns) = (height(linear.rows), linear.columns)
    func numbers(_ scheme: QuantizationScheme?, rows: Int, columns: Int) -> any Weight {
      guard let scheme, scheme.fits(columns: columns) else { return Matrix(rows: rows, columns: columns) }
      return QuantizedMatrix(standInFor: scheme, rows: rows, columns: columns)
    }
    let scheme = linear.candidates.isEmpty ? linear.weights : linear.candidates[min(choice, linear.candidates.count - 1)]
    var weight = numbers(scheme, rows: rows, columns: columns)
    if let blocks = linear.blocks, !linear.keepsForm, columns % blocks.blockLength == 0 {
      weight = BlockQuantizedMatrix(
        blocks,
        blocks: Tensor(
          dtype: .uint8, shape: [rows, blocks.byteCount(columns: columns)], bytes: Data(count: rows * blocks.byteCount(columns: columns))))
    }
    if let rank = linear.rank {
      let factors = linear.factorNumbers
      weight = FactoredWeight(
        input: numbers(factors, rows: rank, columns: columns), output: numbers(factors, rows: rows, columns: rank))
    }
    if linear.hasBranch {
      weight = SumOfWeights([
        weight, LowRankMatrix(left: Matrix(rows: rows, columns: 1), right: Matrix(rows: 1, columns: columns)),
      ])
    }
    var input = linear.input
    if input?.needsCalibration == true { input?.scale = 1 }
    return Linear(
      weight: weight, storageType: linear.storageType, inputQuantization: scheme == nil ? nil : input, storesTransposed: isTransposed)
  }
}

extension QuantizedMatrix {
  /// A weight of this kind with scales and zero points that use all their bits, as some of any real weight do: another spelling that happens
  /// to hold round numbers has to show that it holds these.
  fileprivate init(standInFor scheme: QuantizationScheme, rows: Int, columns: Int) {
    let shape = scheme.scaleShape(rows: rows, columns: columns)
    let scale: Float =
      switch scheme.scaleType {
      case .float8E8M0: 1
      case .float8E4M3: 1.875
      case .bfloat16: 2 - 0x1p-7
      case .float16: 2 - 0x1p-10
      default: 2 - 0x1p-23
      }
    let zero: Float? =
      switch scheme.zeroPoint {
      case .none: nil
      case .integer: scheme.bits == 2 ? 3 : scheme.middle + 3
      case .real: -scale
      }
    self.init(
      scheme: scheme, rows: rows, columns: columns, codes: [UInt8](repeating: 0, count: rows * columns),
      scales: Matrix(rows: shape.rows, columns: shape.columns, repeating: scale),
      zeroPoints: zero.map { Matrix(rows: shape.rows, columns: shape.columns, repeating: $0) },
      globalScale: scheme.hasGlobalScale ? 3 : nil)
  }
}
