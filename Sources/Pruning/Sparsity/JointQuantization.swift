import Models
import Passes
public import Quantization

/// The numbers that the weights SparseGPT keeps become in the same sweep: the options of `gptq` that such a sweep has room for.
///
/// Zero has to be a point of the grid, which it is unless zero points are real.
public struct JointQuantization: Sendable, Codable, Equatable {
  public enum Numbers: String, Sendable, Codable, CaseIterable { case none, int, fp8, mxfp4, mxfp8, nvfp4 }

  public var numbers = Numbers.none
  /// Of an integer code.
  public var bits = 4
  /// Of integers; the others have their own.
  public var groupSize = GroupSize.columns(128)
  public var symmetric = true
  public var scales = ScaleChoice.fullRange

  public init() {}

  private enum CodingKeys: String, CodingKey { case numbers, bits, groupSize = "group_size", symmetric, scales }

  /// The pass that would quantize so on its own; `nil` for none.
  func gptq(on layers: LayerSelector) -> GPTQ? {
    guard let format = NumberFormat(rawValue: numbers.rawValue) else { return nil }
    var pass = GPTQ()
    pass.numbers = format
    if format == .int { (pass.bits, pass.groupSize) = (bits, groupSize) }
    pass.symmetric = symmetric
    pass.scales = scales
    pass.order = .natural
    pass.layers = layers
    return pass
  }

  func validate() throws(InvalidOption) {
    do { try gptq(on: LayerSelector())?.validate() } catch { throw InvalidOption("quantize." + error.option, error.reason) }
  }
}
