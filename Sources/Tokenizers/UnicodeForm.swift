/// Unicode's normalization forms (UAX 15), as the reference's tables know them: those of Unicode 9.
enum UnicodeForm: Normalizer {
  case nfc, nfd, nfkc, nfkd

  private var composes: Bool { self == .nfc || self == .nfkc }
  private var isCompatibility: Bool { self == .nfkc || self == .nfkd }

  func normalize(_ text: inout NormalizedText) {
    guard let first = text.bytes.firstIndex(where: { $0 >= 0x80 }) else { return }
    let tables = NormalizationTables.shared
    var result: Bytes = []
    var copied = 0
    var start = first
    var scalars: [MarkedScalar] = []
    while start < text.bytes.count {
      var end = start
      while end < text.bytes.count, text.bytes[end] >= 0x80 { end += 1 }
      if !isStable(text.bytes.span.extracting(start..<end), tables) {
        // The character before may take a mark.
        let begin = max(copied, start - 1)
        result += text.bytes[copied..<begin]
        decompose(text.bytes.span.extracting(begin..<end), tables, into: &scalars)
        if composes { tables.compose(&scalars) }
        for scalar in scalars { result.append(contentsOf: scalar.value.utf8) }
        copied = end
      }
      start = end
      while start < text.bytes.count, text.bytes[start] < 0x80 { start += 1 }
    }
    guard copied > 0 else { return }
    result += text.bytes[copied...]
    text.bytes = result
  }

  /// Whether the form leaves every code point as it is, whatever stands beside it.
  private func isStable(_ text: Span<UInt8>, _ tables: NormalizationTables) -> Bool {
    var position = 0
    while position < text.count {
      let (scalar, width) = text.scalar(at: position)
      if !tables.isStable(scalar, self) { return false }
      position += width
    }
    return true
  }

  /// The full decomposition, with marks in the order of their classes.
  private func decompose(_ text: Span<UInt8>, _ tables: NormalizationTables, into scalars: inout [MarkedScalar]) {
    scalars.removeAll(keepingCapacity: true)
    var position = 0
    // Where the marks begin that have yet to be ordered.
    var marks = 0
    func append(_ scalar: Unicode.Scalar, to scalars: inout [MarkedScalar]) {
      let combiningClass = tables.combiningClass(scalar)
      if combiningClass == 0 {
        Self.order(&scalars, from: marks)
        marks = scalars.count + 1
      }
      scalars.append(MarkedScalar(value: scalar, combiningClass: combiningClass))
    }
    while position < text.count {
      let (scalar, width) = text.scalar(at: position)
      position += width
      if let parts = tables.decomposition(of: scalar, isCompatibility: isCompatibility) {
        for part in parts { append(part, to: &scalars) }
      } else {
        append(scalar, to: &scalars)
      }
    }
    Self.order(&scalars, from: marks)
  }

  /// Sorts the marks from `start` on by their classes; those of one class stay in order.
  private static func order(_ scalars: inout [MarkedScalar], from start: Int) {
    guard start + 1 < scalars.count else { return }
    guard (start + 1..<scalars.count).contains(where: { scalars[$0 - 1].combiningClass > scalars[$0].combiningClass }) else { return }
    let marks = scalars[start...].enumerated().sorted {
      ($0.element.combiningClass, $0.offset) < ($1.element.combiningClass, $1.offset)
    }
    scalars.replaceSubrange(start..., with: marks.map(\.element))
  }
}

/// A code point and its canonical combining class.
struct MarkedScalar {
  var value: Unicode.Scalar
  let combiningClass: UInt8
}
