import CompressKit
import Synchronization
import TestSupport

/// A sink that keeps what it is given.
actor Shelf: PartSink {
  private(set) var parts: [any ModelPart] = []
  func append(_ part: any ModelPart) { parts.append(part) }

  /// Weights by full name.
  var weights: [String: Matrix] {
    var weights: [String: Matrix] = [:]
    for part in parts { for (name, linear) in part.linears { weights[part.fullName(of: name)] = linear.weight.dense() } }
    return weights
  }
}

final class Recorder: PipelineObserver {
  private let seen = Mutex([PipelineEvent]())
  func observe(_ event: PipelineEvent) { seen.withLock { $0.append(event) } }
  var events: [PipelineEvent] { seen.withLock { $0 } }
}

/// All inputs a group was given, row after row.
struct Seen: Statistic, Equatable {
  var input: Matrix
  init(features: Int) { input = Matrix(rows: 0, columns: features) }
  mutating func update(_ input: Matrix) { self.input = Matrix(stacking: [self.input, input]) }
  mutating func merge(_ other: Seen) { update(other.input) }
}

/// Multiplies all selected weights.
struct Scaling: Pass {
  static let name = "scaling"
  var factor: Float = 2
  var layers = LayerSelector()
  var usesCalibration: Bool { false }

  func run(on part: inout any ModelPart, in context: PassContext) throws {
    for name in part.groups(layers).flatMap(\.linears) {
      let old = part[name].weight.dense()
      part[name].weight = Matrix(rows: old.rows, columns: old.columns, elements: old.elements.map { $0 * factor })
      context.record(name, in: part, ["factor": Double(factor)], scheme: "times \(factor)")
    }
  }
}

/// Reads the inputs of every selected group and changes nothing.
struct Looking: Pass {
  static let name = "looking"
  var layers = LayerSelector()

  func run(on part: inout any ModelPart, in context: PassContext) throws {
    for group in part.groups(layers) {
      let norms = try context.statistic(InputNorm.self, of: group, in: part).values
      for name in group.linears { context.record(name, in: part, ["input": Double(norms.reduce(0, +))]) }
    }
  }
}

enum Wide {
  /// A model whose widths are multiples of the default group size.
  static let config = """
    {"model_type":"llama","vocab_size":64,"hidden_size":128,"intermediate_size":256,"num_hidden_layers":2,"num_attention_heads":4,
     "num_key_value_heads":2,"rms_norm_eps":1e-05,"max_position_embeddings":64,"tie_word_embeddings":false}
    """
}
