import CompressKit
import Foundation
import TestSupport
import Testing

/// What `make install` puts under a prefix, and takes away again.
@Suite struct InstallTests {
  private static let tool = Places.root.appending(path: "tools/install")

  private func files(under directory: URL) throws -> [String] {
    try FileManager.default.subpathsOfDirectory(atPath: directory.path).sorted().filter { path in
      var isDirectory: ObjCBool = false
      return FileManager.default.fileExists(atPath: directory.appending(path: path).path, isDirectory: &isDirectory)
        && !isDirectory.boolValue
    }
  }

  @Test func theProgramIsThereWithAllThatBelongsToIt() async throws {
    try await Places.withTemporaryDirectory { directory in
      let manual = directory.appending(path: "page.1")
      try Data(".Dt COMPRESS 1\n".utf8).write(to: manual)
      // A name with a space, and a stranger's file that is to stay.
      let prefix = directory.appending(path: "a prefix")
      let other = prefix.appending(path: "share/man/man1/other.1")
      try FileManager.default.createDirectory(at: other.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data().write(to: other)
      let executable = try Command.executable.get()
      let outcome = try await Command.run([executable.path, manual.path, prefix.path], of: Self.tool)
      #expect(outcome.status == 0, "\(outcome.errors)")
      let version = try await Command.run(["--version"], of: prefix.appending(path: "bin/compress"))
      #expect(version.status == 0 && version.output == "\(toolkitVersion)\n", "\(version.errors)")
      for (shell, place) in [
        ("bash", "bash-completion/completions/compress"), ("zsh", "zsh/site-functions/_compress"),
        ("fish", "fish/vendor_completions.d/compress.fish"),
      ] {
        let script = try String(contentsOf: prefix.appending(path: "share/\(place)"), encoding: .utf8)
        #expect(try await Command.run(["--generate-completion-script", shell]).output.hasPrefix(script) && script.contains("quantize"))
      }
      let installed = try files(under: prefix)
      for name in ["share/man/man1/compress.1", "share/compress/recipes/w4a16.yaml", "share/doc/compress/LICENSE"] {
        #expect(installed.contains(name), "\(name)")
      }
      let removed = try await Command.run(["--remove", prefix.path], of: Self.tool)
      #expect(removed.status == 0, "\(removed.errors)")
      #expect(try files(under: prefix) == ["share/man/man1/other.1"])
    }
  }

  private static let packager = "/usr/bin/dpkg-shlibdeps"

  /// Debian has no runtime of Swift's; a package that needs it would not run.
  @Test(.enabled(if: FileManager.default.isExecutableFile(atPath: packager), "dpkg-dev is not installed"))
  func aPackageCarriesTheRuntime() async throws {
    try await Places.withTemporaryDirectory { directory in
      let executable = try Command.executable.get()
      let outcome = try await Command.run(
        [executable.path, executable.path, directory.path], of: Places.root.appending(path: "tools/package-deb"))
      #expect(outcome.status == 65 && outcome.errors.contains("--static-swift-stdlib"), "\(outcome.errors)")
      #expect(try files(under: directory).isEmpty)
    }
  }

  @Test func whatIsNotBuiltIsNotInstalled() async throws {
    try await Places.withTemporaryDirectory { directory in
      let outcome = try await Command.run(["/nonexistent", "/nonexistent.1", directory.path], of: Self.tool)
      #expect(outcome.status == 66 && outcome.errors.contains("make build"), "\(outcome.errors)")
      #expect(try files(under: directory).isEmpty)
      #expect(try await Command.run([directory.path], of: Self.tool).status == 64)
    }
  }
}
