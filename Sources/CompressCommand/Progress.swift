import CompressKit
import Foundation
import Synchronization

/// Shows on standard error how far a run is.
final class Progress: PipelineObserver {
  private enum Style { case bar, plain, json, none }
  private struct State {
    var step = ""
    var pass = ""
    var began = ContinuousClock.now
    var lastBar = ContinuousClock.now - .seconds(1)
    var barIsUp = false
  }
  private let style: Style
  private let state = Mutex(State())

  init(_ style: ProgressStyle) {
    self.style =
      switch style {
      case .auto: isatty(STDERR_FILENO) == 1 ? .bar : .plain
      case .plain: .plain
      case .json: .json
      case .none: .none
      }
  }

  func observe(_ event: PipelineEvent) {
    switch style {
    case .none: break
    case .json: write(Self.json(event) + "\n")
    case .plain, .bar: state.withLock { show(event, &$0) }
    }
  }

  /// Takes the bar off the screen, so that what is printed next begins a line.
  func end() { state.withLock { clear(&$0) } }

  private func show(_ event: PipelineEvent, _ state: inout State) {
    switch event {
    case .step(let name):
      state.step = name
      state.pass = ""
      state.began = .now
      if style == .plain { write("\(name)\n") }
    case .passBegan(let pass, let block):
      state.pass = "\(block) \(pass)"
    case .blockEnded(let name, let index, let count, let took):
      if style == .bar {
        bar(index + 1, count, &state)
      } else if name != "evaluation" {
        write("  [\(index + 1)/\(count)] \(name) \(took.secondsText)\n")
      } else if index + 1 == count {
        write("  \(count) blocks \(took.secondsText)\n")
      }
    case .remark(let text):
      clear(&state)
      write("note: \(text)\n")
    case .blockBegan, .passEnded: break
    }
  }

  private func bar(_ done: Int, _ count: Int, _ state: inout State) {
    let now = ContinuousClock.now
    guard done == count || state.lastBar.duration(to: now) > .milliseconds(100) else { return }
    state.lastBar = now
    let line = ProgressLine(
      step: state.step, done: done, count: count, elapsed: state.began.duration(to: now), pass: state.pass)
    write("\r\u{1B}[K" + line.text(columns: ProgressLine.terminalColumns))
    state.barIsUp = true
    if done == count { clear(&state, keeping: true) }
  }

  private func clear(_ state: inout State, keeping: Bool = false) {
    guard state.barIsUp else { return }
    write(keeping ? "\n" : "\r\u{1B}[K")
    state.barIsUp = false
  }

  private func write(_ text: String) { StandardStreams.say(text) }

  private static func json(_ event: PipelineEvent) -> String {
    let members: [JSON.Member] =
      switch event {
      case .step(let name): [.init("event", .string("step")), .init("step", .string(name))]
      case .blockBegan(let name, let index, let count):
        [
          .init("event", .string("block_began")), .init("block", .string(name)), .init("index", .integer(index)),
          .init("count", .integer(count)),
        ]
      case .passBegan(let pass, let block):
        [.init("event", .string("pass_began")), .init("pass", .string(pass)), .init("block", .string(block))]
      case .passEnded(let pass, let block, let took):
        [
          .init("event", .string("pass_ended")), .init("pass", .string(pass)), .init("block", .string(block)),
          .init("seconds", .double(took.inSeconds)),
        ]
      case .blockEnded(let name, let index, let count, let took):
        [
          .init("event", .string("block_ended")), .init("block", .string(name)), .init("index", .integer(index)),
          .init("count", .integer(count)), .init("seconds", .double(took.inSeconds)),
        ]
      case .remark(let text): [.init("event", .string("remark")), .init("text", .string(text))]
      }
    return JSON.object(members).text()
  }
}

extension Duration {
  var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) * 1e-18 }

  /// Such as `0.4 s`, `12 s`, `3 min 20 s`.
  var secondsText: String {
    let seconds = inSeconds
    if seconds < 10 { return "\(seconds.rounded(toPlaces: 1)) s" }
    let whole = Int(seconds.rounded())
    return whole < 60 ? "\(whole) s" : whole < 3600 ? "\(whole / 60) min \(whole % 60) s" : "\(whole / 3600) h \(whole / 60 % 60) min"
  }
}
