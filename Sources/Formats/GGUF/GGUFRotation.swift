import CheckpointIO
import Models
import Tensors

/// How a GGUF file says what becomes of rotary frequencies: keys, and tensors of factors.
struct GGUFRotation {
  /// What the frequencies are divided by, where that takes more than one number.
  private(set) var factors = GGUFRotary.Factors()
  private(set) var keys: [(name: String, value: GGUFValue)] = []

  /// Frequencies as they are.
  init() {}

  /// - Throws: `FormatError.cannotStore` for what there is no spelling for.
  init(_ rotary: RotaryDescription, headSize: Int, in architecture: GGUFArchitecture) throws(FormatError) {
    func tensor(_ values: [Float]) -> Tensor { Tensor(values, shape: [values.count], dtype: .float32) }
    if let divisors = rotary.uniformDivisors(headSize: headSize), architecture.readsRotaryFactors || !architecture.readsLongFactors {
      factors.whole = tensor(divisors)
      return
    }
    switch rotary.scaling {
    case .none: break
    case .linear(let factor): keys = [("scaling.type", .string("linear")), ("scaling.factor", .float32(Float(factor)))]
    case .yarn(let factor, let original, let fast, let slow, _, let attention):
      keys = [
        ("scaling.type", .string("yarn")), ("scaling.factor", .float32(Float(factor))),
        ("scaling.original_context_length", .count(Int(original))),
      ]
      let gain = GGUFRotary.yarnGain(factor)
      if abs(attention - gain) > 1e-7 * gain { keys.append(("scaling.attn_factor", .float32(Float(attention / gain)))) }
      keys += [("scaling.yarn_beta_fast", .float32(Float(fast))), ("scaling.yarn_beta_slow", .float32(Float(slow)))]
    case .longrope(let short, let long, let original, let attention) where architecture.readsLongFactors:
      keys = [
        ("scaling.type", .string("longrope")), ("scaling.original_context_length", .count(Int(original))),
        ("scaling.attn_factor", .float32(Float(attention))),
      ]
      factors.short = tensor(short.map { Float($0) })
      factors.long = tensor(long.map { Float($0) })
    default:
      throw .cannotStore(
        module: "the model", format: GGUFFormat.name,
        reason: "its rotary scaling has no spelling in llama.cpp's layout of \(architecture.name), or none here yet")
    }
  }

  var isYarn: Bool { keys.contains { $0.value == .string("yarn") } }

  /// What llama.cpp does otherwise with factors for short and long sequences.
  var remark: String? {
    guard let short = factors.short, let long = factors.long, short.bytes != long.bytes else { return nil }
    return "llama.cpp takes the rotary factors for long sequences wherever the context is long, although a sequence in it may be short"
  }
}

extension RotaryDescription {
  /// What each pair's frequency is divided by, where sequences of all lengths are turned by the same divisors and nothing else is changed.
  func uniformDivisors(headSize: Int) -> [Float]? {
    switch scaling {
    case .llama3(let factor, let low, let high, let originalPositions):
      return LlamaRopeScaling(factor: factor, low: low, high: high, originalPositions: originalPositions)
        .factors(headSize: headSize, base: base)
    case .longrope(let short, let long, _, let attention) where short == long && attention == 1: return short.map { Float($0) }
    default: return nil
    }
  }
}
