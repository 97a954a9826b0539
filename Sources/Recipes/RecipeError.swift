/// A mistake in a recipe, and where it is.
public struct RecipeError: Error, Equatable, Sendable, CustomStringConvertible {
  public enum Problem: Equatable, Sendable {
    case syntax(String)
    case unknownPass(String, known: [String])
    case unknownKey(String, known: [String])
    case invalid(String, reason: String)
    case missing(String, reason: String)
  }

  /// The file, or what stands for it.
  public let file: String
  /// One-based; 0 where the problem is the whole recipe's.
  public let line: Int
  public let column: Int
  public let problem: Problem
  /// The nearest valid word, if the mistake looks like a slip.
  public let suggestion: String?

  public var description: String {
    let place = line > 0 ? "\(file):\(line):\(column)" : file
    let words =
      switch problem {
      case .syntax(let reason): reason
      case .unknownPass(let name, let known): "unknown pass \"\(name)\"; known: \(known.joined(separator: ", "))"
      case .unknownKey(let key, let known): "unknown key \"\(key)\"; known here: \(known.joined(separator: ", "))"
      case .invalid(let key, let reason): "\(key): \(reason)"
      case .missing(let key, let reason): "\(key) is missing: \(reason)"
      }
    return "\(place): \(words)" + (suggestion.map { "; did you mean \"\($0)\"?" } ?? "")
  }
}
