package import Models
package import Tensors

/// A quantized weight whose codes, scales and zero points move: ŵ = s · (Q(u) − z) with a latent number u for every code.
///
/// Q rounds u to the grid; its gradient is passed straight through where u lies on the grid (Bengio et al. 2013; Chen et al. 2024,
/// "EfficientQAT"). Latents are counted in steps of the grid and do not depend on the scales, so that a scale moves its group and changes no
/// code.
package struct LatentWeight: Sendable {
  package let scheme: QuantizationScheme
  package let rows: Int
  package let columns: Int
  /// u, row by row.
  package var latents: [Float]
  /// s, as [`scheme.scaleShape`]; not yet rounded to what is stored.
  package var scales: [Float]
  /// z, or where zero points are real the bias that is added; empty where there are none.
  package var zeros: [Float]
  private let globalScale: Float?

  /// Starts at the codes of a quantized weight: every latent lies where the original is, but no further than `reach` steps from its code, so
  /// that codes that were hard to choose move first.
  ///
  /// - Parameters:
  ///   - original: [rows × columns]; `nil` for latents on their codes.
  ///   - reach: below half a step.
  /// - Returns: `nil` where groups are not runs of columns.
  package init?(_ quantized: QuantizedMatrix, original: Matrix?, reach: Float) {
    guard quantized.columnGroups == nil else { return nil }
    scheme = quantized.scheme
    (rows, columns) = (quantized.rows, quantized.columns)
    globalScale = quantized.globalScale
    scales = quantized.scales.elements.map { [globalScale] in $0 / (globalScale ?? 1) }
    zeros = quantized.zeroPoints?.elements ?? []
    latents = []
    latents = points(of: quantized)
    guard let original else { return }
    approach(original, reach)
  }

  /// The grid's point of every code.
  private func points(of quantized: QuantizedMatrix) -> [Float] {
    guard scheme.grid == .float else { return quantized.codes.map { Float($0) } }
    let values = scheme.miniFloat.values
    return quantized.codes.map { values[Int($0)] }
  }

  private mutating func approach(_ original: Matrix, _ reach: Float) {
    let (columns, groups, scheme) = (columns, Groups(self), scheme)
    latents.withUnsafeMutableBufferPointer { latents in
      nonisolated(unsafe) let latents = latents
      Parallel.forEach(rows) { row in
        for column in 0..<columns {
          let group = groups.of(row, column)
          let (scale, place) = (groups.scales[group], row * columns + column)
          guard scale != 0 else { continue }
          let wanted = (original.elements[place] - groups.biases[group]) / scale + groups.zeros[group]
          // On a float grid steps grow with the numbers.
          let step = scheme.grid == .float ? Self.step(of: scheme.miniFloat, at: latents[place]) : 1
          latents[place] += max(-reach * step, min(wanted - latents[place], reach * step))
        }
      }
    }
  }

  /// Per group, what weights are made with: stored scales, zero points on the grid, biases.
  private struct Groups: Sendable {
    let scheme: QuantizationScheme
    let scales: [Float]
    let zeros: [Float]
    let biases: [Float]
    let height: Int
    let size: Int
    let perRow: Int

    init(_ weight: LatentWeight) {
      scheme = weight.scheme
      scales = weight.storedScales
      let none = [Float](repeating: 0, count: scales.count)
      switch (scheme.grid, scheme.zeroPoint) {
      case (.float, _): (zeros, biases) = (none, none)
      case (.integer, .none): (zeros, biases) = (none.map { [scheme] _ in scheme.middle }, none)
      case (.integer, .integer): (zeros, biases) = (weight.storedZeros, none)
      case (.integer, .real): (zeros, biases) = (none, weight.storedZeros)
      }
      height = max(1, scheme.groupHeight(rows: weight.rows))
      size = max(1, scheme.groupSize(columns: weight.columns))
      perRow = scheme.scaleShape(rows: weight.rows, columns: weight.columns).columns
    }

    func of(_ row: Int, _ column: Int) -> Int { row / height * perRow + column / size }
  }

  /// Distance from a number of a float grid to its neighbours, about.
  private static func step(of float: MiniFloat, at point: Float) -> Float {
    let exponent = max(point != 0 ? Int(point.exponent) : float.minExponent, float.minExponent)
    return Float(sign: .plus, exponent: exponent - float.mantissaBits, significand: 1)
  }

  /// Scales as they will be stored, divided by the global one.
  private var storedScales: [Float] {
    guard let globalScale else { return scales.map { scheme.scaleType.rounded($0) } }
    return scales.map { MiniFloat.e4m3.rounded($0 * globalScale) / globalScale }
  }

  private var storedZeros: [Float] {
    switch scheme.zeroPoint {
    case .none: []
    case .integer: zeros.map { max(0, min($0.rounded(.toNearestOrEven), scheme.top)) }
    case .real: zeros.map { scheme.scaleType.rounded($0) }
    }
  }

  /// ŵ, [rows × columns].
  package func dense() -> Matrix {
    let (groups, columns) = (Groups(self), columns)
    return Matrix(rows: rows, columns: columns) { out in
      latents.withUnsafeBufferPointer { latents in
        nonisolated(unsafe) let (out, latents) = (out, latents)
        Parallel.forEach(rows) { row in
          for start in stride(from: 0, to: columns, by: groups.size) {
            let (count, group, place) = (min(groups.size, columns - start), groups.of(row, start), row * columns + start)
            let to = out.baseAddress! + place
            if scheme.grid == .float {
              to.update(from: latents.baseAddress! + place, count: count)
              // Rounded as they are, then scaled.
              scheme.miniFloat.round(UnsafeMutableBufferPointer(start: to, count: count), scale: 1)
              for index in 0..<count { to[index] *= groups.scales[group] }
            } else {
              Kernel.dequantize(
                latents: latents.baseAddress! + place, scale: groups.scales[group], zero: groups.zeros[group], top: scheme.top, into: to,
                count: count)
              if scheme.zeroPoint == .real { for index in 0..<count { to[index] += groups.biases[group] } }
            }
          }
        }
      }
    }
  }

  /// From the gradient of ŵ to those of what moves: du = s · dŵ on the grid, ds = Σ dŵ · (Q(u) − z), dz = −s · Σ dŵ, and of a bias Σ dŵ.
  package func pullback(_ gradient: Matrix) -> (latents: [Float], scales: [Float], zeros: [Float]) {
    let (groups, columns) = (Groups(self), columns)
    let perRow = (columns + groups.size - 1) / groups.size
    var latentGradient = gradient.elements
    // Every row has sums of its own, which are added in their order where groups are more than one row high.
    var scaleSums = [Float](repeating: 0, count: rows * perRow)
    var sums = scaleSums
    latentGradient.withUnsafeMutableBufferPointer { gradient in
      scaleSums.withUnsafeMutableBufferPointer { scaleSums in
        sums.withUnsafeMutableBufferPointer { sums in
          latents.withUnsafeBufferPointer { latents in
            nonisolated(unsafe) let (gradient, scaleSums, sums, latents) = (gradient, scaleSums, sums, latents)
            Parallel.forEach(rows) { row in
              for part in 0..<perRow {
                let start = part * groups.size
                let (count, group, place) = (min(groups.size, columns - start), groups.of(row, start), row * columns + start)
                let (u, du) = (latents.baseAddress! + place, gradient.baseAddress! + place)
                let found =
                  scheme.grid == .float
                  ? floatPullback(u, groups.scales[group], du, count)
                  : Kernel.latentPullback(
                    u, scale: groups.scales[group], zero: groups.zeros[group], top: scheme.top, gradient: du, count: count)
                scaleSums[row * perRow + part] = found.scale
                sums[row * perRow + part] = found.sum
              }
            }
          }
        }
      }
    }
    var scaleGradient = [Float](repeating: 0, count: scales.count)
    var zeroGradient = [Float](repeating: 0, count: zeros.count)
    for row in 0..<rows {
      for part in 0..<perRow {
        let group = groups.of(row, part * groups.size)
        scaleGradient[group] += scaleSums[row * perRow + part]
        switch scheme.zeroPoint {
        case .none: break
        case .integer: zeroGradient[group] -= groups.scales[group] * sums[row * perRow + part]
        case .real: zeroGradient[group] += sums[row * perRow + part]
        }
      }
    }
    return (latentGradient, scaleGradient, zeroGradient)
  }

  private func floatPullback(
    _ u: UnsafePointer<Float>, _ scale: Float, _ gradient: UnsafeMutablePointer<Float>, _ count: Int
  ) -> (scale: Float, sum: Float) {
    let float = scheme.miniFloat
    var rounded = [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
      _ = buffer.initialize(from: UnsafeBufferPointer(start: u, count: count))
      initialized = count
    }
    rounded.withUnsafeMutableBufferPointer { float.round($0, scale: 1) }
    // What rounds to the largest number of the grid lies on it.
    let largest = float.largest + Self.step(of: float, at: float.largest) / 2
    var (scaleSum, sum) = (Float(0), Float(0))
    for index in 0..<count {
      scaleSum += gradient[index] * rounded[index]
      sum += gradient[index]
      gradient[index] = abs(u[index]) <= largest ? scale * gradient[index] : 0
    }
    return (scaleSum, sum)
  }

  /// The weight as it is stored.
  package func quantized() -> QuantizedMatrix {
    let codes: [UInt8] =
      scheme.grid == .float
      ? scheme.miniFloat.encode(latents) : latents.map { UInt8(max(0, min($0.rounded(.toNearestOrEven), scheme.top))) }
    let shape = scheme.scaleShape(rows: rows, columns: columns)
    let scales = storedScales.map { $0 * (globalScale ?? 1) }
    return QuantizedMatrix(
      scheme: scheme, rows: rows, columns: columns, codes: codes,
      scales: Matrix(rows: shape.rows, columns: shape.columns, elements: scales),
      zeroPoints: scheme.symmetric ? nil : Matrix(rows: shape.rows, columns: shape.columns, elements: storedZeros), globalScale: globalScale
    )
  }
}
