import Foundation
import TestSupport
import Testing

/// A reader under attack: what it is fed, and what it may say.
struct FuzzTarget: Sendable, CustomTestStringConvertible {
  let name: String
  /// Of the file it is given.
  var suffix = "bin"
  let corpus: @Sendable () throws -> [Data]
  /// Wraps mutated bytes into the container that the reader expects; checksums are right then, and mutations reach further.
  var wrap: @Sendable (Data) -> Data = { $0 }
  /// Returns or throws.
  let read: @Sendable (URL) throws -> Void
  /// Whether an error is one of those that a reader may throw.
  let allows: @Sendable (any Error) -> Bool

  var testDescription: String { name }

  /// How long to attack every target; by default a fixed number of files.
  private static let seconds = ProcessInfo.processInfo.environment["COMPRESS_FUZZ_SECONDS"].flatMap(Double.init)
  private static let seed = ProcessInfo.processInfo.environment["COMPRESS_FUZZ_SEED"].flatMap(UInt64.init) ?? 1

  /// Any outcome but a value or an error of the right type is a failure: a crash ends the test, and the file that caused it stays where its
  /// path says.
  func attack(files: Int) throws {
    let corpus = try corpus()
    try #require(!corpus.isEmpty)
    var mutator = Mutator(seed: Self.seed, corpus: corpus)
    let directory = FileManager.default.temporaryDirectory.appending(path: "compress-fuzz")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    let url = directory.appending(path: "\(name)-\(ProcessInfo.processInfo.processIdentifier).\(suffix)")
    for sound in corpus {
      try wrap(sound).write(to: url)
      #expect(throws: Never.self, "the corpus itself") { try read(url) }
    }
    let start = ContinuousClock.now
    let limit = Self.seconds.map { Duration.seconds($0) }
    var (done, accepted) = (0, 0)
    while limit.map({ start.duration(to: .now) < $0 }) ?? (done < files) {
      let bytes = wrap(mutator.next())
      try bytes.write(to: url)
      let before = ContinuousClock.now
      do {
        try read(url)
        accepted += 1
      } catch {
        if !allows(error) { Issue.record("\(name), file \(done): \(type(of: error)): \(error)") }
      }
      let took = before.duration(to: .now)
      if took > .seconds(2) { Issue.record("\(name), file \(done): took \(took)") }
      done += 1
    }
    try FileManager.default.removeItem(at: url)
    if limit != nil {
      let hours = Double(start.duration(to: .now).components.seconds) / 3600
      print("fuzz: \(name) \(done) files, \(accepted) accepted, \(hours) h, seed \(Self.seed)")
    }
  }
}
