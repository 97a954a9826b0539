import CompressKit
import Foundation

/// A mixer for this guide: every channel is an average over the past that fades by a learned share a token, times a gate of its own.
struct FadingAverage: TokenMixer {
  static let kind = "fading average"
  var module = "average"
  var size: Int

  func linearShapes(hiddenSize: Int) -> [LinearName: LinearShape] {
    [
      "average.in_proj": LinearShape(rows: 2 * size, columns: hiddenSize),
      "average.out_proj": LinearShape(rows: hiddenSize, columns: size),
    ]
  }

  var parameters: [MixerParameter] { [MixerParameter("average.fade", shape: [size])] }
  var contextSize: Int { size }
  func stateSize(tokens: Int) -> Int { size }

  func steps(from input: BlockValue, into output: BlockValue, at place: MixerPlace) -> [BlockStep] {
    let (made, averaged) = (place.value("values, gates"), place.value("averaged"))
    return [
      .linears(["average.in_proj"], input, into: [made]), .mix(place.index, [made], into: averaged),
      .linears(["average.out_proj"], averaged, into: [output]),
    ]
  }

  func prepared(_ parts: MixerParts) -> any PreparedMixer {
    Prepared(shares: parts.parameter("average.fade").map { 1 / (1 + exp(-$0)) })
  }

  private struct Prepared: RecurrentMixer {
    struct State: MixerState {
      var average: [Float]
      var count: Int { average.count }
    }

    let shares: [Float]

    func makeState() -> State { State(average: Array(repeating: 0, count: shares.count)) }

    func mix(_ inputs: [Matrix], after state: inout State) -> Matrix {
      let size = shares.count
      var result: [Float] = []
      for token in 0..<inputs[0].rows {
        for channel in 0..<size {
          state.average[channel] += (1 - shares[channel]) * (inputs[0][token, channel] - state.average[channel])
          result.append(state.average[channel] / (1 + exp(-inputs[0][token, size + channel])))
        }
      }
      return Matrix(rows: inputs[0].rows, columns: size, elements: result)
    }
  }
}

/// Llama with the average in place of attention.
enum Averaging: Architecture {
  static let modelTypes = ["averaging"]

  static func describe(_ config: ModelConfig) throws(CheckpointError) -> ModelDescription {
    var model = try config.decode(DecoderKeys.self).description(config)
    let size = model.hiddenSize
    model.eachBlock { _, block in block.mixers = [FadingAverage(size: size)] }
    return model
  }
}
