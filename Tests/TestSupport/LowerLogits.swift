public import CompressKit

extension Model {
  /// What the last block makes of every position, [tokens × hidden size], by the parts that calibration and evaluation are made of.
  public func hiddenStates(of tokens: [Int32]) throws -> Matrix {
    var states = try PreparedEmbedding(try embedding())(tokens)
    for index in description.blocks.indices {
      states = try PreparedBlock(try block(index), positions: tokens.count).forward(states)
    }
    return states
  }

  /// What the model is for: logits, or the hidden states of an encoder.
  public func outputs(of tokens: [Int32]) throws -> Matrix {
    description.hasLogits ? try logits(of: tokens) : try hiddenStates(of: tokens)
  }

  /// The logits of every position, [tokens × vocabulary].
  public func logits(of tokens: [Int32]) throws -> Matrix {
    let states = try hiddenStates(of: tokens)
    let head = try head()
    let weight = try (head.linears.first?.value ?? embedding().table).weight
    return head.finishLogits(head.input(states).times(transposed: weight.dense()))
  }
}

/// Tensors that a test may change before a checkpoint is made of them.
public struct EditableCheckpoint {
  public var config: JSON
  public var tensors: [(name: String, tensor: Tensor)]

  /// The tiny model that a configuration describes.
  public init(_ json: String = TinyModel.config, dtype: DType = .float32) throws {
    let config = try ModelConfig(text: json.utf8)
    self.config = config.json
    tensors = try TinyModel.tensors(config, dtype: dtype).map { ($0.name, $0.tensor) }
  }

  public subscript(name: String) -> Tensor? {
    get { tensors.first { $0.name == name }?.tensor }
    set {
      let position = tensors.firstIndex { $0.name == name }
      switch (position, newValue) {
      case (let position?, let tensor?): tensors[position].tensor = tensor
      case (let position?, nil): tensors.remove(at: position)
      case (nil, let tensor?): tensors.append((name, tensor))
      case (nil, nil): break
      }
    }
  }

  public func checkpoint() throws -> Checkpoint {
    Checkpoint(
      directory: Places.root, config: try ModelConfig(text: config.text().utf8),
      tensors: MemoryTensorSource(tensors.map { NamedTensor(name: $0.name, tensor: $0.tensor) }))
  }

  public func model() throws -> Model { try Model(try checkpoint()) }
}

extension [any ModelPart] {
  /// The blocks among them.
  public var decoders: [Block] { compactMap { $0 as? Block } }
}
