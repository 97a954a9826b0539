internal import Foundation

/// What every kernel computes, in plain Swift and double precision: the documentation of the C code, and what tests hold it to.
package enum Reference {
  package static func rmsNorm(_ x: [Float], weight: [Float], epsilon: Float) -> [Float] {
    let mean = x.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(x.count)
    let factor = 1 / (mean + Double(epsilon)).squareRoot()
    return zip(x, weight).map { Float(Double($0) * factor * Double($1)) }
  }

  package static func softmax(_ row: [Float], scale: Float) -> [Float] {
    let scaled = row.map { Double($0) * Double(scale) }
    let exponentials = scaled.map { exp($0 - scaled.max()!) }
    let sum = exponentials.reduce(0, +)
    return exponentials.map { Float($0 / sum) }
  }

  package static func logSumExp(_ row: [Float]) -> Double {
    let top = Double(row.max()!)
    return top + log(row.reduce(0) { $0 + exp(Double($1) - top) })
  }

  package static func klDivergence(_ reference: [Float], _ row: [Float]) -> Double {
    let (a, b) = (logSumExp(reference), logSumExp(row))
    return zip(reference, row).reduce(0) { $0 + exp(Double($1.0) - a) * ((Double($1.0) - a) - (Double($1.1) - b)) }
  }

  package static func layerNorm(_ x: [Float], weight: [Float], epsilon: Float) -> [Float] {
    let mean = x.reduce(0.0) { $0 + Double($1) } / Double(x.count)
    let variance = x.reduce(0.0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(x.count)
    let factor = 1 / (variance + Double(epsilon)).squareRoot()
    return zip(x, weight).map { Float((Double($0) - mean) * factor * Double($1)) }
  }

  package static func gelu(_ x: [Float]) -> [Float] { x.map { Float(0.5 * Double($0) * (1 + erf(Double($0) / 2.0.squareRoot()))) } }

  package static func siluGate(_ gate: [Float], _ up: [Float]) -> [Float] {
    zip(gate, up).map { Float(Double($0) / (1 + exp(-Double($0))) * Double($1)) }
  }

  package static func geluTanhGate(_ gate: [Float], _ up: [Float]) -> [Float] {
    zip(gate, up).map { x, u in
      let x = Double(x)
      return Float(0.5 * x * (1 + tanh((2 / Double.pi).squareRoot() * (x + 0.044715 * x * x * x))) * Double(u))
    }
  }

  package static func rotary(_ row: [Float], cosine: [Float], sine: [Float], headSize: Int) -> [Float] {
    var out = row
    let half = headSize / 2
    for head in stride(from: 0, to: row.count, by: headSize) {
      for i in 0..<half {
        let (a, b) = (Double(row[head + i]), Double(row[head + half + i]))
        out[head + i] = Float(a * Double(cosine[i]) - b * Double(sine[i]))
        out[head + half + i] = Float(b * Double(cosine[i]) + a * Double(sine[i]))
      }
    }
    return out
  }

  package static func code(_ w: Float, scale: Float, zero: Float, top: Float) -> Float {
    let middle = (top + 1) / 2
    return min(max((w / scale + (zero - middle)).rounded(.toNearestOrEven) + middle, 0), top)
  }

  package static func quantizationError(_ w: [Float], importance: [Float]?, scale: Float, zero: Float, top: Float) -> Double {
    w.indices.reduce(0) { sum, i in
      let error = Double(w[i]) - Double(scale) * Double(code(w[i], scale: scale, zero: zero, top: top) - zero)
      return sum + Double(importance?[i] ?? 1) * error * error
    }
  }

  /// Σ c·w·q and Σ c·q², with q the distance of a weight's code from the zero point.
  package static func codeMoments(
    _ w: [Float], importance: [Float]?, scale: Float, zero: Float, top: Float
  ) -> (product: Double, square: Double) {
    w.indices.reduce((0, 0)) { sums, i in
      let (c, q) = (Double(importance?[i] ?? 1), Double(code(w[i], scale: scale, zero: zero, top: top) - zero))
      return (sums.0 + c * Double(w[i]) * q, sums.1 + c * q * q)
    }
  }

  package static func squaredDistance(_ a: [Float], _ b: [Float]) -> Double {
    zip(a, b).reduce(0) { $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1)) }
  }

  /// x · H with H[i][j] = −1 to the number of ones in i & j.
  package static func walshHadamard(_ x: [Double]) -> [Double] {
    x.indices.map { j in x.indices.reduce(0) { $0 + ((($1 & j).nonzeroBitCount & 1 == 0) ? x[$1] : -x[$1]) } }
  }

  /// Bit k of code i is bit i · bits + k of the string.
  package static func packBits(_ codes: [UInt8], bits: Int) -> [UInt32] {
    var words = [UInt32](repeating: 0, count: (codes.count * bits + 31) / 32)
    for (index, code) in codes.enumerated() {
      for bit in 0..<bits where code >> UInt8(bit) & 1 == 1 {
        words[(index * bits + bit) / 32] |= 1 << UInt32((index * bits + bit) % 32)
      }
    }
    return words
  }
}
