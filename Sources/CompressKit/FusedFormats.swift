import Formats
import Models
import Passes

/// Linears that runtimes compute as one, and that are in unlike formats.
struct MixedGroup: Sendable, Equatable {
  let block: String
  /// The formats, and how many of the linears are in each.
  let formats: [(name: String, linears: [String])]

  static func == (a: Self, b: Self) -> Bool { a.description == b.description }
}

extension MixedGroup: CustomStringConvertible {
  var description: String {
    let parts = formats.map { format in
      let names = format.linears.prefix(3).joined(separator: ", ") + (format.linears.count > 3 ? ", … (\(format.linears.count))" : "")
      return "\(names) \(format.name)"
    }
    return "\(block): \(parts.joined(separator: "; "))"
  }
}

extension Fusion {
  static let rule =
    "what runtimes compute as one must be in one format: q, k and v; gate and up; all experts of the model, which transformers reads as one format"

  /// The groups that are not in one format.
  ///
  /// - Parameter format: of a linear by its full name, in words; `nil` for one that is not known.
  func mixedGroups(of description: ModelDescription, _ format: (String) -> String?) -> [MixedGroup] {
    func mixed(_ place: String, _ group: [(shown: String, full: String)]) -> MixedGroup? {
      var formats: [(name: String, linears: [String])] = []
      for name in group {
        guard let own = format(name.full) else { continue }
        if let place = formats.firstIndex(where: { $0.name == own }) {
          formats[place].linears.append(name.shown)
        } else {
          formats.append((own, [name.shown]))
        }
      }
      return formats.count > 1 ? MixedGroup(block: place, formats: formats) : nil
    }
    let inBlocks = description.blocks.flatMap { block in
      let groups: [[LinearName]] =
        switch self {
        case .none: []
        case .experts: block.expertProjections
        case .all: block.fusedGroups
        }
      return groups.compactMap { group in
        mixed(String(block.prefix.dropLast()), group.map { ($0.rawValue, block.prefix + $0.rawValue) })
      }
    }
    guard self == .all else { return inBlocks }
    // One of each mixture stands for it; mixtures that are mixed in themselves were found above.
    let ofMixtures = description.blocks.compactMap { block in
      block.routedExperts.first.map { (shown: block.prefix + $0.rawValue, full: block.prefix + $0.rawValue) }
    }
    return inBlocks + (mixed("the mixtures", ofMixtures).map { [$0] } ?? [])
  }

  /// Groups of written modules. Factored linears are left out: no runtime knows them, so none fuses them.
  func mixedGroups(of description: ModelDescription, in modules: [StoredModule]) -> [MixedGroup] {
    let named = Dictionary(modules.filter { $0.factors == nil }.map { ($0.name, Self.text($0.scheme, $0.input)) }) { first, _ in first }
    return mixedGroups(of: description) { named[$0] }
  }

  func mixedGroups(of description: ModelDescription, in linears: [PlannedLinear]) -> [MixedGroup] {
    let named = Dictionary(
      linears.filter { $0.rank == nil }.map { linear in
        let candidates = linear.candidates.map { "\($0)" }.joined(separator: " or ")
        return (linear.name, linear.candidates.isEmpty ? Self.text(linear.weights, linear.input) : candidates)
      }
    ) { first, _ in first }
    return mixedGroups(of: description) { named[$0] }
  }

  private static func text(_ scheme: QuantizationScheme?, _ input: InputQuantization?) -> String {
    guard let scheme else { return "dense" }
    return "\(scheme)" + (input.map { " with \($0) inputs" } ?? "")
  }
}

/// Linears that runtimes compute as one would be, or were, stored in unlike formats.
public struct MixedFormats: Error, Equatable, Sendable, CustomStringConvertible {
  let groups: [MixedGroup]
  let format: String

  public var description: String {
    "\(groups.count) groups of linears would be in unlike formats, and in \(format) \(Fusion.rule); the first is \(groups[0]). "
      + "Give them the same options and leave out all of them or none, or set output.mixed_groups: allow"
  }
}
