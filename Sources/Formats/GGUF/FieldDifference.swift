/// The first field in which two values of a type differ, found by reflection: fields that a type is given later are compared, too.
struct FieldDifference {
  let path: String
  let expected: String
  let found: String

  /// `nil` for values that are alike.
  init?<Value: Equatable>(_ expected: Value, _ found: Value) {
    guard expected != found, let difference = Self.first(expected, found, at: "") else { return nil }
    self = difference
  }

  private init(path: String, expected: String, found: String) {
    self.path = path
    self.expected = expected
    self.found = found
  }

  private static func text(_ value: Any) -> String {
    let mirror = Mirror(reflecting: value)
    guard mirror.displayStyle == .optional else { return "\(value)" }
    return mirror.children.first.map { text($0.value) } ?? "none"
  }

  private static func first(_ expected: Any, _ found: Any, at path: String) -> FieldDifference? {
    let (a, b) = (Mirror(reflecting: expected), Mirror(reflecting: found))
    let (ours, theirs) = (Array(a.children), Array(b.children))
    let leaf = text(expected) == text(found) ? nil : FieldDifference(path: path, expected: text(expected), found: text(found))
    guard !ours.isEmpty, !theirs.isEmpty else { return leaf }
    if a.displayStyle == .collection, ours.count != theirs.count {
      return FieldDifference(path: path + ".count", expected: "\(ours.count)", found: "\(theirs.count)")
    }
    guard ours.map({ $0.label }) == theirs.map({ $0.label }) else { return leaf }
    for (index, (own, other)) in zip(ours, theirs).enumerated() {
      var place = path
      switch a.displayStyle {
      case .collection: place += "[\(index)]"
      case .optional: break
      default: if let label = own.label, !label.hasPrefix(".") { place += path.isEmpty ? label : ".\(label)" }
      }
      if let difference = first(own.value, other.value, at: place) { return difference }
    }
    return leaf
  }
}
