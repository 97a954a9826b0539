public import Models
public import Tensors

/// One transformation, applied to one part of a model at a time. A pass is a value: its stored properties are its options.
///
/// Options need defaults, because a recipe names only what it changes, and `Codable` keys are what recipes spell.
public protocol Pass: Sendable, Codable {
  /// What recipes call it.
  static var name: String { get }
  /// One line for `compress list passes`.
  static var summary: String { get }
  /// The defaults, all of them.
  init()
  /// Whether `run` asks for statistics of the calibration data. A run without such passes computes no activations at all.
  var usesCalibration: Bool { get }
  /// Whether the part computes the same function afterwards, up to rounding: rotations and scalings do.
  var isExact: Bool { get }
  /// Whether `run` asks how inputs have drifted from the reference model's. Such a run carries the calibration data through both.
  var comparesInputs: Bool { get }
  /// The whole-model questions this pass needs answered before it runs.
  var analyses: [any Analysis] { get }
  /// Whether the analyses measure predictions, which a recipe may name texts for that nothing is fitted to: `probes`.
  var usesProbes: Bool { get }
  /// Which linears the options speak of; each pattern must match something. By default all stored `LayerSelector`s.
  var selectors: [LayerSelector] { get }
  /// Whether the pass changes the coordinates of the hidden states between blocks. The sweep then gives a tied model a head of its own,
  /// and passes that use calibration data must come after this one: on a block still to be changed they would see changed inputs.
  var changesHiddenBasis: Bool { get }
  /// Whether the head must be a weight of its own for that, because the head and the embedding change differently. By default it must.
  var untiesHead: Bool { get }
  /// Whether the pass may leave whole decoder blocks out.
  var removesBlocks: Bool { get }
  /// Which ones, by index, now that the pass's analyses are answered. The sweep never meets those blocks: the others are numbered anew, and
  /// later passes and analyses see the smaller model.
  func removedBlocks(in context: PassContext) -> Set<Int>
  /// Whether the pass knows what to do with a weight that is two low-rank factors; one that does not is refused after `low_rank`, because it
  /// would multiply them out.
  var acceptsFactors: Bool { get }
  /// The pass with every option spelt out that depends on others where it is left out; what a printed recipe says.
  var effective: Self { get }
  /// Checks the options against each other.
  func validate() throws(InvalidOption)
  /// Checks that the passes after this one are such as it needs.
  func validate(before following: [any Pass]) throws(InvalidOption)
  /// The model as this pass leaves it: other sizes, fewer blocks. Only shapes are known yet; where calibration data decide which blocks go,
  /// it is their number that counts. A block that comes out of the sweep with other sizes than were announced here cannot be written.
  func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription
  /// Whether blocks will have fixed scales for their caches, which few formats can say.
  var fixesCacheScales: Bool { get }
  /// What this pass will make of a linear, from its shape alone; by default nothing is known to change.
  func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear
  /// The same, for passes whose choice depends on the rest of the model; what the sweep asks.
  func plan(_ linear: PlannedLinear, in description: ModelDescription) throws(InvalidOption) -> PlannedLinear
  /// What a user should know of the plan besides its table, such as choices that the options left to the pass.
  ///
  /// - Parameter linears: of the model as all passes will leave them.
  func remarks(on linears: [PlannedLinear]) -> [String]
  /// The most inputs that the pass fits weights to the second moment of, which has full rank only with as many calibration tokens; `nil` for a
  /// pass that fits to none.
  ///
  /// - Parameter linears: of the model as all passes will leave them.
  func fittedWidth(in linears: [PlannedLinear]) -> Int?
  /// Works on the embedding, a decoder block, or the head, as the sweep comes to them.
  func run(on part: inout any ModelPart, in context: PassContext) throws
}

/// A pass that works on decoder blocks and leaves both ends of a model as they are.
public protocol BlockPass: Pass {
  func run(on block: inout Block, in context: PassContext) throws
}

extension BlockPass {
  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    try part.withBlock { try run(on: &$0, in: context) }
  }
}

extension Pass {
  public static var summary: String { "" }
  public var usesCalibration: Bool { true }
  public var isExact: Bool { false }
  public var comparesInputs: Bool { false }
  public var analyses: [any Analysis] { [] }
  public var usesProbes: Bool { false }
  public var selectors: [LayerSelector] { Mirror(reflecting: self).children.compactMap { $0.value as? LayerSelector } }
  public var changesHiddenBasis: Bool { false }
  public var untiesHead: Bool { changesHiddenBasis }
  public var removesBlocks: Bool { false }
  public func removedBlocks(in context: PassContext) -> Set<Int> { [] }
  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription { description }
  public var acceptsFactors: Bool { false }
  public var fixesCacheScales: Bool { false }
  public var effective: Self { self }
  public func validate() throws(InvalidOption) {}
  public func validate(before following: [any Pass]) throws(InvalidOption) {}
  public func remarks(on linears: [PlannedLinear]) -> [String] { [] }
  public func fittedWidth(in linears: [PlannedLinear]) -> Int? { nil }
  public func plan(_ linear: PlannedLinear) throws(InvalidOption) -> PlannedLinear { linear }
  public func plan(_ linear: PlannedLinear, in description: ModelDescription) throws(InvalidOption) -> PlannedLinear { try plan(linear) }
}

/// An option that cannot be what it is set to.
public struct InvalidOption: Error, Equatable, Sendable, CustomStringConvertible {
  /// Path of the option inside the pass, such as `layers.include`.
  public let option: String
  public let reason: String
  /// The word that is wrong, where the option has several.
  public let word: String?

  public init(_ option: String, _ reason: String, word: String? = nil) {
    self.option = option
    self.reason = reason
    self.word = word
  }

  public var description: String { "\(option): \(reason)" }
}

/// A linear as the plan of a run sees it: its place, its shape, and how it will be stored.
public struct PlannedLinear: Sendable, Equatable {
  /// Its name in the whole model.
  public let name: String
  public internal(set) var rows: Int
  public internal(set) var columns: Int
  /// What it does in the model.
  public let role: Role
  /// What the checkpoint stores its dense numbers as.
  public let storageType: DType
  /// What its scales are rounded to.
  public let scaleType: DType
  /// Bits it takes in the checkpoint that is read; 0 for one that the run adds.
  public let sourceBits: Int
  /// In words, such as `int4 g128`.
  public var scheme: String
  public var storedBits: Int
  /// The numbers its weight and its input become, where a pass says so; a format may need other bits for them than they have.
  public var weights: QuantizationScheme?
  public var input: InputQuantization?
  /// Of its two low-rank factors, where it is stored so: exact where it follows from the shape, otherwise the rank that all get by default.
  public var rank: Int?
  /// The numbers of which it will get one, where that is not known yet.
  public var candidates: [QuantizationScheme] = []
  /// The numbers that both its factors become, where it is stored as two and a pass quantizes them.
  public var factorNumbers: QuantizationScheme?
  /// ggml's blocks that it is stored in.
  public var blocks: BlockType?
  /// Whether it comes in these blocks, or in a form of another library, and no pass changes it.
  public internal(set) var keepsForm = false
  /// Whether a pass rounds it otherwise than an earlier one had.
  public internal(set) var isRoundedAgain = false
  /// Whether a low-rank branch is added beside it.
  public var hasBranch = false
  /// Whether some pass computes it anew, so that the run must hold all of it as floats.
  public var isRewritten = false

  public enum Role: Sendable, Hashable {
    case embedding, layer, router, head
    /// A linear of a mixer that errors grow in.
    case sensitive
  }

  /// Whether it is selected only by patterns that name it: the embedding, the head, a router, a sensitive linear of a mixer.
  public var isEnd: Bool { role != .layer }

  /// Says that a pass puts it into blocks.
  package mutating func mark(as blocks: BlockType) { (self.blocks, keepsForm, weights, input) = (blocks, false, nil, nil) }

  /// A linear as it is before any pass: it will take the bits it takes now.
  public init(
    name: String, rows: Int, columns: Int, isEnd: Bool = false, role: Role? = nil, scheme: String, storedBits: Int,
    storageType: DType = .bfloat16,
    scaleType: DType? = nil, isAdded: Bool = false
  ) {
    self.name = name
    self.rows = rows
    self.columns = columns
    self.role = role ?? (isEnd ? .head : .layer)
    self.storageType = storageType
    self.scaleType = scaleType ?? storageType
    sourceBits = isAdded ? 0 : storedBits
    self.scheme = scheme
    self.storedBits = storedBits
  }
}

extension [PlannedLinear] {
  /// Columns of the widest linear that is selected, or, without a selector, of the widest layer; an embedding has no inputs.
  package func widestInput(of selector: LayerSelector? = nil) -> Int? {
    filter { linear in
      linear.role != .embedding && (selector?.contains(linear.name, isEnd: linear.isEnd) ?? !linear.isEnd)
    }.map(\.columns).max()
  }
}
