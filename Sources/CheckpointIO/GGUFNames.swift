/// What Llama-like models call their tensors in GGUF files and in Hugging Face checkpoints.
public enum GGUFNames {
  private static let ends = [
    ("model.embed_tokens", "token_embd"), ("lm_head", "output"), ("model.norm", "output_norm"),
  ]
  private static let inBlock = [
    ("input_layernorm", "attn_norm"), ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"), ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"), ("self_attn.q_norm", "attn_q_norm"), ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"), ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"),
  ]
  private static let suffixes = [".weight", ".bias"]

  /// `model.layers.0.self_attn.q_proj.weight` to `blk.0.attn_q.weight`; `nil` for what GGUF has no name for.
  public static func gguf(of name: String) -> String? {
    translate(name, from: "model.layers.", to: "blk.", ends: ends, inBlock: inBlock)
  }

  /// `blk.0.attn_q.weight` to `model.layers.0.self_attn.q_proj.weight`.
  public static func huggingFace(of name: String) -> String? {
    translate(name, from: "blk.", to: "model.layers.", ends: ends.map { ($1, $0) }, inBlock: inBlock.map { ($1, $0) })
  }

  private static func translate(
    _ name: String, from prefix: String, to other: String, ends: [(String, String)], inBlock: [(String, String)]
  ) -> String? {
    guard let suffix = suffixes.first(where: name.hasSuffix) else { return nil }
    let module = String(name.dropLast(suffix.count))
    if let end = ends.first(where: { $0.0 == module }) { return end.1 + suffix }
    guard module.hasPrefix(prefix), let (number, rest) = split(module.dropFirst(prefix.count)) else { return nil }
    return inBlock.first { $0.0 == rest }.map { "\(other)\(number).\($0.1)\(suffix)" }
  }

  /// `12.attn_q` into 12 and `attn_q`; a number has one spelling.
  private static func split(_ text: Substring) -> (Int, Substring)? {
    guard let dot = text.firstIndex(of: "."), let number = Int(text[..<dot]), number >= 0, "\(number)" == text[..<dot] else { return nil }
    return (number, text[text.index(after: dot)...])
  }

  /// The block of a tensor, by its GGUF name; `nil` at both ends of the model.
  public static func block(of name: String) -> Int? { name.hasPrefix("blk.") ? split(name.dropFirst(4))?.0 : nil }

  // MARK: Rotary order

  /// Whether llama.cpp rotates neighbouring rows of queries and keys in this architecture, where Hugging Face rotates halves of a head.
  public static func rotatesNeighbours(_ architecture: String) -> Bool { architecture == "llama" }

  /// Rows of a query or key projection in the order GGUF stores them: row 2i + s of a head is row s · d/2 + i of the same head.
  public static func rotaryOrder(rows: Int, heads: Int) -> [Int] {
    let (size, half) = (rows / heads, rows / heads / 2)
    return (0..<rows).map { row in row / size * size + row % 2 * half + row % size / 2 }
  }

  /// The inverse of `rotaryOrder`.
  public static func halvesOrder(rows: Int, heads: Int) -> [Int] {
    var order = [Int](repeating: 0, count: rows)
    for (to, from) in rotaryOrder(rows: rows, heads: heads).enumerated() { order[from] = to }
    return order
  }
}
