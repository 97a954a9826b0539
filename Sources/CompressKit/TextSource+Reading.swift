internal import CheckpointIO
internal import Foundation
internal import Recipes
internal import Tokenizers

extension TextSource {
  private func open(_ place: URL) throws(CheckpointError) -> TextFile { try TextFile(place, field: field, separator: separator) }

  /// Whether all of the file is one document.
  func isOneText(in place: URL) throws(CheckpointError) -> Bool { try open(place).isOneText }

  /// Calls `body` with every document of the file until it answers false.
  func forEachDocument(in place: URL, _ body: (String) throws -> Bool) throws { try open(place).forEachText(body) }

  /// The first tokens of a file that is one document; no more of it is read than these need, and what a tokenizer looks at behind them.
  ///
  /// - Returns: fewer where the text has no more.
  func firstTokens(in place: URL, count: Int, _ tokenizer: Tokenizer, addingSpecialTokens: Bool = false) throws -> [Int32] {
    // Texts have three to five bytes a token.
    var bytes = max(count.multiplied(by: 6), 1 << 20)
    while true {
      let (tokens, isWhole) = try tokens(in: place, bytes: bytes, tokenizer, addingSpecialTokens: addingSpecialTokens)
      if isWhole || tokens.count >= count { return Array(tokens.prefix(count)) }
      bytes = bytes.multiplied(by: 4)
    }
  }

  /// The tokens of so many bytes of a file that is one document, as far as what follows cannot change them.
  func tokens(
    in place: URL, bytes: Int, _ tokenizer: Tokenizer, addingSpecialTokens: Bool = false
  ) throws -> (tokens: [Int32], isWhole: Bool) {
    let (text, isWhole) = try open(place).beginning(bytes)
    let tokens = try tokenizer.encode(text, addingSpecialTokens: addingSpecialTokens)
    return (isWhole ? tokens : Array(tokens.dropLast(Self.unsure)), isWhole)
  }

  /// Tokens before a cut that might be others without it: those of the word that was cut, of white space, of the best path through a text
  /// without words. A few are; this is far beyond.
  private static let unsure = 1024
}

extension Int {
  /// The largest number there is where the product is larger; of positive numbers.
  func multiplied(by other: Int) -> Int {
    let (product, overflow) = multipliedReportingOverflow(by: other)
    return overflow ? .max : product
  }
}
