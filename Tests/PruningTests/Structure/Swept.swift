import CompressKit
import TestSupport

/// The model that passes make of another, in memory, and what they reported.
struct Swept {
  let model: Model
  let report: Report

  private actor Parts: PartSink {
    var all: [any ModelPart] = []
    func append(_ part: any ModelPart) { all.append(part) }
  }

  init(_ passes: [any Pass], on original: Model, sequences: [[Int32]] = TinyModel.sequences(8, length: 32), seed: UInt64 = 0) async throws {
    let sink = Parts()
    report = try await Pipeline(passes).run(
      on: original, options: SweepOptions(calibration: sequences, seed: seed, strict: true), into: sink)
    let parts = Dictionary(uniqueKeysWithValues: await sink.all.map { ($0.place, $0) })
    var description = try Pipeline(passes).reshapings(of: Pipeline(passes).prepared(original).description).last!
    description.blocks = await sink.all.decoders.map(\.description)
    model = Model(description: description) { parts[$0]! }
  }

  /// A figure of the report.
  func metric(_ name: String, of layer: String) -> Double? { report.layers.first { $0.layer == layer }?.metrics[name] }
}

/// The largest difference between the logits of two models over the largest logit.
func drift(_ a: Model, _ b: Model) throws -> Float {
  let tokens = TinyModel.sequences(1, length: 48)[0]
  let (x, y) = (try a.logits(of: tokens), try b.logits(of: tokens))
  return zip(x.elements, y.elements).reduce(0) { max($0, abs($1.0 - $1.1)) } / x.elements.reduce(0) { max($0, abs($1)) }
}

extension EditableCheckpoint {
  /// Changes every element of a matrix or vector.
  mutating func edit(_ name: String, _ change: (_ row: Int, _ column: Int, _ value: Float) -> Float) {
    guard let tensor = self[name] else { preconditionFailure("no tensor \(name)") }
    let width = tensor.shape.count == 2 ? tensor.shape[1] : 1
    let values = tensor.floats().enumerated().map { change($0.offset / width, $0.offset % width, $0.element) }
    self[name] = Tensor(values, shape: tensor.shape, dtype: tensor.dtype)
  }
}

/// The oracle of everything that solves: Gaussian elimination with pivots, in double.
func solved(_ matrix: [[Double]], _ right: [[Double]]) -> [[Double]] {
  // Rows x of the answer satisfy x · matrix = the row of `right`; the matrix is symmetric.
  let size = matrix.count
  var (a, b) = (matrix, right)
  for pivot in 0..<size {
    let best = (pivot..<size).max { abs(a[$0][pivot]) < abs(a[$1][pivot]) }!
    a.swapAt(pivot, best)
    for row in b.indices { b[row].swapAt(pivot, best) }
    for below in pivot + 1..<max(size, pivot + 1) {
      let factor = a[below][pivot] / a[pivot][pivot]
      for column in pivot..<size { a[below][column] -= factor * a[pivot][column] }
      for row in b.indices { b[row][below] -= factor * b[row][pivot] }
    }
  }
  return b.map { side in
    var x = [Double](repeating: 0, count: size)
    for index in (0..<size).reversed() {
      var sum = side[index]
      for later in index + 1..<max(size, index + 1) { sum -= a[index][later] * x[later] }
      x[index] = sum / a[index][index]
    }
    return x
  }
}
