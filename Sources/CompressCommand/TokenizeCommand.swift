import ArgumentParser
import CompressKit
import Foundation

struct TokenizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize", abstract: "Print the token ids of a text, one line of ids a text.")

  @Argument(
    help: ArgumentHelp("A model directory, a GGUF file, or a tokenizer's own file (tokenizer.json, tokenizer.model).", valueName: "model"),
    completion: .file())
  var model: String

  @Argument(
    help: ArgumentHelp("Text, or JSON lines (.jsonl); standard input if absent. Either may be gzipped (.gz).", valueName: "file"),
    completion: .file())
  var file: String?

  @Flag(name: .long, help: "Every line is a text of its own.")
  var lines = false

  @Flag(name: .long, help: "Every line is JSON, whatever the file is called: a string, or an object with the field.")
  var jsonLines = false

  @Option(name: .long, help: ArgumentHelp("The field of JSON objects that holds the text.", valueName: "name"))
  var field = "text"

  @Flag(name: .long, inversion: .prefixedNo, help: "Put the tokens around each text that the model expects there.")
  var specialTokens = true

  @Flag(name: .long, help: "Also print the text that the ids stand for.")
  var decode = false

  @Flag(name: .long, help: "Print how many ids there are, not which.")
  var count = false

  @Flag(name: .long, help: "Print a JSON object a text.")
  var json = false

  func run() throws {
    let tokenizer = try Tokenizer(at: URL(userPath: model))
    let form: TextForm? = jsonLines ? .jsonLines : lines ? .lines : nil
    let texts =
      try file.map { try TextFile(URL(userPath: $0), form: form, field: field) } ?? TextFile(standardInput: form ?? .whole, field: field)
    var output = Data()
    try texts.forEachText { text in
      let ids = try tokenizer.encode(text, addingSpecialTokens: specialTokens)
      let decoded = decode ? try tokenizer.decode(ids, skippingSpecialTokens: false) : nil
      if count {
        output += Data("\(ids.count)\n".utf8)
      } else if json {
        let members = [JSON.Member("ids", .array(ids.map { .integer(Int($0)) }))] + (decoded.map { [.init("text", .string($0))] } ?? [])
        output += Data((JSON.object(members).text() + "\n").utf8)
      } else {
        output += Data((ids.map(String.init).joined(separator: " ") + "\n").utf8)
        if let decoded { output += Data((decoded + "\n").utf8) }
      }
      return true
    }
    try StandardStreams.print(output)
  }
}
