public import Models

/// A type of options whose spellings its own cases do not show: what recipes may write there, in words.
public protocol SpelledOption {
  /// Such as `a number of columns, auto or channel`.
  static var spelling: String { get }
}

/// An element of a list of options, such as an override.
public protocol ListedOption: Encodable {
  /// A value whose keys, those of options that are not set included, are what may be said of one.
  static var sample: Self { get }
}

extension LayerSelector: SpelledOption {
  public static var spelling: String { "a pattern, a list of patterns, or { include, exclude, ignore } of such" }
}

extension SparsityPattern: SpelledOption {
  public static var spelling: String { "unstructured, or N:M such as 2:4" }
}
