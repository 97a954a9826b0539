public import Tensors

/// What carries something from one token to another: attention, a recurrence, a convolution.
///
/// This is the part of a block that kinds of models differ in. A mixer says which tensors it has and which steps lead from the block's input
/// to what is added to the residual stream; everything that passes need follows from that. Each kind is one file.
public protocol TokenMixer: Sendable, Equatable {
  /// What it is called in messages, such as `attention`.
  static var kind: String { get }
  /// What precedes the names of its tensors inside the block, such as `self_attn`.
  var module: String { get }
  /// All its linears.
  func linearShapes(hiddenSize: Int) -> [LinearName: LinearShape]
  /// Norms that compute as the block's norms do, with the lengths of their weights.
  var norms: [(name: String, size: Int)] { get }
  /// Where a norm has an epsilon of its own; `nil` for the block's.
  func epsilon(ofNorm name: String) -> Float?
  /// Tensors that are neither linears nor such norms.
  var parameters: [MixerParameter] { get }
  /// From what enters the layer to what it puts out. The first step's linears read `input`, the last one makes `output`, and one between is
  /// `.mix(place.index, …)`.
  func steps(from input: BlockValue, into output: BlockValue, at place: MixerPlace) -> [BlockStep]
  /// Linears that no pass touches unless a pattern names them, because small errors in them grow along the sequence.
  var namedOnly: Set<LinearName> { get }
  /// Linears that runtimes compute as one.
  var fusedLinears: [[LinearName]] { get }
  /// Features of the widest matrix that its linears read besides the layer's input.
  var contextSize: Int { get }
  /// Why a sequence cannot be read piece by piece; `nil` where it can.
  var cacheObstacle: String? { get }
  /// What its output is multiplied by before it is added.
  var outputScale: Float { get }
  /// Numbers it keeps of a sequence that is read piece by piece.
  func stateSize(tokens: Int) -> Int
  /// Why the way back through it cannot be gone, which gradients need; `nil` where it can.
  var gradientObstacle: String? { get }
  /// Why no model can have such a mixer; `nil` where one can.
  var absurdity: String? { get }
  /// The mixer with its weights, ready to run.
  func prepared(_ parts: MixerParts) -> any PreparedMixer
}

extension TokenMixer {
  public var norms: [(name: String, size: Int)] { [] }
  public func epsilon(ofNorm name: String) -> Float? { nil }
  public var parameters: [MixerParameter] { [] }
  public var namedOnly: Set<LinearName> { [] }
  public var fusedLinears: [[LinearName]] { [] }
  public var cacheObstacle: String? { nil }
  public var outputScale: Float { 1 }
  public var gradientObstacle: String? { "\(Self.kind) (\(module)) has no gradient yet" }
  public var absurdity: String? { nil }

  func isEqual(to other: any TokenMixer) -> Bool { (other as? Self) == self }
}

/// A mixer that runs.
public protocol PreparedMixer: Sendable {
  /// A whole sequence, from what `BlockStep.mix` reads to what it makes; matrices are [tokens × features].
  func mix(_ inputs: [Matrix]) -> Matrix
}

/// A mixer that gradients go back through.
package protocol DifferentiableMixer: PreparedMixer {
  /// The way back through `mix` of a whole sequence, which is computed again where that is cheaper than keeping it.
  ///
  /// - Parameters:
  ///   - inputs: what it read.
  ///   - gradient: of what it made.
  ///   - pull: takes the gradients of its norms and parameters, sums over the sequence.
  /// - Returns: the gradients of what it read, in the same order.
  func pullback(_ inputs: [Matrix], _ gradient: Matrix, into pull: inout BlockPull) -> [Matrix]
}

/// A mixer that runs and keeps all it needs of a sequence's past in a state of its own.
public protocol RecurrentMixer: PreparedMixer {
  associatedtype State: MixerState
  /// The state before the first token.
  func makeState() -> State
  /// The next tokens of a sequence; the result does not depend on how the sequence is cut, but for rounding.
  func mix(_ inputs: [Matrix], after state: inout State) -> Matrix
}

extension RecurrentMixer {
  public func mix(_ inputs: [Matrix]) -> Matrix {
    var state = makeState()
    return mix(inputs, after: &state)
  }

  /// The same for a state whose type is not known.
  package func mix(_ inputs: [Matrix], afterAny state: inout any MixerState) -> Matrix {
    guard var own = state as? State else { preconditionFailure("the state is another mixer's") }
    // Taken out while it changes, so that it is not copied.
    state = NoState()
    defer { state = own }
    return mix(inputs, after: &own)
  }
}

/// What a mixer keeps of a sequence's past.
public protocol MixerState: Sendable {
  /// Numbers that are kept.
  var count: Int { get }
}

private struct NoState: MixerState { let count = 0 }

/// A tensor that is neither a linear nor one of the block's norms, by its name inside the block.
public struct MixerParameter: Sendable, Equatable {
  public var name: String
  public var shape: [Int]

  public init(_ name: String, shape: [Int]) {
    self.name = name
    self.shape = shape
  }
}

/// [outputs, inputs] of a linear, and whether it has a bias.
public struct LinearShape: Sendable, Equatable {
  public var rows: Int
  public var columns: Int
  public var bias: Bool

  public init(rows: Int, columns: Int, bias: Bool = false) {
    self.rows = rows
    self.columns = columns
    self.bias = bias
  }
}

/// Which of a block's mixers it is, for the names of its values.
public struct MixerPlace: Sendable {
  public let index: Int

  /// A value of this mixer's own.
  public func value(_ name: String) -> BlockValue { BlockValue(rawValue: index == 0 ? name : "\(name) of mixer \(index)") }
}

/// What a mixer is prepared with.
public struct MixerParts: Sendable {
  /// The block's name in the whole model; for messages.
  public var block: String
  /// How the block's norms compute.
  public var norm: NormDescription
  /// What the block's norms multiply by and add, the mixer's among them.
  public var norms: [String: [Float]]
  public var normBiases: [String: [Float]]
  /// The mixer's parameters, row by row.
  public var parameters: [String: [Float]]
  /// How keys and values are stored while a runtime generates; `nil` for as they are.
  public var cache: CacheQuantization?
  /// The longest sequence that will be run.
  public var longest: Int
  /// Positions beyond it that runs through a cache will ask for; `nil` where there are none.
  public var horizon: Int?

  /// - Precondition: the mixer has such a parameter.
  public func parameter(_ name: String) -> [Float] {
    guard let values = parameters[name] else { preconditionFailure("\(block) has no \(name)") }
    return values
  }
}

/// The mixers of one block: side by side, all read what enters the layer, and their outputs are added.
public struct TokenMixers: Sendable, Equatable, RandomAccessCollection, MutableCollection, ExpressibleByArrayLiteral {
  private var mixers: [any TokenMixer]

  public init(_ mixers: [any TokenMixer]) { self.mixers = mixers }
  public init(arrayLiteral mixers: any TokenMixer...) { self.mixers = mixers }

  public var startIndex: Int { 0 }
  public var endIndex: Int { mixers.count }
  public subscript(index: Int) -> any TokenMixer {
    get { mixers[index] }
    set { mixers[index] = newValue }
  }

  public static func == (a: TokenMixers, b: TokenMixers) -> Bool {
    a.count == b.count && zip(a, b).allSatisfy { $0.isEqual(to: $1) }
  }
}

extension TokenMixers: CustomReflectable {
  /// By kind, so that a difference between two blocks reads as `mixers.attention.window`.
  public var customMirror: Mirror {
    Mirror(self, children: mixers.map { (label: type(of: $0).kind, value: $0 as Any) }, displayStyle: .struct)
  }
}
