/// What happens while a model is worked on. Progress bars, timings and logs are observers; passes never print.
public protocol PipelineObserver: Sendable {
  func observe(_ event: PipelineEvent)
}

public enum PipelineEvent: Sendable, Equatable {
  /// A step of a run begins, such as "preflight".
  case step(String)
  case blockBegan(name: String, index: Int, count: Int)
  case passBegan(pass: String, block: String)
  case passEnded(pass: String, block: String, took: Duration)
  case blockEnded(name: String, index: Int, count: Int, took: Duration)
  /// Something the user should know, though nothing failed.
  case remark(String)
}

/// Observes nothing.
public struct Silent: PipelineObserver {
  public init() {}
  public func observe(_ event: PipelineEvent) {}
}
