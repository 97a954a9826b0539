internal import Foundation
internal import Tensors

/// Where KerasHub keeps a tensor of a Hugging Face checkpoint, and how the one is turned into the other.
struct KerasHubPlace: Sendable, Equatable {
  /// What two dimensions of the Keras variable make one of the matrix.
  enum Join: Sendable, Equatable {
    case nothing
    /// The rows are heads × head size.
    case rows(heads: Int)
    /// The columns are.
    case columns(heads: Int)
  }

  /// In the Hugging Face checkpoint.
  var name: String
  /// In the file of Keras.
  var path: String
  /// For every dimension of the tensor, joined ones apart, the dimension of the variable.
  var axes: [Int]
  var join = Join.nothing

  /// The shape in the Hugging Face checkpoint; `nil` for a variable of another kind.
  func shape(of variable: [Int]) -> [Int]? {
    guard variable.count == axes.count else { return nil }
    let split = axes.map { variable[$0] }
    switch join {
    case .nothing: return split
    case .rows(let heads): return split[0] == heads ? [split[0] * split[1]] + split[2...] : nil
    case .columns(let heads): return split[1] == heads ? [split[0], split[1] * split[2]] : nil
    }
  }

  /// - Precondition: `shape(of:)` has one for the variable's.
  func tensor(from variable: Tensor) -> Tensor {
    guard let shape = shape(of: variable.shape) else { preconditionFailure("\(path) has the shape \(variable.shape)") }
    return permuted(variable, axes.map { variable.shape[$0] }, by: axes, of: variable.shape, to: shape)
  }

  /// - Returns: `nil` for a tensor that does not divide into the heads.
  func variable(from tensor: Tensor) -> Tensor? {
    var split = tensor.shape
    switch join {
    case .nothing: break
    case .rows(let heads):
      guard let rows = split.first, rows % heads == 0 else { return nil }
      split = [heads, rows / heads] + split.dropFirst()
    case .columns(let heads):
      guard split.count == 2, split[1] % heads == 0 else { return nil }
      split = [split[0], heads, split[1] / heads]
    }
    guard split.count == axes.count else { return nil }
    let inverse = axes.indices.map { axis in axes.firstIndex(of: axis)! }
    let shape = inverse.map { split[$0] }
    return permuted(tensor, shape, by: inverse, of: split, to: shape)
  }

  private func permuted(_ tensor: Tensor, _ split: [Int], by axes: [Int], of source: [Int], to shape: [Int]) -> Tensor {
    let strides = source.indices.map { source[($0 + 1)...].reduce(1, *) }
    let view = StridedView(shape: split, strides: axes.map { strides[$0] })
    return Tensor(dtype: tensor.dtype, shape: shape, bytes: view.gathered(from: tensor.bytes, elementSize: tensor.dtype.bitCount / 8))
  }
}

extension KerasHubPreset {
  /// All tensors of the model.
  ///
  /// - Parameter isTied: whether the head is the embedding.
  func places(isTied: Bool) -> [KerasHubPlace] {
    var places = [KerasHubPlace(name: "model.embed_tokens.weight", path: "layers/reversible_embedding/vars/0", axes: [0, 1])]
    for layer in 0..<layers { places += family == .gemma ? gemmaBlock(layer) : llamaBlock(layer) }
    places.append(KerasHubPlace(name: "model.norm.weight", path: "layers/\(family.norm)/vars/0", axes: [0]))
    if !isTied { places.append(KerasHubPlace(name: "lm_head.weight", path: "layers/reversible_embedding/vars/1", axes: [1, 0])) }
    return places
  }

  private func llamaBlock(_ layer: Int) -> [KerasHubPlace] {
    let (own, keras) = ("model.layers.\(layer).", "layers/\(family.block)" + (layer == 0 ? "" : "_\(layer)") + "/")
    func place(_ name: String, _ path: String, _ axes: [Int], _ join: KerasHubPlace.Join = .nothing, variable: Int = 0) -> KerasHubPlace {
      KerasHubPlace(name: own + name, path: keras + "\(path)/vars/\(variable)", axes: axes, join: join)
    }
    var places = [
      place("input_layernorm.weight", "_self_attention_layernorm", [0]),
      place("post_attention_layernorm.weight", "_feedforward_layernorm", [0]),
      place("self_attn.o_proj.weight", "_self_attention_layer/_output_dense", [2, 0, 1], .columns(heads: heads)),
      place("mlp.gate_proj.weight", "_feedforward_gate_dense", [1, 0]),
      place("mlp.up_proj.weight", "_feedforward_intermediate_dense", [1, 0]),
      place("mlp.down_proj.weight", "_feedforward_output_dense", [1, 0]),
    ]
    for (name, path, heads) in [("q", "query", heads), ("k", "key", keyValueHeads), ("v", "value", keyValueHeads)] {
      let dense = "_self_attention_layer/_\(path)_dense"
      places.append(place("self_attn.\(name)_proj.weight", dense, [1, 2, 0], .rows(heads: heads)))
      if family == .qwen { places.append(place("self_attn.\(name)_proj.bias", dense, [0, 1], .rows(heads: heads), variable: 1)) }
    }
    return places
  }

  private func gemmaBlock(_ layer: Int) -> [KerasHubPlace] {
    let (own, keras) = ("model.layers.\(layer).", "layers/\(family.block)" + (layer == 0 ? "" : "_\(layer)") + "/")
    func place(_ name: String, _ path: String, _ axes: [Int], _ join: KerasHubPlace.Join = .nothing) -> KerasHubPlace {
      KerasHubPlace(name: own + name + ".weight", path: keras + path + "/vars/0", axes: axes, join: join)
    }
    var places = [
      place("input_layernorm", "pre_attention_norm", [0]),
      place(hasPostNorms ? "pre_feedforward_layernorm" : "post_attention_layernorm", "pre_ffw_norm", [0]),
      place("self_attn.q_proj", "attention/query_dense", [0, 2, 1], .rows(heads: heads)),
      place("self_attn.k_proj", "attention/key_dense", [0, 2, 1], .rows(heads: keyValueHeads)),
      place("self_attn.v_proj", "attention/value_dense", [0, 2, 1], .rows(heads: keyValueHeads)),
      place("self_attn.o_proj", "attention/output_dense", [2, 0, 1], .columns(heads: heads)), place("mlp.gate_proj", "gating_ffw", [1, 0]),
      place("mlp.up_proj", "gating_ffw_2", [1, 0]), place("mlp.down_proj", "ffw_linear", [1, 0]),
    ]
    if hasPostNorms {
      places += [place("post_attention_layernorm", "post_attention_norm", [0]), place("post_feedforward_layernorm", "post_ffw_norm", [0])]
    }
    return places
  }
}
