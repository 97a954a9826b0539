internal import CKernels

/// The C kernels under Swift names. What each computes is defined by `Reference`; shapes are checked here, once.
package enum Kernel {
  /// "avx512", "avx2" or "baseline".
  package static var instructionSet: String { String(cString: compress_instruction_set()) }

  package static func hasNonfinite(_ values: UnsafeBufferPointer<Float>) -> Bool {
    values.baseAddress.map { compress_has_nonfinite($0, values.count) != 0 } ?? false
  }

  /// row = softmax(scale · row), in place.
  package static func softmax(_ row: UnsafeMutablePointer<Float>, count: Int, scale: Float) { compress_softmax(row, scale, count) }

  /// Σ (a − b)², or Σ a² without b.
  package static func squaredDistance(_ a: UnsafePointer<Float>, _ b: UnsafePointer<Float>?, count: Int) -> Double {
    compress_squared_distance(a, b, count)
  }

  package static func logSumExp(_ row: UnsafePointer<Float>, count: Int) -> Double { compress_log_sum_exp(row, count) }

  /// KL(softmax(reference) ‖ softmax(row)), given both rows' log-sum-exp.
  package static func klDivergence(
    _ reference: UnsafePointer<Float>, logSumExp referenceSum: Double, _ row: UnsafePointer<Float>, logSumExp sum: Double, count: Int
  ) -> Double { compress_kl_divergence(reference, referenceSum, row, sum, count) }

  package static func rotary(
    _ row: UnsafeMutablePointer<Float>, cosine: UnsafePointer<Float>, sine: UnsafePointer<Float>, heads: Int, headSize: Int
  ) { compress_rotary(row, cosine, sine, heads, headSize) }

}

extension Matrix {
  /// Every row divided by its root mean square and multiplied by `weight` (Zhang and Sennrich 2019, equation 4).
  package func rmsNormalized(weight: [Float], epsilon: Float) -> Matrix {
    precondition(weight.count == columns, "the norm's weight has \(weight.count) elements, the rows \(columns)")
    return Matrix(rows: rows, columns: columns) { out in
      withUnsafeElements { x in
        for row in 0..<rows { compress_rms_norm(x + row * columns, weight, epsilon, out.baseAddress! + row * columns, columns) }
      }
    }
  }

  /// Every row less its mean, divided by its standard deviation and multiplied by `weight` (Ba et al. 2016, equation 4).
  package func layerNormalized(weight: [Float], epsilon: Float) -> Matrix {
    precondition(weight.count == columns, "the norm's weight has \(weight.count) elements, the rows \(columns)")
    return Matrix(rows: rows, columns: columns) { out in
      withUnsafeElements { x in
        for row in 0..<rows { compress_layer_norm(x + row * columns, weight, epsilon, out.baseAddress! + row * columns, columns) }
      }
    }
  }

  /// self += other.
  package mutating func add(_ other: Matrix) {
    precondition(rows == other.rows && columns == other.columns, "shapes differ")
    let count = elements.count
    withUnsafeMutableElements { a in other.withUnsafeElements { compress_add(a, $0, count) } }
  }

  /// Every row += row.
  package mutating func add(row: [Float]) {
    precondition(row.count == columns, "shapes differ")
    let (rows, columns) = (rows, columns)
    withUnsafeMutableElements { a in for r in 0..<rows { compress_add(a + r * columns, row, columns) } }
  }

  /// self = silu(self) · up.
  package mutating func siluGate(_ up: Matrix) {
    precondition(elements.count == up.elements.count, "shapes differ")
    let count = elements.count
    withUnsafeMutableElements { gate in up.withUnsafeElements { compress_silu_gate(gate, $0, count) } }
  }

  /// self = gelu(self) · up, with the tanh form of GELU.
  package mutating func geluTanhGate(_ up: Matrix) {
    precondition(elements.count == up.elements.count, "shapes differ")
    let count = elements.count
    withUnsafeMutableElements { gate in up.withUnsafeElements { compress_gelu_tanh_gate(gate, $0, count) } }
  }
}

extension Matrix {
  /// self = gelu(self), with the error function.
  package mutating func gelu() {
    let count = elements.count
    withUnsafeMutableElements { compress_gelu($0, count) }
  }

  /// self = max(self, 0).
  package mutating func relu() {
    let count = elements.count
    withUnsafeMutableElements { compress_relu($0, count) }
  }

  /// self = self · other, element by element.
  package mutating func multiply(by other: Matrix) {
    precondition(elements.count == other.elements.count, "shapes differ")
    let count = elements.count
    withUnsafeMutableElements { a in other.withUnsafeElements { compress_multiply(a, $0, count) } }
  }
}

// MARK: - Quantization

extension Kernel {
  package static func range(_ w: UnsafeBufferPointer<Float>) -> ClosedRange<Float> {
    guard let base = w.baseAddress else { return 0...0 }
    var (low, high) = (Float(0), Float(0))
    compress_range(base, w.count, &low, &high)
    // NaN is in no range and must not be taken for one; whoever divides by this width gets what is not finite either.
    guard low <= high else { return -.infinity ... .infinity }
    return low...high
  }

  /// The codes of a group of weights, clipped to 0 … top; ties to even.
  package static func quantize(
    _ w: UnsafeBufferPointer<Float>, scale: Float, zero: Float, top: Float, into codes: UnsafeMutablePointer<UInt8>
  ) { compress_quantize(w.baseAddress!, scale, zero, top, codes, w.count) }

  /// scale · (code − zero).
  package static func dequantize(
    _ codes: UnsafeBufferPointer<UInt8>, scale: Float, zero: Float, into out: UnsafeMutablePointer<Float>
  ) { compress_dequantize(codes.baseAddress!, scale, zero, out, codes.count) }

  /// scale · code + bias.
  package static func dequantize(
    _ codes: UnsafeBufferPointer<UInt8>, scale: Float, bias: Float, into out: UnsafeMutablePointer<Float>
  ) { compress_dequantize_biased(codes.baseAddress!, scale, bias, out, codes.count) }

  /// scale · (code − zero) with the nearest code, in place.
  package static func roundToGrid(_ values: UnsafeMutableBufferPointer<Float>, scale: Float, zero: Float, top: Float) {
    guard let base = values.baseAddress else { return }
    compress_round_to_grid(base, scale, zero, top, base, values.count)
  }

  /// Σ importance · (w − ŵ)².
  package static func quantizationError(
    _ w: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?, scale: Float, zero: Float, top: Float
  ) -> Float { compress_quantization_error(w.baseAddress!, importance, scale, zero, top, w.count) }

  /// Σ importance · w · q and Σ importance · q² over the codes' distances q from the zero point.
  package static func codeMoments(
    _ w: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?, scale: Float, zero: Float, top: Float
  ) -> (product: Float, square: Float) {
    var (product, square) = (Float(0), Float(0))
    compress_code_moments(w.baseAddress!, importance, scale, zero, top, &product, &square, w.count)
    return (product, square)
  }

  /// How many grids a search tries at once.
  package static var candidateCount: Int { Int(COMPRESS_CANDIDATES) }

  /// Of the scales unit · (centre + offset) the one whose codes, at the scale that fits them best, leave the least squared error.
  ///
  /// - Parameters:
  ///   - offsets: `candidateCount` of them.
  ///   - zero: a whole number.
  /// - Returns: its index, the squared error it takes away, and the scale that fits its codes best.
  package static func bestScale(
    _ w: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?, unit: Float, centre: Float, offsets: [Float], zero: Float,
    top: Float
  ) -> (index: Int, gain: Float, scale: Float) {
    precondition(offsets.count == candidateCount, "\(candidateCount) candidates are tried at once")
    var (gain, scale) = (Float(0), Float(0))
    let index = compress_best_scale(w.baseAddress!, importance, w.count, unit, centre, offsets, zero, top, &gain, &scale)
    return (index, gain, scale)
  }

  /// Of `candidateCount` scales and zero points those with the least squared error.
  package static func bestGrid(
    _ w: UnsafeBufferPointer<Float>, importance: UnsafePointer<Float>?, scales: UnsafeBufferPointer<Float>,
    zeros: UnsafeBufferPointer<Float>, top: Float
  ) -> (index: Int, error: Float) {
    precondition(scales.count == candidateCount && zeros.count == candidateCount, "\(candidateCount) candidates are tried at once")
    var error = Float(0)
    let index = compress_best_grid(w.baseAddress!, importance, w.count, scales.baseAddress!, zeros.baseAddress!, top, &error)
    return (index, error)
  }

  package static func countZeros(_ w: UnsafeBufferPointer<Float>) -> Int { w.baseAddress.map { compress_count_zeros($0, w.count) } ?? 0 }

  /// One block of GPTQ columns; every matrix is [columns × rows], see `CKernels.h`.
  package static func gptqBlock(
    target: UnsafeMutablePointer<Float>, weight: UnsafePointer<Float>, feedback: UnsafePointer<Float>, feedbackStride: Int,
    scales: UnsafePointer<Float>, zeros: UnsafePointer<Float>, top: Float, codes: UnsafeMutablePointer<UInt8>,
    errors: UnsafeMutablePointer<Float>, columns: Int, rows: Int
  ) { compress_gptq_block(target, weight, feedback, feedbackStride, scales, zeros, top, codes, errors, columns, rows) }

  /// One sweep of coordinate descent on the levels of one block of columns; every matrix is [columns × rows], see `CKernels.h`.
  package static func descendBlock(
    gradient: UnsafeMutablePointer<Float>, hessian: UnsafePointer<Float>, hessianStride: Int, scales: UnsafePointer<Float>,
    zeros: UnsafePointer<Float>, top: Float, levels: UnsafeMutablePointer<Float>, moves: UnsafeMutablePointer<Float>, columns: Int,
    rows: Int
  ) { compress_descend_block(gradient, hessian, hessianStride, scales, zeros, top, levels, moves, columns, rows) }

  /// One block of SparseGPT columns; every matrix is [columns × rows], see `CKernels.h`.
  ///
  /// - Parameter choosing: how many of how many columns to remove in every row; `nil` where the mask is given.
  package static func sparseGPTBlock(
    target: UnsafeMutablePointer<Float>, weight: UnsafePointer<Float>, feedback: UnsafePointer<Float>, feedbackStride: Int,
    pivots: UnsafePointer<Float>, choosing: (pruned: Int, group: Int)?, mask: UnsafeMutablePointer<Bool>,
    errors: UnsafeMutablePointer<Float>, columns: Int, rows: Int
  ) {
    precondition(choosing.map { $0.group < 256 && columns % $0.group == 0 } ?? true, "whole groups of columns are needed")
    mask.withMemoryRebound(to: UInt8.self, capacity: columns * rows) {
      compress_sparsegpt_block(
        target, weight, feedback, feedbackStride, pivots, choosing?.pruned ?? 0, choosing?.group ?? 0, $0, errors, columns, rows)
    }
  }

  /// One block of GPTQ columns on a float grid; leaves errors only.
  package static func gptqBlock(
    target: UnsafeMutablePointer<Float>, weight: UnsafePointer<Float>, feedback: UnsafePointer<Float>, feedbackStride: Int,
    scales: UnsafePointer<Float>, grid: MiniFloat, errors: UnsafeMutablePointer<Float>, columns: Int, rows: Int
  ) {
    compress_gptq_block_minifloat(
      target, weight, feedback, feedbackStride, scales, UInt32(grid.mantissaBits), Int32(grid.minExponent), grid.largest, errors, columns,
      rows)
  }

  /// One step of half-quadratic quantization: Σ |w − ŵ| for `zero`, and the zero point that follows.
  package static func hqqStep(
    _ w: UnsafeBufferPointer<Float>, inverse: Float, zero: Float, top: Float, power: Float, beta: Float
  ) -> (distance: Float, zero: Float) {
    var next = zero
    guard let base = w.baseAddress else { return (0, zero) }
    let distance = compress_hqq_step(base, inverse, zero, top, power, beta, w.count, &next)
    return (distance, next)
  }

  /// Codes into a little-endian bit string of 32-bit words, `count` of them a row, each row padded to a whole word.
  package static func pack(_ codes: [UInt8], rowLength count: Int, bits: Int) -> [UInt32] {
    [UInt32](filling: packedWords(codes, rowLength: count, bits: bits)) { pack(codes, rowLength: count, bits: bits, into: $0) }
  }

  /// How many words `pack` makes of some codes.
  package static func packedWords(_ codes: [UInt8], rowLength count: Int, bits: Int) -> Int {
    count == 0 ? 0 : codes.count / count * ((count * bits + 31) / 32)
  }

  package static func pack(_ codes: [UInt8], rowLength count: Int, bits: Int, into words: UnsafeMutableBufferPointer<UInt32>) {
    guard count > 0, let base = words.baseAddress else { return }
    let (rows, width) = (codes.count / count, (count * bits + 31) / 32)
    let strip = max(1, (1 << 16) / count)
    codes.withUnsafeBufferPointer { codes in
      nonisolated(unsafe) let (codes, base) = (codes.baseAddress!, base)
      Parallel.forEach((rows + strip - 1) / strip) { index in
        for row in index * strip..<min((index + 1) * strip, rows) {
          compress_pack_bits(codes + row * count, count, UInt32(bits), base + row * width)
        }
      }
    }
  }

  package static func unpack(_ words: [UInt32], rowLength count: Int, bits: Int) -> [UInt8] {
    let wordsPerRow = (count * bits + 31) / 32
    let rows = wordsPerRow == 0 ? 0 : words.count / wordsPerRow
    return [UInt8](unsafeUninitializedCapacity: rows * count) { buffer, initialized in
      words.withUnsafeBufferPointer { words in
        for row in 0..<rows {
          compress_unpack_bits(words.baseAddress! + row * wordsPerRow, count, UInt32(bits), buffer.baseAddress! + row * count)
        }
      }
      initialized = rows * count
    }
  }
}
