public import Tensors

/// A weight in a form that only its own library holds, such as codes of a codebook: it stays as it lies in the file, and its numbers are made
/// when they are asked for.
///
/// Formats that hold numbers write those; passes see them as those of any other weight.
public struct ForeignWeight: Weight {
  /// In words, such as `nf4 b64`.
  public let form: String
  public let rows: Int
  public let columns: Int
  /// All that stores it: codes, scales and whatever these are scaled by.
  public let tensors: [Tensor]
  /// Some of its rows, one after the other.
  private let numbers: @Sendable (Range<Int>) -> [Float]

  /// - Parameter numbers: gives the elements of a range of rows, [rows × columns].
  public init(form: String, rows: Int, columns: Int, tensors: [Tensor], numbers: @escaping @Sendable (Range<Int>) -> [Float]) {
    self.form = form
    self.rows = rows
    self.columns = columns
    self.tensors = tensors
    self.numbers = numbers
  }

  public var storedBits: Int { tensors.reduce(0) { $0 + $1.bytes.count * 8 } }

  public func dense() -> Matrix {
    let strip = max(1, (1 << 16) / max(1, columns))
    return Matrix(rows: rows, columns: columns) { out in
      nonisolated(unsafe) let out = out
      Parallel.forEach((rows + strip - 1) / strip) { index in
        let range = index * strip..<min((index + 1) * strip, rows)
        let values = numbers(range)
        precondition(values.count == range.count * columns, "the rows of a \(form) weight are of another length")
        values.withUnsafeBufferPointer { source in
          guard let from = source.baseAddress, let to = out.baseAddress else { return }
          (to + range.lowerBound * columns).update(from: from, count: values.count)
        }
      }
    }
  }

  /// One row of `dense()`: what an embedding looks up.
  package func dense(row: Int) -> [Float] { numbers(row..<row + 1) }
}
