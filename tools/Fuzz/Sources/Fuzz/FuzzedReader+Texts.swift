import CompressKit
import Foundation

extension FuzzedReader {
  static let texts = [
    FuzzedReader(
      name: "config.json", read: { _ = try ArchitectureCatalog.standard.describe(try ModelConfig(text: $0)) },
      allows: { $0 is CheckpointError }),
    FuzzedReader(
      name: "recipe",
      read: { bytes in
        // A recipe is text: what is not UTF-8 is refused before it is parsed.
        guard let text = String(validating: bytes, as: UTF8.self) else { return }
        _ = try Recipe(yaml: text, file: "recipe.yaml", passes: .standard)
      }, allows: { $0 is RecipeError }),
  ]
}
