import CompressKit
import Foundation
import TestSupport
import Testing

/// `docs/compatibility.md` has no row without what shows it, and the README's table of recipes has each with what it writes.
@Suite struct CompatibilityTests {
  private static func text(_ path: String) throws -> String { try String(contentsOf: Places.root.appending(path: path), encoding: .utf8) }

  /// The cells of a table's rows, heads and rules left out.
  private static func rows(_ page: some StringProtocol) -> [[String]] {
    page.split(separator: "\n").filter { $0.hasPrefix("| ") && !$0.hasPrefix("| program ") }.map { line in
      line.split(separator: "|").map { $0.trimmingCharacters(in: .whitespaces) }
    }
  }

  private static let sources: [String: URL] = {
    let folder = Places.root.appending(path: "Tests")
    let files = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)?.compactMap { $0 as? URL } ?? []
    return Dictionary(files.filter { $0.pathExtension == "swift" }.map { ($0.deletingPathExtension().lastPathComponent, $0) }) { first, _ in
      first
    }
  }()

  /// Whether a test or a script of this name is there.
  private func exists(_ evidence: String) throws -> Bool {
    let parts = evidence.split(separator: ".").map(String.init)
    guard !evidence.contains("/"), parts.count == 2 else {
      return FileManager.default.fileExists(atPath: Places.root.appending(path: evidence).path)
    }
    guard let file = Self.sources[parts[0]] else { return false }
    return try String(contentsOf: file, encoding: .utf8).contains("func \(parts[1])(")
  }

  @Test func everyRowIsShown() throws {
    let rows = Self.rows(try Self.text("docs/compatibility.md"))
    #expect(rows.count > 35)
    for row in rows {
      let shown = (row.last ?? "").split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
      #expect(row.count == 3 && !shown.isEmpty && shown.allSatisfy { $0.hasPrefix("`") && $0.hasSuffix("`") }, "\(row)")
      for evidence in shown { #expect(try exists(evidence.trimmingCharacters(in: ["`"])), "\(evidence)") }
    }
  }

  @Test func whatIsNotThereIsNoticed() throws {
    for evidence in ["PeerTests.nobodyWroteThis", "NoSuchTests.agreesWithTransformers", "tools/golden/nothing.py"] {
      #expect(try !exists(evidence), "\(evidence)")
    }
  }

  /// Findings that nobody mentions are of no use to those who read the page.
  @Test func everyFindingHasARow() throws {
    let page = try Self.text("docs/compatibility.md")
    let findings = try FileManager.default.contentsOfDirectory(atPath: Places.root.appending(path: "findings").path)
    for finding in findings.filter({ $0.hasSuffix(".sh") }) { #expect(page.contains("`findings/\(finding)`"), "\(finding)") }
  }

  @Test func theREADMEKnowsWhatEveryRecipeWrites() throws {
    let readme = try Self.text("README.md")
    let start = try #require(readme.range(of: "| recipe | writes |"))
    let rows = Self.rows(readme[start.upperBound...].components(separatedBy: "\n\n")[0])
    var formats: [String: String] = [:]
    for row in rows where row.count > 2 {
      for name in row[0].split(separator: ",") {
        formats[name.trimmingCharacters(in: ["`", " "])] = row[1].trimmingCharacters(in: ["`"])
      }
    }
    let folder = Places.root.appending(path: "Recipes")
    for file in try FileManager.default.contentsOfDirectory(atPath: folder.path) where file.hasSuffix(".yaml") {
      let recipe = try Recipe(yaml: try Self.text("Recipes/\(file)"), file: file, passes: .standard)
      #expect(formats.removeValue(forKey: String(file.dropLast(5))) == recipe.output.format, "\(file)")
    }
    #expect(formats.isEmpty, "no recipes: \(formats.keys.sorted())")
  }
}
