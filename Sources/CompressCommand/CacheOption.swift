import ArgumentParser
import CompressKit

/// A cache policy that is tried on a model without writing a checkpoint.
struct CacheOption: ParsableArguments {
  @Option(
    name: .long,
    help: ArgumentHelp("Keep the cache so, by options of the pass kv_cache such as '{ scheme: kivi, bits: 2 }'.", valueName: "options"))
  var cache: String?

  func applied(to model: Model) throws -> Model {
    guard let cache else { return model }
    let recipe = try Recipe(yaml: "passes: [ { kv_cache: \(cache) } ]", file: "--cache", passes: CompressCommand.toolkit.passes)
    guard recipe.passes.count == 1, let pass = recipe.passes[0] as? CacheCompression else {
      throw ValidationError("--cache: options of the pass kv_cache are needed")
    }
    return try pass.applied(to: model)
  }
}
