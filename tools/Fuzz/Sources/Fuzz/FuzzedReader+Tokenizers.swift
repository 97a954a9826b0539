import CompressKit
import Foundation

extension FuzzedReader {
  static let tokenizers = [tokenizer("tokenizer.json"), tokenizer("tokenizer.model")]

  private static func tokenizer(_ file: String) -> FuzzedReader {
    FuzzedReader(
      name: file,
      read: { bytes in
        let files = [file: bytes, "config.json": Data(#"{"model_type":"llama"}"#.utf8)]
        guard let source = try TokenizerSource(file: { files[$0] }) else { return }
        try use(try Tokenizer(source))
        // What every kind is translated into is a file that can be read, or refused, itself.
        _ = try Tokenizer(json: source.document, configuration: nil)
      }, allows: { $0 is TokenizerError })
  }

  private static func use(_ tokenizer: Tokenizer) throws {
    let ids = try tokenizer.encode("the <s> ab--a \u{E9}\u{301}\n\u{1F600} 12\u{2581}x", addingSpecialTokens: true)
    _ = try tokenizer.decode(ids + [-1, .max, 3], skippingSpecialTokens: true)
  }
}
