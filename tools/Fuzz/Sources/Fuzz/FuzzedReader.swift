import CompressKit
import Foundation

/// A reader under attack: what it does with bytes, and which errors it may throw.
struct FuzzedReader: Sendable {
  let name: String
  let read: @Sendable (Data) throws -> Void
  let allows: @Sendable (any Error) -> Bool

  /// The one that this process attacks; set once, before the first call.
  nonisolated(unsafe) static var current = all[0]

  static let all = containers + tokenizers + texts

  /// Returns where the reader returned, or threw what it may; ends the process otherwise.
  func attack(_ bytes: Data) {
    do { try read(bytes) } catch {
      if !allows(error) { fatalError("\(name): \(type(of: error)): \(error)") }
    }
  }
}
