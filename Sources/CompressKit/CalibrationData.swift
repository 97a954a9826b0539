public import CheckpointIO
public import Foundation
public import Recipes
internal import Models
internal import Passes
internal import Tensors
internal import Tokenizers

extension CalibrationSource {
  /// What calibration runs on.
  public struct Data: Sendable, Equatable {
    public var sequences: [[Int32]] = []
    /// The names of the files.
    public var files = ""
    /// What was asked for and could not be had.
    public var remarks: [String] = []
  }

  /// Reads the texts or tokens and makes sequences of them.
  ///
  /// Every file gives the share of the sequences that its weight says, in the order of the list. Reading stops where these are filled; where
  /// the order is drawn, it is drawn among what lies in the first `poolBytes` of the file, and a remark says if there was more.
  ///
  /// - Parameter name: what the recipe calls the sequences.
  /// - Throws: `CheckpointError` for a file that cannot be read, or data that fills no sequence; `TokenizerError`.
  public func read(for checkpoint: Checkpoint, bases: [URL], seed: UInt64, as name: String = "calibration") throws -> Data {
    let input = try TokenSource(text: text, tokens: tokens, bases: bases)
    var data = Data(files: input.name)
    var held: Int?
    if input.isText {
      let tokenizer = try checkpoint.tokenizer()
      if packing == .concatenate, !tokenizer.prefix.isEmpty {
        guard tokenizer.prefix.count < length else {
          throw InvalidOption("\(name).length", "\(length): the tokenizer alone puts \(tokenizer.prefix.count) tokens before a text")
        }
        let beginning = try tokenizer.decode(tokenizer.prefix, skippingSpecialTokens: false)
        data.remarks.append(
          "\(name): \(beginning) stands before every sequence, as the tokenizer puts it before every text"
        )
      }
      let shares = Self.shares(of: sequences, input.texts.map(\.source.weight))
      for (index, (place, source)) in input.texts.enumerated() {
        let order = shuffle ? KeyedRandomness(seed: seed, key: "calibration text \(index)") : nil
        let (found, isPart) = try sequences(of: source, at: place, tokenizer, count: shares[index], order: order)
        if isPart {
          data.remarks.append(
            "\(place.lastPathComponent): \(name) sequences were drawn from its first \(ByteCount.text(poolBytes)), not from all of it")
        }
        if found.count < shares[index] {
          data.remarks.append(
            "\(place.lastPathComponent) holds \(found.count) of \(shares[index]) \(name) sequences of \(length) tokens")
        }
        data.sequences += found
      }
      if shuffle, input.texts.count > 1 {
        var order = KeyedRandomness(seed: seed, key: "calibration order")
        data.sequences.shuffle(using: &order)
      }
    } else {
      let stored = try TokenFile(contentsOf: input.file, limit: shuffle ? .max : sequences.multiplied(by: length))
      held = stored.count
      var windows = windows(of: stored.tokens, after: [])
      if shuffle {
        var order = KeyedRandomness(seed: seed, key: "calibration tokens")
        windows.shuffle(using: &order)
      }
      data.sequences = Array(windows.prefix(sequences))
      if data.sequences.count < sequences {
        data.remarks.append("\(input.name) holds \(data.sequences.count) of \(sequences) \(name) sequences of \(length) tokens")
      }
    }
    guard !data.sequences.isEmpty else {
      let tokens = held.map { "\($0) tokens" } ?? "tokens"
      throw CheckpointError.unreadable(
        path: input.file.path,
        reason: "its \(tokens) do not fill one \(name) sequence of \(length); give it more text, or make \(name).length smaller")
    }
    return data
  }

  /// What is to be said of sequences that are longer than the model was made for.
  func remark(on description: ModelDescription, as name: String) -> String? {
    guard let limit = description.maximumPositions, length > limit else { return nil }
    return "\(name) sequences of \(length) tokens are longer than the model's \(limit) positions"
  }

  /// `total` divided by weights: rounded down, and what is left to the largest remainders, the first of equals first.
  static func shares(of total: Int, _ weights: [Double]) -> [Int] {
    let sum = weights.reduce(0, +)
    let exact = weights.map { Double(total) * $0 / sum }
    var shares = exact.map { Int($0) }
    let order = exact.indices.sorted { exact[$0] - Double(shares[$0]) > exact[$1] - Double(shares[$1]) }
    for index in order.prefix(total - shares.reduce(0, +)) { shares[index] += 1 }
    return shares
  }

  /// - Parameter prefix: what stands before every window: models are prompted with it, and some cache it unlike anything else.
  private func windows(of tokens: [Int32], after prefix: [Int32]) -> [[Int32]] {
    let stretch = length - prefix.count
    return stride(from: 0, through: tokens.count - stretch, by: stretch).map { prefix + tokens[$0..<$0 + stretch] }
  }

  /// - Returns: at most `count` sequences of a file, and whether they were drawn from a part of it.
  private func sequences(
    of source: TextSource, at place: URL, _ tokenizer: Tokenizer, count: Int, order: KeyedRandomness?
  ) throws -> (sequences: [[Int32]], isPart: Bool) {
    if try source.isOneText(in: place) { return try sequences(ofOneText: source, at: place, tokenizer, count: count, order: order) }
    var packer = SequencePacker(packing: packing, length: length, count: count, tokenizer: tokenizer)
    guard var order else {
      try source.forEachDocument(in: place) { try packer.take($0) }
      return (packer.sequences, false)
    }
    var (documents, bytes, isPart) = ([String](), 0, false)
    try source.forEachDocument(in: place) { document in
      guard bytes < poolBytes || packing == .documents && documents.count < count else {
        isPart = true
        return false
      }
      documents.append(document)
      bytes += document.utf8.count
      return true
    }
    // A lone document is cut as a whole, so that its parts can be drawn.
    guard documents.count > 1 || packing == .documents else {
      var found = windows(
        of: try documents.flatMap { try tokenizer.encode($0, addingSpecialTokens: false) }, after: tokenizer.prefix)
      found.shuffle(using: &order)
      return (Array(found.prefix(count)), isPart)
    }
    if documents.count > 1 { documents.shuffle(using: &order) }
    for document in documents { guard try packer.take(document) else { break } }
    return (packer.sequences, isPart)
  }

  private func sequences(
    ofOneText source: TextSource, at place: URL, _ tokenizer: Tokenizer, count: Int, order: KeyedRandomness?
  ) throws -> (sequences: [[Int32]], isPart: Bool) {
    guard packing == .concatenate else {
      let tokens = try source.firstTokens(in: place, count: length, tokenizer, addingSpecialTokens: true)
      return (tokens.count > 1 && count > 0 ? [tokens] : [], false)
    }
    guard var order else {
      let tokens = try source.firstTokens(in: place, count: count.multiplied(by: length), tokenizer)
      return (Array(windows(of: tokens, after: tokenizer.prefix).prefix(count)), false)
    }
    let (tokens, isWhole) = try source.tokens(in: place, bytes: poolBytes, tokenizer)
    var found = windows(of: tokens, after: tokenizer.prefix)
    found.shuffle(using: &order)
    return (Array(found.prefix(count)), !isWhole)
  }

  /// Bytes of a file that are read to be drawn from: many times what the sequences need.
  var poolBytes: Int { max(Self.leastPool, sequences.multiplied(by: length).multiplied(by: 64)) }
  private static let leastPool = 1 << 24
}

/// Makes sequences of documents, one after the other.
private struct SequencePacker {
  let packing: Packing
  let length: Int
  /// No more sequences than these.
  let count: Int
  let tokenizer: Tokenizer
  private(set) var sequences: [[Int32]] = []
  private var pending: [Int32] = []

  init(packing: Packing, length: Int, count: Int, tokenizer: Tokenizer) {
    (self.packing, self.length, self.count, self.tokenizer) = (packing, length, count, tokenizer)
  }

  /// - Returns: whether more are wanted.
  mutating func take(_ document: String) throws -> Bool {
    if packing == .documents {
      let tokens = try tokenizer.encode(document, addingSpecialTokens: true).prefix(length)
      // Nothing follows a lone token.
      if tokens.count > 1, sequences.count < count { sequences.append(Array(tokens)) }
      return sequences.count < count
    }
    pending += try tokenizer.encode(document, addingSpecialTokens: false)
    let prefix = tokenizer.prefix
    let stretch = length - prefix.count
    var start = 0
    while pending.count - start >= stretch, sequences.count < count {
      sequences.append(prefix + pending[start..<start + stretch])
      start += stretch
    }
    pending.removeFirst(start)
    return sequences.count < count
  }
}

extension Compressor {
  /// The statistics that a recipe names, which must be of this model, of the recipe's data where it names any, and enough for its passes.
  func statistics(_ source: CalibrationSource, for checkpoint: Checkpoint) throws -> StatisticsFile {
    let places = bases + [checkpoint.directory]
    let file = try StatisticsFile(try TokenSource(text: nil, tokens: source.statistics, bases: places).file)
    let hasData = source.text != nil || source.tokens != nil
    try file.check(
      against: checkpoint.tensors, data: hasData ? try source.read(for: checkpoint, bases: places, seed: recipe.seed).sequences : nil)
    for pass in recipe.passes {
      let name = type(of: pass).name
      if (pass as? any TrainingPass)?.needsSequences == true {
        throw StatisticsDoNotSuffice(pass: name, reason: "it is trained on sequences")
      }
      if pass.isExact { throw StatisticsDoNotSuffice(pass: name, reason: "it changes what the layers after it read") }
      if pass.comparesInputs {
        throw StatisticsDoNotSuffice(pass: name, reason: "it compares inputs with those of the original model (drift_correction)")
      }
      if !pass.analyses.isEmpty, pass.usesCalibration { throw StatisticsDoNotSuffice(pass: name, reason: "it runs the whole model") }
    }
    return file
  }
}
