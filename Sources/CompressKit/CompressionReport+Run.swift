internal import Foundation

extension CompressionReport {
  /// What was run, on what, where and when: of two runs that write the same bytes, only this and what they cost may differ.
  public struct Run: Sendable, Codable, Equatable {
    /// The process's arguments, the program first.
    public var arguments: [String]
    /// The effective recipe: the text of `recipe.yaml`.
    public var recipe: String
    public var model: ModelRecord
    /// What passes learned from besides; absent where there is none.
    public var teachers: [ModelRecord]?
    /// The files that calibration, probes and evaluation read.
    public var data: [DataRecord]
    /// ISO 8601, in UTC.
    public var startedAt: String
    public var endedAt: String
    public var phases: [Phase]
    public var machine: MachineRecord
  }

  /// Which checkpoint was read.
  public struct ModelRecord: Sendable, Codable, Equatable {
    /// Absolute; of a checkpoint in one file, the file's.
    public var path: String
    /// Of `config.json`; absent where the weights' file describes itself.
    public var configurationSha256: String?
    /// As `compress calibrate` stores it: FNV-1a over names, types, shapes and samples of all tensors.
    public var weightsFingerprint: String
  }

  /// A file of text, tokens or statistics.
  public struct DataRecord: Sendable, Codable, Equatable {
    public enum Use: String, Sendable, Codable, CaseIterable { case calibration, statistics, probes, evaluation }

    public var use: Use
    /// Absolute.
    public var path: String
    /// Absent for what is no file, such as a pipe, like the digest below.
    public var bytes: Int?
    public var sha256: String?
  }

  /// A stretch of a run.
  public struct Phase: Sendable, Codable, Equatable {
    public var name: String
    public var seconds: Double
  }

  public struct MachineRecord: Sendable, Codable, Equatable {
    /// Absent where the system does not name it.
    public var processor: String?
    public var cores: Int
    /// Threads that worked.
    public var threads: Int
    public var memoryBytes: Int
    public var system: String
  }
}

/// Measures a run's phases, which follow each other without gaps.
struct PhaseClock {
  let start = Date.now
  private var name: String
  private var began = ContinuousClock.now
  private var finished: [CompressionReport.Phase] = []

  init(_ first: String) { name = first }

  mutating func begin(_ next: String) {
    finished = phases
    (name, began) = (next, .now)
  }

  /// Up to now.
  var phases: [CompressionReport.Phase] { finished + [.init(name: name, seconds: began.duration(to: .now).seconds)] }
}
