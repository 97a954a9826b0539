internal import Foundation
internal import StrictJSON

/// What tells this program's outputs from everything else: the file `.compress-output.json` in each, which lists the files that it put there.
///
/// While an output is being made the file has no list yet.
enum OutputMarker {
  static let name = ".compress-output.json"
  private static let program = JSON.Member("program", .string("compress"))

  static var unfinished: String { JSON.object([program]).text() + "\n" }

  static func finished(_ files: [String]) -> String {
    JSON.object([program, .init("files", .array(files.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) }.map { .string($0) }))])
      .text(indent: 2) + "\n"
  }

  /// All files below a directory, the marker apart, by their paths in it.
  static func files(in directory: URL) throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: directory.path).filter { path in
      var entry = stat()
      return path != name && lstat(directory.appending(path: path).path, &entry) == 0 && entry.st_mode & S_IFMT != S_IFDIR
    }
  }

  /// Why a directory is not an output of this program, or not only; `nil` for one that is.
  static func foreignness(of directory: URL) -> String? {
    var entry = stat()
    guard lstat(directory.path, &entry) == 0, entry.st_mode & S_IFMT == S_IFDIR else { return "it is no directory" }
    guard let marker = read(in: directory) else {
      return isOfAnOlderBuild(directory) ? nil : "this program did not make it (there is no \(name) in it)"
    }
    let own = Set((marker["files"]?.elements ?? []).compactMap { $0.string.map { Array($0.utf8) } })
    guard let files = try? files(in: directory) else { return "it cannot be listed" }
    let others = files.filter { !own.contains(Array($0.utf8)) }.sorted()
    guard let first = others.first else { return nil }
    let rest = others.count == 1 ? "" : " and \(others.count - 1) more"
    return "it holds \(first)\(rest), which this program did not put there; move that away first"
  }

  /// Whether a directory was being filled by a run: it has a marker, or nothing at all yet.
  static func isStaging(_ directory: URL) -> Bool {
    var entry = stat()
    guard lstat(directory.path, &entry) == 0, entry.st_mode & S_IFMT == S_IFDIR else { return false }
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? ["?"]
    return read(in: directory) != nil || names.isEmpty || names == [name] && size(in: directory) == 0
  }

  /// Removes a directory, its marker last: what is left when that is interrupted can still be told for what it is.
  static func remove(_ directory: URL) throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
    if !names.contains(name) { try? Data(unfinished.utf8).write(to: directory.appending(path: name)) }
    for other in names where other != name { try FileManager.default.removeItem(at: directory.appending(path: other)) }
    try FileManager.default.removeItem(at: directory)
  }

  private static func read(in directory: URL) -> JSON? {
    guard let text = try? Data(contentsOf: directory.appending(path: name)), let json = try? JSON(parsing: text),
      json[program.key] == program.value
    else { return nil }
    return json
  }

  private static func size(in directory: URL) -> Int? {
    var entry = stat()
    return lstat(directory.appending(path: name).path, &entry) == 0 ? Int(entry.st_size) : nil
  }

  /// Builds before this file was introduced left a report and a recipe in what they compressed, and nothing in what they converted.
  private static func isOfAnOlderBuild(_ directory: URL) -> Bool {
    guard FileManager.default.fileExists(atPath: directory.appending(path: "recipe.yaml").path),
      let text = try? Data(contentsOf: directory.appending(path: "report.json")), let report = try? JSON(parsing: text)
    else { return false }
    return ["toolkit_version", "instruction_set", "sizes", "layers"].allSatisfy { report[$0] != nil }
  }
}
