/// What the models of an architecture call their tensors in GGUF files and in Hugging Face checkpoints.
public struct GGUFNames: Sendable {
  /// A tensor of a file, or one of several that it holds together.
  public struct Place: Hashable, Sendable {
    public var name: String
    /// Which entry of the first dimension it is; `nil` for a tensor that is one whole.
    public var expert: Int?
  }

  /// What precedes the number of a block in Hugging Face's names.
  package let prefix: String
  /// Modules at both ends of the model.
  package let ends: [(huggingFace: String, gguf: String)]
  /// Modules of a block. A star stands for the number of an expert: the file holds all experts in one tensor.
  package let modules: [(huggingFace: String, gguf: String)]
  /// Tensors of a block that are no module's weight or bias, by their whole names.
  package let tensors: [(huggingFace: String, gguf: String)]

  init(
    prefix: String = "model.layers.", ends: [(String, String)] = llamaEnds, modules: [(String, String)], tensors: [(String, String)] = []
  ) {
    self.prefix = prefix
    self.ends = ends.map { (huggingFace: $0.0, gguf: $0.1) }
    self.modules = modules.map { (huggingFace: $0.0, gguf: $0.1) }
    self.tensors = tensors.map { (huggingFace: $0.0, gguf: $0.1) }
  }

  static let llamaEnds = [("model.embed_tokens", "token_embd"), ("lm_head", "output"), ("model.norm", "output_norm")]
  private static let suffixes = [".weight", ".bias"]

  /// `model.layers.0.self_attn.q_proj.weight` to `blk.0.attn_q.weight`; `nil` for what GGUF has no name for.
  public func place(of name: String) -> Place? {
    guard name.hasPrefix(prefix), let (block, rest) = Self.split(name.dropFirst(prefix.count)) else {
      return Self.parts(name).flatMap { module, suffix in
        ends.first { $0.huggingFace == module }.map { Place(name: $0.gguf + suffix) }
      }
    }
    if let whole = tensors.first(where: { $0.huggingFace == rest }) { return Place(name: "blk.\(block).\(whole.gguf)") }
    guard let (module, suffix) = Self.parts(String(rest)) else { return nil }
    for (own, other) in modules {
      if own == module { return Place(name: "blk.\(block).\(other)\(suffix)") }
      guard let star = own.firstIndex(of: "*"), module.hasPrefix(own[..<star]) else { continue }
      let expert = module.dropFirst(own[..<star].count)
      guard let (number, end) = Self.split(expert), "." + end == own[own.index(after: star)...] else { continue }
      return Place(name: "blk.\(block).\(other)\(suffix)", expert: number)
    }
    return nil
  }

  /// `blk.0.attn_q.weight` to `model.layers.0.self_attn.q_proj.weight`; `nil` for names that the architecture has not.
  ///
  /// - Parameter expert: the number of the expert where the file's tensor holds all of them.
  public func huggingFace(of name: String, expert: Int = 0) -> String? {
    guard name.hasPrefix("blk."), let (block, rest) = Self.split(name.dropFirst(4)) else {
      return Self.parts(name).flatMap { module, suffix in ends.first { $0.gguf == module }.map { $0.huggingFace + suffix } }
    }
    if let whole = tensors.first(where: { $0.gguf == rest }) { return "\(prefix)\(block).\(whole.huggingFace)" }
    guard let (module, suffix) = Self.parts(String(rest)), let own = modules.first(where: { $0.gguf == module }) else { return nil }
    return "\(prefix)\(block).\(own.huggingFace.replacing("*", with: "\(expert)"))\(suffix)"
  }

  /// Whether a tensor of the file holds those of all experts.
  func isStack(_ name: String) -> Bool {
    guard name.hasPrefix("blk."), let (_, rest) = Self.split(name.dropFirst(4)), let (module, _) = Self.parts(String(rest)) else {
      return false
    }
    return modules.contains { $0.gguf == module && $0.huggingFace.contains("*") }
  }

  /// `attn_q` of `blk.0.attn_q.weight`; `nil` at both ends of the model.
  package static func module(of name: String) -> String? {
    guard name.hasPrefix("blk."), let (_, rest) = split(name.dropFirst(4)) else { return nil }
    return parts(String(rest))?.module
  }

  /// The block of a tensor, by its GGUF name; `nil` at both ends of the model.
  public static func block(of name: String) -> Int? { name.hasPrefix("blk.") ? split(name.dropFirst(4))?.0 : nil }

  private static func parts(_ name: String) -> (module: String, suffix: String)? {
    guard let suffix = suffixes.first(where: name.hasSuffix) else { return nil }
    return (String(name.dropLast(suffix.count)), suffix)
  }

  /// `12.attn_q` into 12 and `attn_q`; a number has one spelling.
  private static func split(_ text: Substring) -> (Int, Substring)? {
    guard let dot = text.firstIndex(of: "."), let number = Int(text[..<dot]), number >= 0, "\(number)" == text[..<dot] else { return nil }
    return (number, text[text.index(after: dot)...])
  }
}
