public import Models

/// A format that asks what a configuration describes, and so must know families of models, those of a third party included.
public protocol FamilyAwareFormat: CheckpointFormat {
  /// Those that it knows.
  var architectures: ArchitectureCatalog { get set }
}

extension FamilyAwareFormat {
  public func knowing(_ architectures: ArchitectureCatalog) -> any CheckpointFormat {
    var format = self
    format.architectures = architectures
    return format
  }
}
