public import Models
public import Passes

/// Replaces the residual stream by its leading principal directions: norms are folded into what follows them, one orthonormal basis is put on
/// everything that writes to the stream and reads from it, and what falls outside of it is cut off (SliceGPT, Ashkboos et al. 2024).
///
/// The published method has a basis of its own before every norm and matrices in the skip connections that lead from one to the next; no
/// `config.json` has a place for these, so here all norms share one basis, and the result is an ordinary, narrower checkpoint with a head of
/// its own. Deviations: tokens count alike, whatever their length; norms are rescaled to what is left of their inputs.
public struct SliceGPT: Pass, Hashable {
  public static let name = "slicegpt"
  public static let summary = "the residual stream in its leading principal directions (SliceGPT with one shared basis)"

  public enum Bases: String, Sendable, Codable, CaseIterable {
    case shared
    case perBlock = "per_block"
  }

  /// Of the weights in the blocks' linears, what is to go; not used where a size is given.
  public var ratio = 0.2
  public var hidden: Int?
  /// What a size that follows from the ratio is rounded to.
  public var multipleOf = 8
  public var bases = Bases.shared

  public init() {}

  private enum CodingKeys: String, CodingKey { case ratio, hidden, multipleOf = "multiple_of", bases }

  public var changesHiddenBasis: Bool { true }
  public var analyses: [any Analysis] { [analysis] }
  private var analysis: HiddenReductionAnalysis { HiddenReductionAnalysis(choice: .directions(self)) }

  public func validate() throws(InvalidOption) {
    guard ratio > 0, ratio < 1 else { throw InvalidOption("ratio", "\(ratio): between 0 and 1") }
    guard multipleOf > 0 else { throw InvalidOption("multiple_of", "\(multipleOf): a positive number") }
    guard bases == .shared else {
      throw InvalidOption(
        "bases",
        "per_block needs a matrix in both skip connections of every block, for which no config.json has a word and no runtime a place; "
          + "shared can be written", word: "per_block")
    }
  }

  public func reshape(_ description: ModelDescription) throws(InvalidOption) -> ModelDescription { try sized.reshape(description) }

  /// The same size as width pruning takes.
  private var sized: PruneWidth {
    var pass = PruneWidth()
    (pass.ratio, pass.axis, pass.hidden, pass.multipleOf) = (ratio, .hidden, hidden, multipleOf)
    return pass
  }

  public func run(on part: inout any ModelPart, in context: PassContext) throws {
    try context.answer(to: analysis).apply(to: &part, context)
  }
}

extension Pass where Self == SliceGPT {
  public static func sliceGPT(ratio: Double = 0.2) -> SliceGPT {
    var pass = SliceGPT()
    pass.ratio = ratio
    return pass
  }
}
