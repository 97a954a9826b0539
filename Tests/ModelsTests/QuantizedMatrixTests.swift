import CompressKit
import TestSupport
import Testing

struct QuantizedMatrixTests {
  @Test(
    arguments: [
      QuantizationScheme.Granularity.channel, .group(1), .group(3), .group(24),
    ], [true, false])
  func denseIsTheLoop(_ granularity: QuantizationScheme.Granularity, _ symmetric: Bool) {
    let (rows, columns) = (7, 24)
    let scheme = QuantizationScheme(bits: 3, granularity: granularity, symmetric: symmetric, scaleType: .float32)
    let size = scheme.groupSize(columns: columns)
    let scales = Matrix.random(rows: rows, columns: columns / size, key: "scales")
    var random = KeyedRandomness(seed: 1, key: "codes")
    let codes = (0..<rows * columns).map { _ in UInt8.random(in: 0...7, using: &random) }
    let zeros = Matrix(rows: rows, columns: columns / size, elements: scales.elements.indices.map { Float($0 % 8) })
    let matrix = QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes, scales: scales, zeroPoints: symmetric ? nil : zeros)
    let dense = matrix.dense()
    for row in 0..<rows {
      for column in 0..<columns {
        let zero = symmetric ? 4 : zeros[row, column / size]
        #expect(dense[row, column] == scales[row, column / size] * (Float(codes[row * columns + column]) - zero))
      }
    }
    let groups = rows * columns / size
    #expect(matrix.storedBits == 3 * rows * columns + groups * (32 + (symmetric ? 0 : 3)))
  }

  @Test func storedWeightsCountTheirBytes() {
    let values = Matrix.random(rows: 4, columns: 6, key: "stored")
    let stored = StoredWeight(Tensor(values.elements, shape: [4, 6], dtype: .float32))
    #expect(stored.dense() == values)
    #expect(stored.dense(rows: 1..<3) == values.rows(1..<3))
    #expect(stored.storedBits == 24 * 32)
    #expect(values.storedBits == 24 * 16)
  }
}
