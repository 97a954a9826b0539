public import CheckpointIO
public import Formats
public import Models
public import Passes
public import Recipes

/// What recipes and checkpoints may name: passes, formats, families of models. A value that is handed to everything, so that a third party's are
/// known to every command and every check: extended by `adding`, never by registration.
public struct Toolkit: Sendable {
  public var passes: PassCatalog
  public var formats: FormatCatalog
  public var architectures: ArchitectureCatalog

  public init(
    passes: PassCatalog = .standard, formats: FormatCatalog = .standard, architectures: ArchitectureCatalog = .standard
  ) {
    self.passes = passes
    self.formats = formats
    self.architectures = architectures
  }

  /// What this package ships.
  public static let standard = Toolkit()

  public func adding(_ more: any Pass.Type...) -> Toolkit {
    Toolkit(passes: PassCatalog(passes.passes + more, sentences: passes.sentences), formats: formats, architectures: architectures)
  }

  /// Of two formats that read a checkpoint, the added one does.
  public func adding(_ more: any CheckpointFormat...) -> Toolkit {
    Toolkit(passes: passes, formats: FormatCatalog(more + formats.formats), architectures: architectures)
  }

  /// Of two families with the same `model_type`, the added one answers to it.
  public func adding(_ more: any Architecture.Type...) -> Toolkit {
    var extended = self
    for family in more.reversed() { extended.architectures = extended.architectures.adding(family) }
    return extended
  }

  /// A format by its name, knowing the families of this toolkit.
  public func format(named name: String) -> (any CheckpointFormat)? { formats[name]?.knowing(architectures) }

  /// Opens a checkpoint, compressed or not.
  ///
  /// - Throws: `CheckpointError` where the configuration, the architecture or the tensors do not fit together.
  public func model(_ checkpoint: Checkpoint) throws(CheckpointError) -> Model {
    try Model(checkpoint, architectures: architectures, formats: formats)
  }
}
