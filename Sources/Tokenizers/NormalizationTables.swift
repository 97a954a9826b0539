import Foundation

/// What the normalization forms do to code points, up to Unicode 9.
///
/// Asked of Foundation once, a code point at a time: on longer texts it leaves some marks out of order, and composes code points beyond
/// the first plane as if they were those of the first with the same low bits.
struct NormalizationTables: Sendable {
  static let shared = NormalizationTables()

  private typealias Scalars = [Unicode.Scalar]

  /// Nothing that lies higher decomposes, composes or combines, but tags and selectors, which do neither.
  private static let tableEnd: UInt32 = 0x30000
  /// What may decompose.
  private static let decomposing: [ClosedRange<UInt32>] = [
    0xA0...0x33FF, 0xA69C...0xA7FF, 0xAB5C...0xAB5F, 0xF900...0xFFEF, 0x11080...0x115BF, 0x1D15E...0x1D7FF, 0x1EE00...0x1EEFF,
    0x1F100...0x1F251, 0x2F800...0x2FA1D,
  ]
  private static let syllables: ClosedRange<UInt32> = 0xAC00...0xD7A3
  private static let (leads, vowels, tails): (UInt32, UInt32, UInt32) = (0x1100, 0x1161, 0x11A7)
  private static let (vowelCount, tailCount): (UInt32, UInt32) = (21, 28)

  private var canonical: [Unicode.Scalar: [Unicode.Scalar]] = [:]
  private var compatibility: [Unicode.Scalar: [Unicode.Scalar]] = [:]
  private var composites: [UInt64: Unicode.Scalar] = [:]
  /// One bit a form: whether it may change a code point or one beside it.
  private var unstable = [UInt8](repeating: 0, count: Int(tableEnd))

  private init() {
    for value in Self.decomposing.joined() {
      guard let scalar = Unicode.Scalar(value), Self.isKnown(scalar) else { continue }
      read(scalar)
    }
    for value in Self.syllables { mark(value, [.nfd, .nfkd]) }
    for value in Self.vowels..<Self.vowels + Self.vowelCount { mark(value, [.nfc, .nfkc]) }
    for value in Self.tails + 1..<Self.tails + Self.tailCount { mark(value, [.nfc, .nfkc]) }
    for value in 0x300..<Self.tableEnd {
      if let scalar = Unicode.Scalar(value), combiningClass(scalar) != 0 { mark(value, [.nfc, .nfd, .nfkc, .nfkd]) }
    }
  }

  private mutating func mark(_ value: UInt32, _ forms: [UnicodeForm]) {
    for form in forms { unstable[Int(value)] |= Self.bit(form) }
  }

  private static func bit(_ form: UnicodeForm) -> UInt8 {
    switch form {
    case .nfc: 1
    case .nfd: 2
    case .nfkc: 4
    case .nfkd: 8
    }
  }

  private mutating func read(_ scalar: Unicode.Scalar) {
    let text = String(scalar)
    let parts = Scalars(text.decomposedStringWithCompatibilityMapping.unicodeScalars)
    guard parts != [scalar] else { return }
    compatibility[scalar] = parts
    mark(scalar.value, [.nfkd])
    if Scalars(text.precomposedStringWithCompatibilityMapping.unicodeScalars) != [scalar] { mark(scalar.value, [.nfkc]) }
    let letters = Scalars(text.decomposedStringWithCanonicalMapping.unicodeScalars)
    guard letters != [scalar] else { return }
    canonical[scalar] = letters
    mark(scalar.value, [.nfd])
    guard Scalars(text.precomposedStringWithCanonicalMapping.unicodeScalars) == [scalar] else { return mark(scalar.value, [.nfc]) }
    // What is composed at all is composed of two, the first of which may itself be.
    var first = String.UnicodeScalarView()
    first.append(contentsOf: letters.dropLast())
    let before = Scalars(String(first).precomposedStringWithCanonicalMapping.unicodeScalars)
    guard before.count == 1, let last = letters.last else { return }
    composites[Self.key(before[0], last)] = scalar
    mark(last.value, [.nfc, .nfkc])
  }

  private static func isKnown(_ scalar: Unicode.Scalar) -> Bool {
    guard let age = scalar.properties.age else { return false }
    return age.major <= 9
  }

  private static func key(_ first: Unicode.Scalar, _ second: Unicode.Scalar) -> UInt64 { UInt64(first.value) << 32 | UInt64(second.value) }

  func isStable(_ scalar: Unicode.Scalar, _ form: UnicodeForm) -> Bool {
    scalar.value >= Self.tableEnd || unstable[Int(scalar.value)] & Self.bit(form) == 0
  }

  /// The canonical combining class; 0 for what came after Unicode 9.
  func combiningClass(_ scalar: Unicode.Scalar) -> UInt8 {
    guard scalar.value >= 0x300, scalar.value < Self.tableEnd else { return 0 }
    let combiningClass = scalar.properties.canonicalCombiningClass.rawValue
    return combiningClass == 0 || Self.isKnown(scalar) ? combiningClass : 0
  }

  /// The code points that one stands for; `nil` where it stands for itself.
  func decomposition(of scalar: Unicode.Scalar, isCompatibility: Bool) -> [Unicode.Scalar]? {
    guard scalar.value >= 0xA0 else { return nil }
    if Self.syllables.contains(scalar.value) {
      let index = scalar.value - Self.syllables.lowerBound
      let (lead, rest) = index.quotientAndRemainder(dividingBy: Self.vowelCount * Self.tailCount)
      let (vowel, tail) = rest.quotientAndRemainder(dividingBy: Self.tailCount)
      let values = [Self.leads + lead, Self.vowels + vowel] + (tail > 0 ? [Self.tails + tail] : [])
      return values.compactMap { Unicode.Scalar($0) }
    }
    return isCompatibility ? compatibility[scalar] : canonical[scalar]
  }

  /// The code point that stands for two.
  private func composite(_ first: Unicode.Scalar, _ second: Unicode.Scalar) -> Unicode.Scalar? {
    if first.value >= Self.leads, first.value < Self.leads + 19, second.value >= Self.vowels, second.value < Self.vowels + Self.vowelCount {
      let index = (first.value - Self.leads) * Self.vowelCount + second.value - Self.vowels
      return Unicode.Scalar(Self.syllables.lowerBound + index * Self.tailCount)
    }
    if Self.syllables.contains(first.value), (first.value - Self.syllables.lowerBound) % Self.tailCount == 0, second.value > Self.tails,
      second.value < Self.tails + Self.tailCount
    {
      return Unicode.Scalar(first.value + second.value - Self.tails)
    }
    return composites[Self.key(first, second)]
  }

  /// Canonical composition of what is decomposed and ordered.
  func compose(_ scalars: inout [MarkedScalar]) {
    var kept = 0
    var starter: Int?
    // The class of the last mark that stayed between the starter and here.
    var between: UInt8?
    for index in scalars.indices {
      let next = scalars[index]
      if let starter, between.map({ $0 < next.combiningClass }) ?? true,
        let joined = composite(scalars[starter].value, next.value)
      {
        scalars[starter].value = joined
        continue
      }
      if next.combiningClass == 0 { (starter, between) = (kept, nil) } else { between = next.combiningClass }
      scalars[kept] = next
      kept += 1
    }
    scalars.removeLast(scalars.count - kept)
  }
}
