import CheckpointIO
import StrictJSON

/// The keys of `config.json` that models with Mamba-2 layers share.
struct MambaKeys: Decodable {
  var mamba_n_heads, mamba_n_groups, mamba_d_state, mamba_d_conv, mamba_expand, mamba_d_ssm: Int?
  var mamba_conv_bias, mamba_proj_bias: Bool?

  /// - Parameters:
  ///   - hiddenSize: of the model.
  ///   - defaults: inner size is `mamba_expand` · hidden size unless `mamba_d_ssm` says otherwise.
  /// - Throws: `CheckpointError.unsupportedOption` for heads that do not divide the inner size.
  func mixer(hiddenSize: Int, innerSize: Int?, epsilon: Float, _ config: ModelConfig) throws(CheckpointError) -> Mamba2 {
    try config.checkMixerActivation("hidden_act")
    let inner = innerSize ?? (mamba_expand ?? 2) * hiddenSize
    let heads = mamba_n_heads ?? 128
    guard heads > 0, inner > 0, inner % heads == 0 else {
      throw .unsupportedOption(option: "mamba_n_heads", value: "\(heads)", reason: "it does not divide the inner size of \(inner)")
    }
    let headSize = config.json["mamba_d_head"]?.integer ?? inner / heads
    guard headSize == inner / heads else {
      throw .unsupportedOption(
        option: "mamba_d_head", value: "\(headSize)", reason: "\(heads) heads of an inner size of \(inner) have \(inner / heads)")
    }
    return Mamba2(
      heads: heads, headSize: headSize, groups: mamba_n_groups ?? 1, stateSize: mamba_d_state ?? 256, taps: mamba_d_conv ?? 4,
      epsilon: epsilon, hasConvolutionBias: mamba_conv_bias ?? true, hasInputBias: mamba_proj_bias ?? false,
      steps: try Self.stepLimits(config))
  }

  /// `time_step_limit`: two numbers, of which the second may be infinite, in any of the spellings in use.
  private static func stepLimits(_ config: ModelConfig) throws(CheckpointError) -> ClosedRange<Float> {
    guard let limits = config.json["time_step_limit"], !limits.isNull else { return 0 ... .infinity }
    func number(_ json: JSON) -> Float? {
      if let number = json.double { return Float(number) }
      return (json["__float__"]?.string ?? json.string).flatMap(Float.init)
    }
    let bounds = (limits.elements ?? []).compactMap(number)
    guard bounds.count == 2, bounds[0] >= 0, bounds[0] <= bounds[1] else {
      throw .unsupportedOption(
        option: "time_step_limit", value: limits.text(), reason: "it should be two numbers, not below zero, in ascending order")
    }
    return bounds[0]...bounds[1]
  }
}
