import CompressKit
import Testing

@Suite struct ByteCountTests {
  @Test(arguments: [
    ("4096", 4096), ("1", 1), ("5GB", 5_000_000_000), ("5 gb", 5_000_000_000), ("300MiB", 314_572_800), ("1.5kB", 1500), ("2k", 2048),
    ("2KiB", 2048), ("1M", 1_048_576), ("1g", 1_073_741_824), ("2TB", 2_000_000_000_000), ("1TiB", 1_099_511_627_776), ("12 B", 12),
    ("0.5GiB", 536_870_912), ("1e3", 1000),
  ])
  func reads(text: String, value: Int) throws { #expect(try ByteCount(text, option: "--memory-limit").value == value) }

  @Test(arguments: ["", "GB", "five", "-1", "-5GB", "0", "0.2", "5XB", "5GBB", "nan", "inf", "1e30", "5G B C", "9999999TB"])
  func refuses(text: String) {
    let error = #expect(throws: OptionError.self) { _ = try ByteCount(text, option: "--memory-limit") }
    #expect(error?.option == "--memory-limit" && error?.value == text)
  }

  @Test(arguments: [
    (0, "0 B"), (1, "1 B"), (999, "999 B"), (1000, "1.00 kB"), (1234, "1.23 kB"), (12_345, "12.3 kB"), (123_456, "123 kB"),
    (11_200_000, "11.2 MB"), (5_000_000_000, "5.00 GB"), (7_654_321_000_000, "7.65 TB"), (1_234_000_000_000_000, "1234 TB"),
  ])
  func writes(bytes: Int, text: String) { #expect(ByteCount.text(bytes) == text) }

  @Test(arguments: [
    (1.0, 0, "1"), (0.5, 1, "0.5"), (1.005, 3, "1.005"), (-1.25, 1, "-1.3"), (0.049, 1, "0.0"), (0.05, 1, "0.1"), (123.456, 2, "123.46"),
    (9.999, 2, "10.00"), (0, 3, "0.000"), (0.001, 2, "0.00"), (4, 3, "4.000"), (-0.004, 2, "0.00"), (1e20, 2, "1e+20"), (2.5, 0, "3"),
    (0.07, 2, "0.07"),
  ])
  func rounds(value: Double, places: Int, text: String) { #expect(value.rounded(toPlaces: places) == text) }

  @Test func roundsNothingThatIsNoNumber() {
    #expect(Double.infinity.rounded(toPlaces: 2) == "inf")
    #expect(Double.nan.rounded(toPlaces: 2) == "nan")
  }

  @Test func anUnknownWordGetsTheNearest() {
    let error = OptionError(option: "output.format", value: "plian", known: ["compressed-tensors", "plain"])
    #expect("\(error)" == "output.format: unknown \"plian\"; known: compressed-tensors, plain; did you mean \"plain\"?")
    let other = OptionError(option: "output.format", value: "onnx-graph", known: ["compressed-tensors", "plain"])
    #expect("\(other)" == "output.format: unknown \"onnx-graph\"; known: compressed-tensors, plain")
  }
}
