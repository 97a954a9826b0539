internal import Foundation
import Tensors

/// Attention whose past is one matrix for each head, S [key size × value size], that fades: Sₜ = exp(gₜ) · Sₜ₋₁ + kₜ · vₜᵀ and oₜ = Sₜᵀ · qₜ
/// (Dao and Gu 2024, "Transformers are SSMs"). With strengths β what S held for a key is replaced instead of added to, the delta rule:
/// Sₜ = exp(gₜ) · (I − βₜ · kₜ · kₜᵀ) · Sₜ₋₁ + βₜ · kₜ · vₜᵀ (Yang et al. 2025, "Gated Delta Networks", equation 10).
///
/// Tokens are taken in chunks, so that all but the way from chunk to chunk are products of matrices: with G the sums of g since the chunk's
/// beginning and D[i, j] = exp(Gᵢ − Gⱼ) for j ≤ i, the outputs are exp(G) ⊙ (Q · S) + (Q · Kᵀ ⊙ D) · X. X is V; under the delta rule it solves
/// (I + β ⊙ strictly lower part of (K · Kᵀ ⊙ D)) · X = β ⊙ (V − exp(G) ⊙ (K · S)).
struct LinearAttention: Sendable {
  /// Heads that share queries and keys are neighbours: head h has those of h · keyHeads / heads.
  var heads: Int
  var keyHeads: Int
  var keySize: Int
  var valueSize: Int
  /// Tokens that are taken at once, which the result does not depend on, but for rounding.
  var chunk = 64

  /// Numbers that are kept of a sequence.
  var memorySize: Int { heads * keySize * valueSize }

  /// What is kept of a sequence that a convolution prepares for the attention.
  struct State: MixerState {
    /// The last inputs of the convolution.
    var past: Matrix
    /// S of all heads, [heads × keySize × valueSize].
    var memory: [Float]
    var count: Int { past.elements.count + memory.count }
  }

  /// The state before the first token.
  func makeState(behind convolution: CausalConvolution) -> State {
    State(past: convolution.makePast(), memory: Array(repeating: 0, count: memorySize))
  }

  /// - Parameters:
  ///   - queries: [tokens × keyHeads · keySize], `keys` alike.
  ///   - values: [tokens × heads · valueSize].
  ///   - decays: g, not above zero, [tokens × heads].
  ///   - strengths: β, [tokens × heads]; `nil` for sums without the delta rule.
  ///   - memory: S of all heads, [heads × keySize × valueSize]; becomes what it is behind the tokens.
  ///   - tape: takes what the way back needs.
  /// - Returns: [tokens × heads · valueSize].
  func run(
    queries: Matrix, keys: Matrix, values: Matrix, decays: Matrix, strengths: Matrix?, memory: inout [Float], onto tape: Tape? = nil
  ) -> Matrix {
    precondition(memory.count == memorySize)
    let work = Workspace(chunk: min(chunk, queries.rows), valueSize: valueSize)
    return Matrix(rows: values.rows, columns: values.columns) { out in
      memory.withUnsafeMutableBufferPointer { memory in
        queries.withUnsafeElements { queries in
          keys.withUnsafeElements { keys in
            values.withUnsafeElements { values in
              for first in stride(from: 0, to: decays.rows, by: chunk) {
                let rows = first..<min(first + chunk, decays.rows)
                for keyHead in 0..<keyHeads {
                  let offset = first * keyHeads * keySize + keyHead * keySize
                  let part = Part(queries: queries + offset, keys: keys + offset, rows: rows, keyHead: keyHead)
                  advance(part, values: values, decays, strengths, memory: memory.baseAddress!, tape, work, out: out.baseAddress!)
                }
              }
            }
          }
        }
      }
    }
  }

  /// A chunk of tokens as one key head sees them.
  private struct Part {
    let queries: UnsafePointer<Float>
    let keys: UnsafePointer<Float>
    let rows: Range<Int>
    let keyHead: Int
  }

  /// Room for the products of one chunk.
  private final class Workspace {
    /// Q · Kᵀ and K · Kᵀ, and the same with decays, [chunk × chunk].
    let scores, overlaps, faded: UnsafeMutablePointer<Float>
    /// X, and what becomes of it, [chunk × value size].
    let updates, recalled: UnsafeMutablePointer<Float>

    init(chunk: Int, valueSize: Int) {
      func room(_ count: Int) -> UnsafeMutablePointer<Float> { .allocate(capacity: max(1, count)) }
      (scores, overlaps, faded) = (room(chunk * chunk), room(chunk * chunk), room(chunk * chunk))
      (updates, recalled) = (room(chunk * valueSize), room(chunk * valueSize))
    }

    deinit { for pointer in [scores, overlaps, faded, updates, recalled] { pointer.deallocate() } }
  }

  private func advance(
    _ part: Part, values: UnsafePointer<Float>, _ decays: Matrix, _ strengths: Matrix?, memory: UnsafeMutablePointer<Float>,
    _ tape: Tape?, _ work: Workspace, out: UnsafeMutablePointer<Float>
  ) {
    let (count, keyStride, valueStride) = (part.rows.count, keyHeads * keySize, heads * valueSize)
    func product(_ left: UnsafePointer<Float>, into result: UnsafeMutablePointer<Float>) {
      BLAS.product(
        left, stride: keyStride, part.keys, stride: keyStride, rightTransposed: true, rows: count, columns: count, inner: keySize,
        into: result, stride: count)
    }
    product(part.queries, into: work.scores)
    if strengths != nil { product(part.keys, into: work.overlaps) }
    for head in part.keyHead * heads / keyHeads..<(part.keyHead + 1) * heads / keyHeads {
      var sum: Float = 0
      let sums = part.rows.map { row -> Float in
        sum += decays[row, head]
        return sum
      }
      let past = memory + head * keySize * valueSize
      tape?.memory(head, from: part.rows.lowerBound).update(from: past, count: keySize * valueSize)
      let offset = part.rows.lowerBound * valueStride + head * valueSize
      // What the past holds for each key is taken out of its value.
      if let strengths {
        BLAS.product(
          part.keys, stride: keyStride, past, stride: valueSize, rows: count, columns: valueSize, inner: keySize, into: work.updates,
          stride: valueSize)
        for row in 0..<count {
          let (strength, fade) = (strengths[part.rows.lowerBound + row, head], exp(sums[row]))
          let (update, value) = (work.updates + row * valueSize, values + offset + row * valueStride)
          for column in 0..<valueSize { update[column] = strength * (value[column] - fade * update[column]) }
          fadeRow(row, of: work.overlaps, sums, times: strength, into: work.faded, count: count)
        }
        BLAS.solveUnitLower(work.faded, size: count, work.updates, columns: valueSize)
        tape?.updates(head, from: part.rows.lowerBound).update(from: work.updates, count: count * valueSize)
      } else {
        for row in 0..<count { (work.updates + row * valueSize).update(from: values + offset + row * valueStride, count: valueSize) }
      }
      for row in 0..<count { fadeRow(row, of: work.scores, sums, times: 1, into: work.faded, count: count) }
      BLAS.product(
        part.queries, stride: keyStride, past, stride: valueSize, rows: count, columns: valueSize, inner: keySize, into: work.recalled,
        stride: valueSize)
      for row in 0..<count {
        let (fade, result, recalled) = (exp(sums[row]), out + offset + row * valueStride, work.recalled + row * valueSize)
        for column in 0..<valueSize { result[column] = fade * recalled[column] }
      }
      BLAS.product(
        work.faded, stride: count, work.updates, stride: valueSize, rows: count, columns: valueSize, inner: count, beta: 1,
        into: out + offset, stride: valueStride)
      // The past fades over the whole chunk, each update over what is left of it.
      for row in 0..<count {
        let (fade, update) = (exp(sum - sums[row]), work.updates + row * valueSize)
        for column in 0..<valueSize { update[column] *= fade }
      }
      BLAS.product(
        part.keys, stride: keyStride, leftTransposed: true, work.updates, stride: valueSize, rows: keySize, columns: valueSize,
        inner: count, beta: exp(sum), into: past, stride: valueSize)
    }
  }

  /// A row of products times what is left of each token by then; zero for later ones.
  private func fadeRow(
    _ row: Int, of products: UnsafePointer<Float>, _ sums: [Float], times factor: Float, into faded: UnsafeMutablePointer<Float>, count: Int
  ) {
    let (from, to) = (products + row * count, faded + row * count)
    for column in 0...row { to[column] = factor * from[column] * exp(sums[row] - sums[column]) }
    (to + row + 1).update(repeating: 0, count: count - row - 1)
  }
}
