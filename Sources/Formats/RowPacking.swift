import Foundation
import Tensors

/// A matrix of codes several rows of which share their words: row r lies in row r mod `height` of the packed matrix, in slot r / `height`.
///
/// HQQ and quanto pack so; they differ in which end of a word slots begin at.
struct RowPacking: Sendable {
  let bits: Int
  /// Rows that share a word.
  let slots: Int
  let bytesPerWord: Int
  /// Whether the first slot has the highest of the bits that are used.
  let startsHigh: Bool
  /// Of the packed matrix.
  let height: Int
  let columns: Int

  /// - Parameter rows: of codes; the last slots of the last words may be empty.
  init(bits: Int, slots: Int, bytesPerWord: Int = 1, startsHigh: Bool, rows: Int, columns: Int) {
    self.bits = bits
    self.slots = slots
    self.bytesPerWord = bytesPerWord
    self.startsHigh = startsHigh
    self.columns = columns
    height = (rows + slots - 1) / slots
  }

  var byteCount: Int { height * columns * bytesPerWord }

  /// The codes that lie at places of the matrix of codes, counted row by row.
  func codes(_ places: Range<Int>, in packed: Tensor) -> [UInt8] {
    packed.bytes.withUnsafeBytes { bytes in
      places.map { place in
        let (row, column) = (place / columns, place % columns)
        let (slot, start) = (row / height, ((row % height) * columns + column) * bytesPerWord)
        var word: UInt32 = 0
        for byte in 0..<bytesPerWord { word |= UInt32(bytes[start + byte]) << UInt32(8 * byte) }
        let shift = bits * (startsHigh ? slots - 1 - slot : slot)
        return UInt8(truncatingIfNeeded: word >> UInt32(shift)) & UInt8(truncatingIfNeeded: 1 << bits - 1)
      }
    }
  }
}
