import CheckpointIO
import Models
import StrictJSON

/// `quantization` of an MLX checkpoint.
struct MLXConfiguration: Sendable {
  static let affineBits: Set = [1, 2, 3, 4, 5, 6, 8]

  enum Mode: String, Sendable { case affine, mxfp4, mxfp8, nvfp4 }

  /// What the numbers of one module are.
  struct Numbers: Sendable, Equatable {
    var mode: Mode
    var bits: Int
    var groupSize: Int
  }

  private let base: Numbers
  /// By full name; `nil` for a module that stays dense.
  private let own: [String: Numbers?]

  // MARK: Reading

  init(_ json: JSON) throws(CheckpointError) {
    base = try Self.numbers(json, "quantization")
    var own: [String: Numbers?] = [:]
    for member in json.members ?? [] {
      if member.value.members != nil { own[member.key] = .some(try Self.numbers(member.value, "quantization.\(member.key)")) }
      if member.value.bool == false { own[member.key] = .some(nil) }
    }
    self.own = own
  }

  private static func numbers(_ json: JSON, _ path: String) throws(CheckpointError) -> Numbers {
    func refusal(_ key: String, _ reason: String) -> CheckpointError {
      .unsupportedOption(option: "\(path).\(key)", value: json[key]?.text() ?? "missing", reason: reason)
    }
    // Older than the other modes, so that files without the word mean this one.
    guard let mode = Mode(rawValue: json["mode"]?.string ?? "affine") else {
      throw refusal("mode", "affine, mxfp4, mxfp8 and nvfp4 are read")
    }
    let usual = MLXConfiguration.usual(mode)
    let (bits, size) = (json["bits"]?.integer ?? usual.bits, json["group_size"]?.integer ?? usual.groupSize)
    let isKnown = mode == .affine ? affineBits.contains(bits) : bits == usual.bits
    guard isKnown else { throw refusal("bits", "not a number of bits of \(mode.rawValue)") }
    guard mode == .affine ? size > 0 : size == usual.groupSize else { throw refusal("group_size", "not a group size of \(mode.rawValue)") }
    return Numbers(mode: mode, bits: bits, groupSize: size)
  }

  private static func usual(_ mode: Mode) -> Numbers {
    switch mode {
    case .affine: Numbers(mode: mode, bits: 4, groupSize: 64)
    case .mxfp4: Numbers(mode: mode, bits: 4, groupSize: 32)
    case .mxfp8: Numbers(mode: mode, bits: 8, groupSize: 32)
    case .nvfp4: Numbers(mode: mode, bits: 4, groupSize: 16)
    }
  }

  /// - Throws: for a module that has scales although the configuration says it is dense.
  func numbers(of module: String) throws(CheckpointError) -> Numbers {
    guard let numbers = own[module] else { return base }
    guard let numbers else {
      throw .unsupportedOption(option: "quantization.\(module)", value: "false", reason: "\(module) is quantized all the same")
    }
    return numbers
  }

  // MARK: Writing

  /// The commonest numbers stand for all; modules that differ or stay dense are named. `nil` where all are dense.
  static func json(for modules: [StoredModule]) throws(FormatError) -> JSON? {
    func numbers(_ module: StoredModule) throws(FormatError) -> Numbers? {
      guard let scheme = module.scheme else { return nil }
      guard let numbers = Numbers(storing: scheme) else {
        throw .cannotStore(module: module.name, format: MLXFormat.name, reason: MLXLayout.noRoom(for: scheme))
      }
      return numbers
    }
    var named: [(name: String, numbers: Numbers?)] = []
    for module in modules { named.append((module.name, try numbers(module))) }
    let all = named.compactMap(\.numbers)
    let distinct = all.reduce(into: [Numbers]()) { if !$0.contains($1) { $0.append($1) } }
    guard let base = distinct.max(by: { a, b in all.count { $0 == a } < all.count { $0 == b } }) else { return nil }
    func members(_ numbers: Numbers) -> [JSON.Member] {
      [
        .init("group_size", .integer(numbers.groupSize)), .init("bits", .integer(numbers.bits)),
        .init("mode", .string(numbers.mode.rawValue)),
      ]
    }
    return .object(
      members(base)
        + named.filter { $0.numbers != base }.map { .init($0.name, $0.numbers.map { .object(members($0)) } ?? .bool(false)) })
  }
}

extension MLXConfiguration.Numbers {
  /// - Returns: `nil` where no mode has such numbers.
  init?(storing scheme: QuantizationScheme) {
    guard case .group(let size) = scheme.granularity else { return nil }
    let mode: MLXConfiguration.Mode
    switch scheme.grid {
    case .integer:
      guard MLXConfiguration.affineBits.contains(scheme.bits), [32, 64, 128].contains(size) else { return nil }
      mode = .affine
    case .float where scheme == .nvfp4: mode = .nvfp4
    case .float where scheme == .mx(bits: scheme.bits): mode = scheme.bits == 4 ? .mxfp4 : .mxfp8
    case .float: return nil
    }
    self.init(mode: mode, bits: scheme.bits, groupSize: size)
  }
}
