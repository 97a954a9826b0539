public import Passes

/// The passes a recipe may name. A value: extended by `adding`, never by registration.
public struct PassCatalog: Sendable {
  public let passes: [any Pass.Type]
  /// What the options of passes do, a sentence each: by pass, and there by the path of the option.
  public let sentences: [String: [String: String]]

  /// - Precondition: no two passes share a name.
  public init(_ passes: [any Pass.Type], sentences: [String: [String: String]] = [:]) {
    precondition(Set(passes.map { $0.name }).count == passes.count, "two passes share a name")
    (self.passes, self.sentences) = (passes, sentences)
  }

  /// - Parameter sentences: what the options of the added passes do.
  public func adding(_ more: any Pass.Type..., sentences: [String: [String: String]] = [:]) -> PassCatalog {
    PassCatalog(passes + more, sentences: self.sentences.merging(sentences) { $1 })
  }

  public var names: [String] { passes.map { $0.name } }

  public subscript(name: String) -> (any Pass.Type)? { passes.first { $0.name == name } }
}
