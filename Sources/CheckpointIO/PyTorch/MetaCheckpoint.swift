internal import Foundation
internal import StrictJSON
internal import Tensors

/// A model in the layout that Meta and Mistral publish it in (`consolidated.00.pth` or `consolidated.safetensors` beside `params.json`), seen as
/// a Hugging Face checkpoint: its names, and rows of queries and keys in the order that halves of heads are rotated in.
///
/// The names, the keys of `params.json` and their defaults are those of Meta's reference implementation.
struct MetaCheckpoint: TensorSource {
  static let parametersName = "params.json"
  let names: [String]
  private let base: any TensorSource
  private let stored: [String: String]
  private let parameters: Parameters

  private struct Parameters: Decodable {
    var dim, n_layers, n_heads: Int
    var n_kv_heads, head_dim, sliding_window, max_seq_len: Int?
    var norm_eps, rope_theta: Double?
    var use_scaled_rope: Bool?
    var headSize: Int { head_dim ?? dim / n_heads }
    var keyValueHeads: Int { n_kv_heads ?? n_heads }
  }

  private static let ends = ["tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"]
  private static let inLayer = [
    "attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj", "attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
  ]

  /// Whether tensors have Meta's names.
  static func recognizes(_ tensors: any TensorSource) -> Bool {
    tensors.info("tok_embeddings.weight") != nil && tensors.info("layers.0.attention.wq.weight") != nil
  }

  /// - Parameter directory: holds `params.json`.
  /// - Throws: `CheckpointError` for parameters that are missing or make no sense, and for tensors of unknown names.
  init(_ base: any TensorSource, in directory: URL) throws(CheckpointError) {
    let url = directory.appending(path: Self.parametersName)
    let path = url.path
    guard let data = try? Data(contentsOf: url) else {
      throw .unreadable(
        path: directory.path,
        reason: "its weights have the names of Meta's own layout, which needs params.json beside them (or config.json, once converted)")
    }
    do { parameters = try JSONDecoder().decode(Parameters.self, from: data) } catch {
      throw .malformedConfiguration(path: path, reason: "dim, n_layers and n_heads are needed, whole numbers all")
    }
    let (width, heads) = (parameters.dim, parameters.n_heads)
    guard (1..<1 << 28).contains(width), (1...width).contains(heads), (1...heads).contains(parameters.keyValueHeads),
      (1..<1 << 20).contains(parameters.headSize), parameters.headSize % 2 == 0
    else { throw .malformedConfiguration(path: path, reason: "its sizes are no model's") }
    if parameters.use_scaled_rope == true {
      throw .unsupportedOption(
        option: "use_scaled_rope", value: "true",
        reason:
          "params.json does not say by how much; Llama 3.1 and 3.2 differ. Convert the model with transformers' convert_llama_weights_to_hf.py"
      )
    }
    var (names, stored): ([String], [String: String]) = ([], [:])
    for name in base.names where name != "rope.freqs" {
      guard let own = Self.huggingFace(name) else {
        throw .unreadable(path: directory.path, reason: "tensor \"\(name)\" has no place in a model of Meta's layout that is known here")
      }
      names.append(own)
      stored[own] = name
    }
    (self.base, self.names, self.stored) = (base, names, stored)
  }

  private static func huggingFace(_ name: String) -> String? {
    guard name.hasSuffix(".weight") else { return nil }
    let module = name.dropLast(".weight".count)
    if let end = ends[String(module)] { return end + ".weight" }
    let parts = module.split(separator: ".", maxSplits: 2)
    guard parts.count == 3, parts[0] == "layers", let number = Int(parts[1]), let own = inLayer[String(parts[2])] else { return nil }
    return "model.layers.\(number).\(own).weight"
  }

  var files: [URL] { base.files }
  var remarks: [String] { base.remarks }

  func info(_ name: String) -> TensorInfo? { stored[name].flatMap { base.info($0) } }

  func tensor(_ name: String) throws(CheckpointError) -> Tensor {
    guard let own = stored[name] else { throw .missingTensor(name: name) }
    let tensor = try base.tensor(own)
    let heads =
      own.hasSuffix("attention.wq.weight") ? parameters.n_heads : own.hasSuffix("attention.wk.weight") ? parameters.keyValueHeads : nil
    guard let heads, let rows = tensor.shape.first else { return tensor }
    guard tensor.shape.count == 2, rows == heads * parameters.headSize else {
      throw .wrongShape(tensor: own, expected: [heads * parameters.headSize, parameters.dim], found: tensor.shape)
    }
    return tensor.rows(inOrder: GGUFRows.halves(rows: rows, heads: heads))
  }

  func config() throws(CheckpointError) -> ModelConfig {
    func rows(_ name: String) throws(CheckpointError) -> Int {
      guard let info = info(name), info.shape.count == 2 else { throw .missingTensor(name: stored[name] ?? name) }
      return info.shape[0]
    }
    let dtypes: [DType: String] = [.float16: "float16", .bfloat16: "bfloat16", .float32: "float32"]
    var members: [JSON.Member] = [
      .init("architectures", .array([.string(parameters.sliding_window == nil ? "LlamaForCausalLM" : "MistralForCausalLM")])),
      .init("model_type", .string(parameters.sliding_window == nil ? "llama" : "mistral")),
      .init("vocab_size", .integer(try rows("model.embed_tokens.weight"))), .init("hidden_size", .integer(parameters.dim)),
      .init("intermediate_size", .integer(try rows("model.layers.0.mlp.gate_proj.weight"))),
      .init("num_hidden_layers", .integer(parameters.n_layers)), .init("num_attention_heads", .integer(parameters.n_heads)),
      .init("num_key_value_heads", .integer(parameters.keyValueHeads)), .init("head_dim", .integer(parameters.headSize)),
      .init("hidden_act", .string("silu")), .init("rms_norm_eps", .double(parameters.norm_eps ?? 1e-5)),
      .init("rope_theta", .double(parameters.rope_theta ?? 10_000)), .init("attention_bias", .bool(false)), .init("mlp_bias", .bool(false)),
      .init("tie_word_embeddings", .bool(info("lm_head.weight") == nil)),
    ]
    if let window = parameters.sliding_window { members.append(.init("sliding_window", .integer(window))) }
    if let length = parameters.max_seq_len { members.append(.init("max_position_embeddings", .integer(length))) }
    if let dtype = info("model.embed_tokens.weight").flatMap({ dtypes[$0.dtype] }) { members.append(.init("torch_dtype", .string(dtype))) }
    return try ModelConfig(text: JSON.object(members).text().utf8, path: Self.parametersName)
  }
}
