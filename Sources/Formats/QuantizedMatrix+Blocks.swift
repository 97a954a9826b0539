import Models
import Tensors

extension QuantizedMatrix {
  /// Why a weight is no sequence of ggml's blocks.
  struct Misfit: Error {
    var reason: String
  }

  /// The same numbers in one of ggml's block types, exactly.
  ///
  /// Blocks hold 32 weights of a row, so groups must be multiples of that; scales and biases become halves, and must be ones already.
  func asBlocks() -> Result<BlockQuantizedMatrix, Misfit> {
    func misfit(_ reason: String) -> Result<BlockQuantizedMatrix, Misfit> {
      .failure(Misfit(reason: "\(scheme) \(reason); the pass ggml makes block types of any weight"))
    }
    guard columnGroups == nil, groupSize % 32 == 0, columns % 32 == 0 else {
      return misfit("has groups that blocks of 32 columns do not fill")
    }
    let type: BlockType
    switch (scheme.grid, scheme.bits, scheme.zeroPoint) {
    case (.integer, 4, .none): type = .q4_0
    case (.integer, 5, .none): type = .q5_0
    case (.integer, 8, .none): type = .q8_0
    case (.integer, 4, _): type = .q4_1
    case (.integer, 5, _): type = .q5_1
    case (.float, 4, .none) where scheme == .mx(bits: 4): type = .mxfp4
    default: return misfit("has no block type")
    }
    var bytes = [UInt8]()
    bytes.reserveCapacity(rows * type.byteCount(columns: columns))
    for row in 0..<rows {
      let scaleRow = row / max(1, scheme.groupHeight(rows: rows))
      for start in stride(from: 0, to: columns, by: 32) {
        let group = start / groupSize
        let scale = scales[scaleRow, group]
        var values = [scale]
        if let zeroPoints {
          let zero = zeroPoints[scaleRow, group]
          values.append(scheme.zeroPoint == .real ? zero : -scale * zero)
        }
        if type == .mxfp4 {
          bytes.append(UInt8(truncatingIfNeeded: scale.bitPattern >> 23))
        } else {
          for value in values {
            let half = Float16(value)
            guard Float(half) == value else { return misfit("has the scale or offset \(value), which a half cannot hold") }
            bytes += [UInt8(truncatingIfNeeded: half.bitPattern), UInt8(truncatingIfNeeded: half.bitPattern >> 8)]
          }
        }
        let part = codes[row * columns + start..<row * columns + start + 32]
        let first = part.startIndex
        if type == .q8_0 {
          bytes += part.map { $0 ^ 0x80 }
          continue
        }
        if type == .q5_0 || type == .q5_1 {
          let high = (0..<32).reduce(UInt32(0)) { $0 | UInt32(part[first + $1] >> 4) << UInt32($1) }
          bytes += (0..<4).map { UInt8(truncatingIfNeeded: high >> UInt32(8 * $0)) }
        }
        bytes += (0..<16).map { part[first + $0] & 15 | part[first + $0 + 16] << 4 }
      }
    }
    return .success(
      BlockQuantizedMatrix(
        type, blocks: Tensor(dtype: .uint8, shape: [rows, type.byteCount(columns: columns)], integers: bytes)))
  }
}
