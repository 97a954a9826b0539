public import Foundation

/// Where tests find things.
public enum Places {
  /// The repository.
  public static let root = URL(filePath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// Real models and texts beside the repository; tests that need them skip visibly where they are absent.
  public static let assets = root.deletingLastPathComponent().appending(path: "shared/assets")

  public static func asset(_ path: String) -> URL { assets.appending(path: path) }

  public static func hasAsset(_ path: String) -> Bool { FileManager.default.fileExists(atPath: asset(path).path) }

  public static let pocketLlama = root.appending(path: "Checkpoints/pocket-llama")

  /// Runs `body` with a fresh directory that is gone afterwards.
  public static func withTemporaryDirectory<Result>(_ body: (URL) throws -> Result) throws -> Result {
    let directory = try temporaryDirectory()
    defer { try? FileManager.default.removeItem(at: directory) }
    return try body(directory)
  }

  public static func withTemporaryDirectory<Result>(_ body: (URL) async throws -> Result) async throws -> Result {
    let directory = try temporaryDirectory()
    defer { try? FileManager.default.removeItem(at: directory) }
    return try await body(directory)
  }

  private static func temporaryDirectory() throws -> URL {
    let directory = FileManager.default.temporaryDirectory.appending(path: "compress-test-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    return directory
  }
}
