import Testing

@testable import Tokenizers

@Suite struct ApproximateDecimalTests {
  @Test(
    arguments: [
      ("0", 0), ("-0.0", 0), ("12", 12), ("-2.5e-1", -0.25), ("1E400", nil), ("-12.25E+2", -1225), ("0e999999999999999999999", 0),
      ("1e-400", 0), ("1e-999999999999999999999", 0),
    ] as [(String, Double?)])
  func readsOrdinaryNumbers(_ literal: String, _ value: Double?) {
    #expect(ApproximateDecimal.value(of: literal) == value)
  }

  /// What tokenizers 0.23.3 makes of these scores of a unigram model; none is the nearest double.
  @Test(arguments: [
    ("-2.6886628832898722", -2.688662883289872), ("123456789012345678901", 1.2345678901234567e+20),
    ("123456789012345678901.5", 1.2345678901234567e+20),
  ])
  func roundsTwice(_ literal: String, _ value: Double) {
    #expect(ApproximateDecimal.value(of: literal) == value)
    #expect(Double(literal) != value)
  }

  /// Digits that overflow an integer of 64 bits are left out; one that fits after the point counts.
  @Test(arguments: [
    ("1844674407370955161.51", 1.8446744073709553e+18), ("0.1234567890123456789012", 0.12345678901234568),
    ("18446744073709551616", 1.8446744073709552e+19), ("9.87654321098765432109e-300", 9.876543210987655e-300),
  ])
  func readsLongNumbers(_ literal: String, _ value: Double) {
    #expect(ApproximateDecimal.value(of: literal) == value)
  }
}
