import Tensors

/// Latent attention (DeepSeek-AI 2024, "DeepSeek-V2", section 2.1): keys and values of all heads come from one short latent, queries from
/// another; positions are in parts of their own, one key part for all heads. A runtime keeps the latent and that part of a token, no more.
public struct LatentAttention: TokenMixer {
  public static let kind = "latent attention"

  public var module: String
  public var heads: Int
  /// Numbers of the latent that queries come from; `nil` where they come from the hidden states.
  public var queryRank: Int?
  /// Numbers of the latent that keys and values come from.
  public var rank: Int
  /// Numbers of a head's query and key without a position.
  public var plainSize: Int
  /// Numbers with one.
  public var rotarySize: Int
  public var valueSize: Int
  public var rotary: RotaryDescription
  /// Whether the rotation turns neighbours, instead of numbers half a head apart.
  public var isInterleaved: Bool
  /// What products of queries and keys are multiplied by.
  public var scale: Float
  /// Of the norms on both latents.
  public var epsilon: Float
  /// Whether what reads the hidden states and what writes them have biases.
  public var hasBias: Bool
  /// What queries are multiplied by where they stand; `nil` for nothing (Mistral 4).
  public var queryScale: QueryScale?

  public init(
    module: String = "self_attn", heads: Int, queryRank: Int?, rank: Int, plainSize: Int, rotarySize: Int, valueSize: Int,
    rotary: RotaryDescription, isInterleaved: Bool, scale: Float, epsilon: Float, hasBias: Bool
  ) {
    self.module = module
    self.heads = heads
    self.queryRank = queryRank
    self.rank = rank
    self.plainSize = plainSize
    self.rotarySize = rotarySize
    self.valueSize = valueSize
    self.rotary = rotary
    self.isInterleaved = isInterleaved
    self.scale = scale
    self.epsilon = epsilon
    self.hasBias = hasBias
  }

  var keySize: Int { plainSize + rotarySize }

  /// Columns of the heads' parts: in the queries, and in what the latent is expanded to.
  struct Places {
    let plainQueries, rotaryQueries, plainKeys, values: [Range<Int>]
  }

  var places: Places {
    func stretches(_ width: Int, _ start: Int, _ count: Int) -> [Range<Int>] {
      (0..<heads).map { $0 * width + start..<$0 * width + start + count }
    }
    return Places(
      plainQueries: stretches(keySize, 0, plainSize), rotaryQueries: stretches(keySize, plainSize, rotarySize),
      plainKeys: stretches(plainSize + valueSize, 0, plainSize), values: stretches(plainSize + valueSize, plainSize, valueSize))
  }

  /// Columns of rotary parts in the order that puts neighbours half a head apart.
  func halvesOfNeighbours(heads: Int) -> [Range<Int>] {
    let size = rotarySize
    return (0..<heads).flatMap { head in
      (0..<size).map { index in
        let from = head * size + (index < size / 2 ? 2 * index : 2 * index - size + 1)
        return from..<from + 1
      }
    }
  }

  private func linear(_ name: String) -> LinearName { LinearName(rawValue: "\(module).\(name)") }
  private var queryReader: LinearName { linear(queryRank == nil ? "q_proj" : "q_a_proj") }
  private var latentReader: LinearName { linear("kv_a_proj_with_mqa") }
  private var queryMaker: LinearName { linear("q_b_proj") }
  private var latentExpander: LinearName { linear("kv_b_proj") }
  private var output: LinearName { linear("o_proj") }
  private var queryNorm: String { module + ".q_a_layernorm" }
  private var latentNorm: String { module + ".kv_a_layernorm" }

  public func linearShapes(hiddenSize: Int) -> [LinearName: LinearShape] {
    var shapes = [
      latentReader: LinearShape(rows: rank + rotarySize, columns: hiddenSize, bias: hasBias),
      latentExpander: LinearShape(rows: heads * (plainSize + valueSize), columns: rank),
      output: LinearShape(rows: hiddenSize, columns: heads * valueSize, bias: hasBias),
    ]
    if let queryRank {
      shapes[queryReader] = LinearShape(rows: queryRank, columns: hiddenSize, bias: hasBias)
      shapes[queryMaker] = LinearShape(rows: heads * keySize, columns: queryRank)
    } else {
      shapes[queryReader] = LinearShape(rows: heads * keySize, columns: hiddenSize)
    }
    return shapes
  }

  public var norms: [(name: String, size: Int)] { (queryRank.map { [(queryNorm, $0)] } ?? []) + [(latentNorm, rank)] }

  public func epsilon(ofNorm name: String) -> Float? { name == queryNorm || name == latentNorm ? epsilon : nil }

  public func steps(from input: BlockValue, into output: BlockValue, at place: MixerPlace) -> [BlockStep] {
    let (read, queries) = (place.value("latent and rotary keys"), place.value("queries"))
    let (latent, rotaryKeys) = (place.value("latent"), place.value("rotary keys"))
    let (expanded, context) = (place.value("keys, values"), place.value("context"))
    let queryLatent = place.value("query latent")
    var steps: [BlockStep] = [.linears([queryReader, latentReader], input, into: [queryRank == nil ? queries : queryLatent, read])]
    steps.append(.split(read, sizes: [rank, rotarySize], into: [latent, rotaryKeys]))
    if queryRank != nil {
      steps += [.norm(queryNorm, queryLatent, into: queryLatent), .linears([queryMaker], queryLatent, into: [queries])]
    }
    return steps + [
      .norm(latentNorm, latent, into: latent), .linears([latentExpander], latent, into: [expanded]),
      .mix(place.index, [queries, expanded, rotaryKeys], into: context), .linears([self.output], context, into: [output]),
    ]
  }

  public var fusedLinears: [[LinearName]] { queryRank == nil ? [] : [[queryReader, latentReader]] }
  public var contextSize: Int { max(heads * valueSize, queryRank ?? 0, rank) }
  public func stateSize(tokens: Int) -> Int { (rank + rotarySize) * tokens }

  public var gradientObstacle: String? { nil }

  public var absurdity: String? {
    let sizes = [heads, queryRank ?? 1, rank, plainSize, rotarySize, valueSize]
    guard sizes.allSatisfy({ $0 > 0 && $0 <= 1 << 20 }), heads * (plainSize + rotarySize + valueSize) <= 1 << 26, rotarySize % 2 == 0 else {
      return "latent attention of \(heads) heads of \(plainSize) + \(rotarySize) numbers and latents of \(rank) is not possible"
    }
    guard queryScale?.isPossible ?? true else { return "queries cannot grow every \(queryScale?.stretch ?? 0) positions" }
    return nil
  }

  public func prepared(_ parts: MixerParts) -> any PreparedMixer { PreparedLatentAttention(self, parts) }
}

struct PreparedLatentAttention: RecurrentMixer {
  struct State: MixerState {
    /// Of all tokens so far, as heads see them: what runtimes make anew of the latents.
    var keys: Matrix
    var values: Matrix
    /// Numbers that a runtime keeps of a token.
    let perToken: Int
    var count: Int { keys.rows * perToken }
  }

  let description: LatentAttention
  let rotary: RotaryTable
  let product: ScaledDotProduct

  init(_ description: LatentAttention, _ parts: MixerParts) {
    self.description = description
    let positions = parts.longest + (parts.horizon ?? 0)
    rotary = RotaryTable(description.rotary, headSize: description.rotarySize, positions: positions, length: parts.longest)
    product = ScaledDotProduct(
      heads: description.heads, keyValueHeads: description.heads, keySize: description.keySize, valueSize: description.valueSize,
      softmax: AttentionSoftmax(scale: description.scale))
  }

  func makeState() -> State {
    let heads = description.heads
    return State(
      keys: Matrix(rows: 0, columns: heads * description.keySize), values: Matrix(rows: 0, columns: heads * description.valueSize),
      perToken: description.stateSize(tokens: 1))
  }

  func mix(_ inputs: [Matrix], after state: inout State) -> Matrix {
    let past = state.keys.rows
    let (queries, keys, values) = positioned(inputs, from: past)
    state.keys = past == 0 ? keys : Matrix(stacking: [state.keys, keys])
    state.values = past == 0 ? values : Matrix(stacking: [state.values, values])
    return product.attend(queries: queries, keys: state.keys, values: state.values)
  }

  /// Queries, keys and values of all heads, for rows that follow each other from a position on.
  func positioned(_ inputs: [Matrix], from past: Int) -> (queries: Matrix, keys: Matrix, values: Matrix) {
    let places = description.places
    var queries = joined(
      inputs[0].columns(in: places.plainQueries), turned(inputs[0].columns(in: places.rotaryQueries), heads: description.heads, from: past))
    scale(&queries, from: past)
    let keys = joined(
      inputs[1].columns(in: places.plainKeys),
      turned(inputs[2], heads: 1, from: past).columns(in: Array(repeating: 0..<description.rotarySize, count: description.heads)))
    return (queries, keys, inputs[1].columns(in: places.values))
  }

  /// Multiplies queries of rows that follow each other from a position on by what depends on where they stand; which is the way of their
  /// gradients, too.
  func scale(_ queries: inout Matrix, from position: Int) {
    guard let scale = description.queryScale else { return }
    queries.scaleRows(by: (0..<queries.rows).map { scale.factor(at: position + $0) })
  }

  /// Heads of a plain and a rotated part, the parts of each one after the other.
  private func joined(_ plain: Matrix, _ rotated: Matrix) -> Matrix {
    let (first, second) = (description.plainSize, description.rotarySize)
    let both = Matrix(rows: plain.rows, columns: plain.columns + rotated.columns) { out in
      plain.withUnsafeElements { plainElements in
        rotated.withUnsafeElements { rotatedElements in
          var place = out.baseAddress!
          for row in 0..<plain.rows {
            for head in 0..<description.heads {
              place.update(from: plainElements + row * plain.columns + head * first, count: first)
              (place + first).update(from: rotatedElements + row * rotated.columns + head * second, count: second)
              place += first + second
            }
          }
        }
      }
    }
    return both
  }

  /// The rotation of rows that follow each other from a position on. Where neighbours are turned, they are put half a head apart first: of
  /// queries and keys alike, so that their products are the same.
  private func turned(_ states: Matrix, heads: Int, from position: Int) -> Matrix {
    var states = states
    if description.isInterleaved { states = states.columns(in: description.halvesOfNeighbours(heads: heads)) }
    rotary.rotate(&states, heads: heads, headSize: description.rotarySize) { position + $0 }
    return states
  }
}
