internal import Passes

/// A word that is not among the possible ones.
public struct OptionError: Error, Equatable, Sendable, CustomStringConvertible {
  public let option: String
  public let value: String
  public let known: [String]

  public init(option: String, value: String, known: [String]) {
    self.option = option
    self.value = value
    self.known = known
  }

  public var description: String {
    let nearest = NearestName.of(value, among: known)
    return "\(option): unknown \"\(value)\"; known: \(known.joined(separator: ", "))" + (nearest.map { "; did you mean \"\($0)\"?" } ?? "")
  }
}

/// A number of bytes as people write it: `5GB`, `300 MiB`, `4096`.
public struct ByteCount: Sendable, Equatable {
  public let value: Int

  private static let units: [(name: String, factor: Double)] = [
    ("kib", 1024), ("mib", 1_048_576), ("gib", 1_073_741_824), ("tib", 1_099_511_627_776), ("kb", 1e3), ("mb", 1e6), ("gb", 1e9),
    ("tb", 1e12),
    ("k", 1024), ("m", 1_048_576), ("g", 1_073_741_824), ("b", 1), ("", 1),
  ]

  /// - Throws: `OptionError` for anything but a positive number with one of the units.
  public init(_ text: String, option: String) throws(OptionError) {
    let lowered = text.lowercased().filter { $0 != " " }
    for unit in Self.units where lowered.hasSuffix(unit.name) {
      guard let number = Double(lowered.dropLast(unit.name.count)) else { continue }
      guard number * unit.factor >= 1, number * unit.factor < 9e18 else { break }
      value = Int(number * unit.factor)
      return
    }
    throw OptionError(option: option, value: text, known: ["a number of bytes", "5GB", "300MiB"])
  }

  /// About three digits and a decimal unit, such as `11.2 MB`.
  public static func text(_ bytes: Int) -> String {
    var (value, unit) = (Double(bytes), "B")
    for next in ["kB", "MB", "GB", "TB"] where value >= 1000 { (value, unit) = (value / 1000, next) }
    let digits = unit == "B" || value >= 100 ? 0 : value >= 10 ? 1 : 2
    return "\(value.rounded(toPlaces: digits)) \(unit)"
  }
}

extension Double {
  /// The number with so many digits after the point, none of them dropped.
  package func rounded(toPlaces places: Int) -> String {
    guard isFinite else { return "\(self)" }
    var scale = 1.0
    for _ in 0..<places { scale *= 10 }
    let scaled = (self * scale).rounded()
    guard scaled.magnitude < 9e15 else { return "\(self)" }
    let digits = String(Int(scaled.magnitude))
    let padded = String(repeating: "0", count: max(0, places + 1 - digits.count)) + digits
    let sign = scaled < 0 ? "-" : ""
    return places == 0 ? sign + padded : sign + padded.dropLast(places) + "." + padded.suffix(places)
  }
}
