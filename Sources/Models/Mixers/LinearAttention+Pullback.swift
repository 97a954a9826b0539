import Tensors

extension LinearAttention {
  /// What linear attention reads of a whole sequence; as `run` says.
  struct Inputs {
    let queries, keys, values, decays: Matrix
    let strengths: Matrix?
  }

  /// What the way back needs of the way there.
  final class Tape {
    /// S at the beginning of every chunk, [chunks × heads × key size × value size].
    private let memories: UnsafeMutablePointer<Float>
    /// X under the delta rule, [heads × tokens × value size].
    private let updates: UnsafeMutablePointer<Float>
    private let attention: LinearAttention
    private let tokens: Int

    init(_ attention: LinearAttention, tokens: Int, isDelta: Bool) {
      self.attention = attention
      self.tokens = tokens
      let chunks = (tokens + attention.chunk - 1) / attention.chunk
      memories = .allocate(capacity: max(1, chunks * attention.memorySize))
      updates = .allocate(capacity: max(1, isDelta ? attention.heads * tokens * attention.valueSize : 0))
    }

    deinit {
      memories.deallocate()
      updates.deallocate()
    }

    /// S at the beginning of the chunk that begins with a token.
    func memory(_ head: Int, from token: Int) -> UnsafeMutablePointer<Float> {
      memories + (token / attention.chunk * attention.heads + head) * attention.keySize * attention.valueSize
    }

    /// X from a token on.
    func updates(_ head: Int, from token: Int) -> UnsafeMutablePointer<Float> { updates + (head * tokens + token) * attention.valueSize }
  }

  /// A whole sequence, as `run` does it.
  func record(_ inputs: Inputs) -> (outputs: Matrix, tape: Tape) {
    var memory = [Float](repeating: 0, count: memorySize)
    let tape = Tape(self, tokens: inputs.decays.rows, isDelta: inputs.strengths != nil)
    let outputs = run(
      queries: inputs.queries, keys: inputs.keys, values: inputs.values, decays: inputs.decays, strengths: inputs.strengths,
      memory: &memory, onto: tape)
    return (outputs, tape)
  }

  /// Gradients of what linear attention has read.
  struct Gradients {
    var queries, keys, values, decays: Matrix
    var strengths: Matrix?
  }

  /// The way back through `record`, chunk by chunk from the last one to the first, by the chunks' products of matrices
  /// (Dao and Gu 2024, section 6; Yang et al. 2025, section 3.3).
  ///
  /// Of one head and one chunk of c tokens, let S [key size × value size] be the memory at its beginning, dS' the gradient of the memory at
  /// its end, carried from the chunk behind, and dO [c × value size] that of the outputs. With G [c] the sums of g, f = exp(G),
  /// w = exp(G_c − G) and D[i, j] = exp(Gᵢ − Gⱼ) for j ≤ i, the way there is
  ///
  ///     O = f ⊙ (Q · S) + (P ⊙ D) · X,    P = Q · Kᵀ [c × c],
  ///     S' = exp(G_c) · S + Kᵀ · (w ⊙ X),
  ///     X = V, or (I + L) · X = β ⊙ (V − f ⊙ (K · S)) with L = β ⊙ strictly lower part of (N ⊙ D), N = K · Kᵀ [c × c],
  ///
  /// where f, w and β multiply rows. The way back is, with A = dO · Xᵀ for j ≤ i, T = dO · Sᵀ and M = X · dS'ᵀ, both [c × key size],
  ///
  ///     dX = (P ⊙ D)ᵀ · dO + w ⊙ (K · dS'),
  ///     dQ = (A ⊙ D) · K + f ⊙ T,
  ///     dK = (A ⊙ D)ᵀ · Q + w ⊙ M,
  ///     dS = exp(G_c) · dS' + Qᵀ · (f ⊙ dO),
  ///     dG = f ⊙ Σ T ⊙ Q − w ⊙ Σ M ⊙ K, and to that of the last token exp(G_c) · Σ S ⊙ dS' + Σ w ⊙ M ⊙ K,
  ///
  /// and from E = A ⊙ P ⊙ D, a gradient of Gᵢ − Gⱼ, dG gets the sums of E's rows less those of its columns. Without the delta rule, dV = dX.
  /// With it, Y = (I + L)⁻ᵀ · dX, B = −Y · Xᵀ for j < i, H = Y · Sᵀ [c × key size], h = Σ H ⊙ K [c], and
  ///
  ///     dV = β ⊙ Y,
  ///     dβ = Σ Y ⊙ V − f ⊙ h + sums of the rows of B ⊙ N ⊙ D,
  ///     dN = β ⊙ B ⊙ D,
  ///     dK += (dN + dNᵀ) · K − f ⊙ β ⊙ H,
  ///     dS −= Kᵀ · (f ⊙ β ⊙ Y),
  ///     dG −= f ⊙ β ⊙ h, and B ⊙ L adds to E.
  ///
  /// At last dg of a token is the sum of dG from it to the end of its chunk. S and X are on the tape.
  ///
  /// - Parameters:
  ///   - tape: of the same inputs.
  ///   - gradient: dO, [tokens × heads · valueSize].
  func pullback(_ inputs: Inputs, _ tape: Tape, _ gradient: Matrix) -> Gradients {
    let (queries, keys, values, decays, strengths) = (inputs.queries, inputs.keys, inputs.values, inputs.decays, inputs.strengths)
    let work = PullbackWorkspace(self, tokens: decays.rows)
    func zeros(like other: Matrix) -> Matrix { Matrix(rows: other.rows, columns: other.columns) }
    var (decayGradient, strengthGradient) = (zeros(like: decays), strengths.map { zeros(like: $0) })
    var (queryGradient, keyGradient, valueGradient) = (zeros(like: queries), zeros(like: keys), zeros(like: values))
    queryGradient.withUnsafeMutableElements { queryGradient in
      keyGradient.withUnsafeMutableElements { keyGradient in
        valueGradient.withUnsafeMutableElements { valueGradient in
          queries.withUnsafeElements { queries in
            keys.withUnsafeElements { keys in
              values.withUnsafeElements { values in
                gradient.withUnsafeElements { gradient in
                  let way = LinearAttentionPullback(
                    attention: self, queries: queries, keys: keys, values: values, gradient: gradient, queryGradient: queryGradient,
                    keyGradient: keyGradient, valueGradient: valueGradient, decays: decays, strengths: strengths, tape: tape, work: work)
                  for keyHead in 0..<keyHeads { way.pull(keyHead, decays: &decayGradient, strengths: &strengthGradient) }
                }
              }
            }
          }
        }
      }
    }
    return Gradients(
      queries: queryGradient, keys: keyGradient, values: valueGradient, decays: decayGradient, strengths: strengthGradient)
  }
}

/// Room for the products of one chunk of the heads that share a key head.
final class PullbackWorkspace {
  typealias Room = UnsafeMutablePointer<Float>

  /// dS', [heads × key size × value size].
  let carried: Room
  /// P and N, D, what is made of them, and A and B in turn, [chunk × chunk].
  let scores, overlaps, left, faded, pulled: Room
  /// Sums over heads of the gradients of P and of N, [chunk × chunk].
  let scoreGradient, overlapGradient: Room
  /// dX, and a factor of a product, [chunk × value size].
  let updateGradient, scaled: Room
  /// T, M and H in turn, [chunk × key size].
  let wide: Room
  private let rooms: [Room]

  init(_ attention: LinearAttention, tokens: Int) {
    let (chunk, group) = (min(attention.chunk, tokens), attention.heads / attention.keyHeads)
    let sizes =
      [group * attention.keySize * attention.valueSize] + Array(repeating: chunk * chunk, count: 7)
      + [chunk * attention.valueSize, chunk * attention.valueSize, chunk * attention.keySize]
    rooms = sizes.map { .allocate(capacity: max(1, $0)) }
    (carried, scores, overlaps, left, faded, pulled) = (rooms[0], rooms[1], rooms[2], rooms[3], rooms[4], rooms[5])
    (scoreGradient, overlapGradient) = (rooms[6], rooms[7])
    (updateGradient, scaled, wide) = (rooms[8], rooms[9], rooms[10])
  }

  deinit { for room in rooms { room.deallocate() } }
}
