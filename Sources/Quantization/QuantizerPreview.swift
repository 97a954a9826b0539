import Models
import Passes
import Tensors

/// What the passes that follow will make of a block's linears, approximated by rounding to nearest with their schemes and scale search:
/// what a transform is judged by.
struct QuantizerPreview {
  private let quantizers: [any WeightQuantizer]

  init(_ following: [any Pass]) { quantizers = following.compactMap { $0 as? any WeightQuantizer } }

  var isEmpty: Bool { quantizers.isEmpty }

  /// - Throws: `InvalidOption` where no pass of `following` quantizes.
  static func check(_ following: [any Pass], because reason: String) throws(InvalidOption) {
    guard QuantizerPreview(following).isEmpty else { return }
    throw InvalidOption("passes", "\(reason); put a pass that quantizes, such as rtn or gptq, after it")
  }

  func quantizer(of name: LinearName, in block: Block) -> (any WeightQuantizer)? {
    quantizers.first { block.selects($0.layers, name) }
  }

  /// Rounds linears that share an input, and says how they will see it; linears that stay as they are stay as they are.
  ///
  /// - Parameter input: size of what they read.
  func round(_ names: [LinearName], of block: inout Block, input: InputMagnitude) throws(InvalidOption) {
    let source = block
    for name in names {
      guard let quantizer = quantizer(of: name, in: source) else { continue }
      block[name].weight = try rounded(source[name].weight.dense(), as: name, sharingWith: names, of: source, input: input)
      let format = quantizer.inputFormat(of: block.fullName(of: name), isEnd: false)
      block[name].inputQuantization = format.quantization?.calibrated(amax: input.maxima.max() ?? 0)
    }
  }

  /// A weight rounded as the linear `name` will be.
  ///
  /// - Parameter names: the linears that share its input, because runtimes fuse them.
  func rounded(
    _ weight: Matrix, as name: LinearName, sharingWith names: [LinearName], of block: Block, input: InputMagnitude
  ) throws(InvalidOption) -> QuantizedMatrix {
    guard let quantizer = quantizer(of: name, in: block) else { preconditionFailure("nothing quantizes \(name)") }
    return RoundToNearest.quantize(
      weight, scheme: try quantizer.storedScheme(of: name, in: block), scales: quantizer.scales,
      importance: quantizer.weighsInputs ? Self.importance(input) : nil,
      globalScale: quantizer.globalScale(of: InputGroup(names.filter { block.selects(quantizer.layers, $0) }), in: block))
  }

  /// Mean squares by their mean over live inputs, dead ones slightly above zero, as GPTQ weighs them.
  private static func importance(_ input: InputMagnitude) -> [Float] {
    let squares = input.meanSquares
    let live = squares.filter { $0 > 0 }
    let mean = live.isEmpty ? 1 : live.reduce(0, +) / Float(live.count)
    return squares.map { $0 / mean + 1e-6 }
  }
}
