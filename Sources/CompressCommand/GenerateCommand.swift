import ArgumentParser
import CompressKit
import Foundation

struct GenerateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "generate", abstract: "Continue a text through the key-value cache: to look at what compression did, not to serve.",
    discussion: "The whole model is expanded to single precision in memory.")

  @Argument(help: ArgumentHelp("The model directory.", valueName: "model"), completion: .directory)
  var model: String

  @Option(name: .long, help: ArgumentHelp("The text to be continued.", valueName: "text"))
  var prompt: String

  @Option(name: .long, help: ArgumentHelp("Tokens to add at most.", valueName: "n"))
  var length = 64

  @Option(name: .long, help: ArgumentHelp("Tokens of the prompt read at a time.", valueName: "n"))
  var chunk = 512

  @Option(name: .long, help: ArgumentHelp("Divides the logits; 0 takes the most likely token.", valueName: "t"))
  var temperature: Float = 0

  @Option(name: .long, help: ArgumentHelp("Draw only from the most likely tokens of this share.", valueName: "p"))
  var topP: Float = 1

  @Option(name: .long, help: ArgumentHelp("Seed of the draws.", valueName: "n"))
  var seed: UInt64 = 0

  @OptionGroup var cache: CacheOption
  @OptionGroup var machine: MachineOptions

  func validate() throws {
    try require("--length", length)
    try require("--chunk", chunk)
    guard temperature >= 0, temperature.isFinite else { throw ValidationError("--temperature: a finite number, 0 or more") }
    guard topP > 0, topP <= 1 else { throw ValidationError("--top-p: above 0, at most 1") }
  }

  func run() async throws {
    let options = self
    let progress = Progress(machine.progress)
    defer { progress.end() }
    let (text, remark) = try await machine.run { try options.generate() }
    progress.observe(.remark(remark))
    progress.end()
    try printResult(text)
  }

  private func generate() throws -> (text: String, remark: String) {
    let checkpoint = try Checkpoint(URL(userPath: model))
    let subject = try CompressCommand.toolkit.model(checkpoint)
    guard subject.description.hasLogits else { throw EvaluationError.noLogits }
    let tokenizer = try checkpoint.tokenizer()
    var tokens = try tokenizer.prefix + tokenizer.encode(prompt, addingSpecialTokens: false)
    guard !tokens.isEmpty else { throw ValidationError("--prompt: a text of at least one token is needed") }
    let ends = checkpoint.config.endTokens
    try Machine.require(
      Machine.ownMemory + Generator.memoryNeed(of: subject, positions: tokens.count + length), limit: try machine.memory())
    var generator = try Generator(try cache.applied(to: subject), positions: tokens.count + length)
    let sampling = Sampling(temperature: temperature, topP: topP)
    var random = KeyedRandomness(seed: seed, key: "generate")
    var logits: [Float] = []
    for start in Swift.stride(from: 0, to: tokens.count, by: chunk) {
      logits = try generator.read(Array(tokens[start..<min(start + chunk, tokens.count)]))
    }
    let start = ContinuousClock.now
    let prompted = tokens.count
    for _ in 0..<length {
      try Task.checkCancellation()
      let next = sampling.token(from: logits, using: &random)
      if ends.contains(next) { break }
      tokens.append(next)
      if tokens.count < prompted + length { logits = try generator.read([next]) }
    }
    let rate = Double(tokens.count - prompted) / max(start.duration(to: .now).inSeconds, 1e-9)
    let bytes = Double(generator.cacheBytes) / Double(generator.tokens)
    return (
      try tokenizer.decode(tokens, skippingSpecialTokens: true),
      "\(tokens.count - prompted) tokens, \(rate.rounded(toPlaces: 1)) a second; cache of \(bytes.rounded(toPlaces: 1)) bytes per token"
    )
  }
}
