import CheckpointIO
import Foundation
import Models
import Passes
import Tokenizers

/// A checkpoint that a pass learns from, other than the one that is compressed.
struct NamedTeacher: Sendable {
  /// As the recipe says it.
  let name: String
  let checkpoint: Checkpoint
  let model: Model
}

extension Compressor {
  /// Opens what the recipe's passes want to learn from.
  ///
  /// - Parameter student: what is compressed.
  /// - Throws: `CheckpointError` for a checkpoint that cannot be opened; `PipelineError` for one that predicts other tokens.
  func teachers(of student: Checkpoint, _ description: ModelDescription) throws -> [NamedTeacher] {
    var teachers: [NamedTeacher] = []
    for (index, pass) in recipe.passes.enumerated() {
      guard let pass = pass as? any ModelPass, let name = pass.teacher else { continue }
      if teachers.contains(where: { $0.name == name }) { continue }
      func refused(_ reason: String) -> any Error {
        recipe.placed(
          PipelineError(
            pass: type(of: pass).name, block: "the model", cause: InvalidOption("teacher", "\(name): \(reason)"), index: index))
      }
      let place = try TokenSource(text: nil, tokens: name, bases: bases + [student.directory]).file
      let checkpoint = try Checkpoint(place)
      let model = try toolkit.model(checkpoint)
      guard model.description.hasLogits else { throw refused("it is an encoder and predicts no tokens") }
      guard model.description.vocabularySize == description.vocabularySize else {
        throw refused(
          "its vocabulary has \(model.description.vocabularySize) tokens, the student's \(description.vocabularySize); a teacher predicts the "
            + "same tokens")
      }
      if pass.comparesStates, model.description.hiddenSize != description.hiddenSize {
        throw refused(
          "its hidden states have \(model.description.hiddenSize) features, the student's \(description.hiddenSize); without state_share only "
            + "predictions are compared")
      }
      if let own = try? student.tokenizer(), let other = try? checkpoint.tokenizer(), !own.agrees(with: other) {
        throw refused("its tokenizer cuts text into other tokens than the student's")
      }
      teachers.append(NamedTeacher(name: name, checkpoint: checkpoint, model: model))
    }
    return teachers
  }
}

extension Tokenizer {
  /// Whether both make the same tokens of a text that most vocabularies cut into many kinds of pieces.
  fileprivate func agrees(with other: Tokenizer) -> Bool {
    let text = "The quick brown fox, 1,234.5 times:\n\tfor (i = 0; i < n; ++i) { x += y[i]; }  Ærøskøbing — 東京 \u{1F600}"
    guard let own = try? encode(text, addingSpecialTokens: false), let others = try? other.encode(text, addingSpecialTokens: false) else {
      return false
    }
    return own == others
  }
}
