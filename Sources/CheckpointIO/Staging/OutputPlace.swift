internal import Foundation

/// Where an output goes: links are followed, so that what is written, locked and replaced lies where its name leads.
struct OutputPlace {
  /// Absolute, without links.
  let url: URL
  /// As it was given, for messages.
  let given: URL
  /// Directories above it that had to be made, the outermost first.
  private(set) var madeParents: [String] = []

  /// Finds the place; nothing is made yet.
  ///
  /// - Throws: `CheckpointError.cannotWrite` for a link that leads nowhere.
  init(_ given: URL) throws(CheckpointError) {
    let standard = given.standardizedFileURL
    self.given = standard
    var entry = stat()
    if lstat(standard.path, &entry) == 0 {
      guard let real = Self.real(standard.path) else {
        throw .cannotWrite(path: standard.path, reason: "it is a symbolic link that leads nowhere; remove it, or make what it names")
      }
      url = URL(filePath: real)
    } else {
      let parent = standard.deletingLastPathComponent().path
      url = URL(filePath: Self.real(parent) ?? parent).appending(path: standard.lastPathComponent)
    }
  }

  /// The path without links; `nil` where there is nothing.
  static func real(_ path: String) -> String? {
    guard let found = realpath(path, nil) else { return nil }
    defer { free(found) }
    return String(cString: found)
  }

  var exists: Bool { FileManager.default.fileExists(atPath: url.path) }
  var parent: URL { url.deletingLastPathComponent() }

  /// Makes the directories above.
  mutating func makeParents() throws(CheckpointError) {
    var missing: [String] = []
    var directory = parent
    while !FileManager.default.fileExists(atPath: directory.path), directory.path != "/" {
      missing.insert(directory.path, at: 0)
      directory = directory.deletingLastPathComponent()
    }
    for path in missing {
      guard mkdir(path, 0o777) == 0 || errno == EEXIST else {
        let reason = SystemError.text
        removeParents()
        throw .cannotWrite(path: url.path, reason: reason)
      }
      madeParents.append(path)
    }
  }

  /// Takes those away that nobody has put anything into.
  func removeParents() { for path in madeParents.reversed() { rmdir(path) } }

  /// A hidden name beside the output: `.NAME.KIND`.
  func sibling(_ kind: String) -> URL { parent.appending(path: ".\(stem).\(kind)") }

  /// A hidden name beside the output that nobody has: `.NAME.KIND-XXXXXXXX`.
  func freshSibling(_ kind: String) -> URL { sibling("\(kind)-\(Self.hexadecimal(UInt64(UInt32.random(in: 0...UInt32.max)), digits: 8))") }

  /// All that have such names.
  func siblings(_ kind: String) -> [URL] {
    let prefix = ".\(stem).\(kind)-"
    let names = (try? FileManager.default.contentsOfDirectory(atPath: parent.path)) ?? []
    return names.filter { name in
      let rest = name.utf8.dropFirst(prefix.utf8.count)
      return name.hasPrefix(prefix) && rest.count == 8 && rest.allSatisfy { Self.digits.contains($0) }
    }.sorted().map { parent.appending(path: $0) }
  }

  /// The name of the output, shortened where what is put around it would be too long for a file system.
  private var stem: String {
    let name = url.lastPathComponent
    guard name.utf8.count > 200 else { return name }
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    var start = name.prefix(180)
    while start.utf8.count > 180 { start.removeLast() }
    return start + Self.hexadecimal(hash, digits: 16)
  }

  private static let digits = Array("0123456789abcdef".utf8)

  private static func hexadecimal(_ number: UInt64, digits: Int) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: digits - text.count) + text
  }
}

extension OutputPlace {
  /// Refuses what must not be replaced: whatever this program did not make, and whatever it works in or reads.
  ///
  /// - Parameters:
  ///   - inputs: files and directories that are read while the output is made.
  ///   - foreign: why what lies there is not this program's; `nil` where it is.
  func checkReplaceable(inputs: [URL], foreign: (URL) -> String?) throws(CheckpointError) {
    func refused(_ reason: String) -> CheckpointError { .cannotReplace(path: given.path, reason: reason) }
    func holds(_ other: String) -> Bool { other == url.path || other.hasPrefix(url.path == "/" ? "/" : url.path + "/") }
    if let working = Self.real("."), holds(working) { throw refused("it is the working directory, or a directory above it") }
    for input in inputs {
      guard let real = Self.real(input.path), holds(real) else { continue }
      throw refused(real == url.path ? "it is what is read" : "it holds \(input.path), which is read")
    }
    if let reason = foreign(url) { throw refused(reason) }
  }
}
