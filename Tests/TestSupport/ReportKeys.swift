public import CompressKit
internal import Foundation

/// Keys of `report.json` as `docs/report.md` spells them: `a.b` for members, `a[]` for elements.
public enum ReportKeys {
  /// Members of these are named by what was found, not by the schema.
  private static let maps = ["metrics", "schemes"]

  /// The path of every value that is no object with keys of the schema. An empty list has none.
  public static func paths(of json: JSON, under path: String = "") -> Set<String> {
    if let members = json.members {
      return members.reduce(into: []) { paths, member in
        let inner = path.isEmpty ? member.key : "\(path).\(member.key)"
        paths.formUnion(maps.contains(member.key) ? [inner] : Self.paths(of: member.value, under: inner))
      }
    }
    if let elements = json.elements { return elements.reduce(into: []) { $0.formUnion(paths(of: $1, under: path + "[]")) } }
    return [path]
  }

  /// Names of figures that passes have recorded.
  public static func metrics(of report: JSON) -> Set<String> {
    Set((report["layers"]?.elements ?? []).flatMap { $0["metrics"]?.members?.map(\.key) ?? [] })
  }

  /// What a report has and the page does not explain. Experts and heads have figures by their number, which the page calls N, and norms by
  /// their name.
  public static func undocumented(in report: JSON) throws -> Set<String> {
    let page = try documented()
    let figures = metrics(of: report).map { figure in
      if page.metrics.contains(figure) { return figure }
      if figure.hasSuffix("_share") { return "NORM_share" }
      let parts = figure.split(separator: "_")
      return parts.last?.allSatisfy(\.isNumber) == true ? (parts.dropLast() + ["N"]).joined(separator: "_") : figure
    }
    return paths(of: report).subtracting(page.keys).union(Set(figures).subtracting(page.metrics))
  }

  /// What stands in the first columns of the page's two tables.
  public static func documented() throws -> (keys: Set<String>, metrics: Set<String>) {
    let page = try String(contentsOf: Places.root.appending(path: "docs/report.md"), encoding: .utf8)
    let parts = page.components(separatedBy: "\n## Figures of passes\n")
    func names(_ part: String) -> Set<String> {
      let cells = part.split(separator: "\n").filter { $0.hasPrefix("| `") }.compactMap { $0.split(separator: "|").first }
      return Set(cells.flatMap { $0.split(separator: "`").filter { !$0.allSatisfy { " ,".contains($0) } }.map(String.init) })
    }
    return (names(parts[0]), names(parts.count > 1 ? parts[1] : ""))
  }
}
