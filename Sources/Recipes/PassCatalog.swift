public import Passes

/// The passes a recipe may name. A value: extended by `adding`, never by registration.
public struct PassCatalog: Sendable {
  public let passes: [any Pass.Type]

  /// - Precondition: no two passes share a name.
  public init(_ passes: [any Pass.Type]) {
    precondition(Set(passes.map { $0.name }).count == passes.count, "two passes share a name")
    self.passes = passes
  }

  public func adding(_ more: any Pass.Type...) -> PassCatalog { PassCatalog(passes + more) }

  public var names: [String] { passes.map { $0.name } }

  public subscript(name: String) -> (any Pass.Type)? { passes.first { $0.name == name } }
}
