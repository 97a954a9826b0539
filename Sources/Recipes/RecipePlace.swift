internal import Passes

extension Recipe {
  /// The error with its place in the file, where an option of a pass is at fault and the pass came from one.
  package func placed(_ error: any Error) -> any Error {
    guard let failure = error as? PipelineError, let cause = failure.cause as? InvalidOption, options.indices.contains(failure.index) else {
      return error
    }
    let node = options[failure.index]
    var path = cause.option.replacing("[", with: ".").replacing("]", with: "").split(separator: ".").map(String.init)
    // A selector does not know which option it is, but its words stand somewhere in the file.
    if let word = cause.word {
      let places = node.paths(to: word)
      path = places.first { $0.contains(cause.option) } ?? places.first ?? path
    }
    let position = node.position(of: path)
    let key = ([failure.pass] + path.filter { Int($0) == nil }).joined(separator: ".")
    return RecipeError(
      file: position.file, line: position.line, column: position.column, problem: .invalid(key, reason: cause.reason), suggestion: nil)
  }
}
