/// A decimal number as the reference reads it, which is often not the nearest one: the digits as an integer, rounded, then times or by a
/// power of ten, rounded again.
///
/// A unigram model adds scores up, and two cuts of a text may consist of the same tokens in another order; then the last bit of each score
/// decides. Source: `de.rs` of serde-rs/json without its feature `float_roundtrip`.
enum ApproximateDecimal {
  private static let powers: [Double] = (0...308).compactMap { Double("1e\($0)") }

  /// - Parameter literal: a number of JSON.
  /// - Returns: `nil` where the value is beyond all doubles.
  static func value(of literal: String) -> Double? {
    var text = literal.utf8[...]
    let isNegative = text.first == UInt8(ascii: "-")
    if isNegative { text.removeFirst() }
    var significand: UInt64 = 0
    var exponent = 0
    var isFull = false
    var isFraction = false
    while let byte = text.first, byte != UInt8(ascii: "e"), byte != UInt8(ascii: "E") {
      text.removeFirst()
      guard byte != UInt8(ascii: ".") else {
        isFraction = true
        // Digits after the point are tried anew.
        isFull = false
        continue
      }
      let (tens, overflows) = significand.multipliedReportingOverflow(by: 10)
      let (sum, carries) = tens.addingReportingOverflow(UInt64(byte &- UInt8(ascii: "0")))
      isFull = isFull || overflows || carries
      if !isFull { significand = sum }
      // A digit that no longer fits counts for its place before the point, and for nothing after it.
      if isFraction != isFull { exponent += isFraction ? -1 : 1 }
    }
    if let declared = text.dropFirst().isEmpty ? 0 : Int(Substring(text.dropFirst())) {
      (exponent, _) = exponent.addingReportingOverflow(declared)
    } else {
      exponent = text.dropFirst().first == UInt8(ascii: "-") ? -1_000_000 : 1_000_000
    }
    guard let magnitude = scaled(Double(significand), exponent) else { return nil }
    return isNegative ? -magnitude : magnitude
  }

  private static func scaled(_ significand: Double, _ exponent: Int) -> Double? {
    var value = significand
    var exponent = exponent
    while abs(exponent) > 308 {
      if value == 0 { return 0 }
      if exponent > 0 { return nil }
      value /= 1e308
      exponent += 308
    }
    value = exponent < 0 ? value / powers[-exponent] : value * powers[exponent]
    return value.isFinite ? value : nil
  }
}
