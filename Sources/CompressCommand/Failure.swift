import ArgumentParser
import CompressKit
import Foundation

/// A run that has failed and left what another one can go on from.
struct KeptRun: Error {
  let cause: any Error
  let journal: String
  /// How to do without the journal, in words.
  let doingWithout: String
}

/// An error as the user sees it: one line of cause, a hint, and an exit code of sysexits.h.
struct Failure {
  private let error: any Error

  /// Where what the run has done is kept; `nil` where nothing is.
  private let journal: String?
  private let doingWithout: String

  init(_ error: any Error) {
    let kept = error as? KeptRun
    (self.error, journal, doingWithout) = (kept?.cause ?? error, kept?.journal, kept?.doingWithout ?? "")
  }

  /// What the process ends with, after sysexits.h; the README's table says the same.
  enum Code: Int32, CaseIterable {
    case success = 0
    case usage = 64
    case data = 65
    case noInput = 66
    case software = 70
    case inputOutput = 74
    case temporary = 75
    /// What shells report for a process that SIGINT ended.
    case interrupted = 130

    var meaning: String {
      switch self {
      case .success: "done; help and version are results, too"
      case .usage: "the command line or the recipe is wrong, asks for what cannot be, or names an output that exists"
      case .data: "what was read is damaged, unsupported or unfit, or a figure is not finite; with `--strict`, a fallback"
      case .noInput: "a file or directory that was named is not there"
      case .software: "a defect of this program"
      case .inputOutput: "reading or writing failed: a full disk, a missing right"
      case .temporary: "another run is making the same output; try again later"
      case .interrupted: "interrupted by Ctrl-C, SIGTERM or a closed terminal; the same command goes on with what is kept"
      }
    }
  }

  /// The error beneath the places it was found in.
  private var cause: any Error { (error as? PipelineError)?.cause ?? error }

  var code: Code {
    switch cause {
    case is CancellationError: .interrupted
    case let error as CheckpointError:
      switch error {
      case .missingFile: .noInput
      case .cannotWrite: .inputOutput
      case .exists, .cannotReplace: .usage
      case .busy: .temporary
      default: .data
      }
    case is RecipeError, is OptionError, is InvalidOption, is MissingCalibration, is FormatError, is MixedFormats, is AlreadyQuantized,
      is StatisticsDoNotSuffice, is BudgetTooSmall, is RankBudgetTooSmall, is OtherRun:
      .usage
    case is ScratchError, is ResultNotPrinted: .inputOutput
    case let error where Self.isOfFoundation(error): .inputOutput
    case let error as NotEnoughMemory where error.bound == .limit: .usage
    case is TokenOutOfRange, is SequenceTooLong, is EvaluationError, is TokenizerError, is UnwantedFallback, is NotEnoughMemory,
      is NonFiniteActivation, is NonFiniteResult, is UnreachedInput, is ScaleOutOfRange,
      is StatisticsMismatch, is StatisticNotStored, is DamagedJournal:
      .data
    default: .software
    }
  }

  var message: String {
    switch error {
    case is CancellationError: "interrupted; an output exists only if it was complete before"
    case let error as PipelineError:
      switch error.cause {
      case is CheckpointError, is CancellationError: Failure(error.cause).message
      case let arisen as NonFiniteActivation: "\(error.pass): \(arisen)"
      case let option as InvalidOption: "\(error.pass): \(option)"
      default: error.description
      }
    case let error where Self.isOfFoundation(error): Self.words(error as NSError)
    default: "\(error)"
    }
  }

  /// Errors of a domain and a number, which say little as they are.
  private static func isOfFoundation(_ error: any Error) -> Bool {
    type(of: error) is NSError.Type || error is CocoaError || error is POSIXError || error is URLError
  }

  private static func words(_ error: NSError) -> String {
    let path = error.userInfo[NSFilePathErrorKey] as? String ?? (error.userInfo[NSURLErrorKey] as? URL)?.path
    return (path.map { "\($0): " } ?? "") + SystemError.reason(error)
  }

  private var hint: String? {
    switch cause {
    case CheckpointError.cannotWrite where journal != nil:
      "make room, or \(doingWithout), which keeps nothing to go on from; what had that name before is as it was"
    case let error as CheckpointError: error.hint
    case is MissingCalibration: "add `calibration: { text: FILE }` to the recipe, or --set calibration.text=FILE"
    case is OtherRun: "run the same recipe on the same model to go on with it, or start over with --fresh"
    case is DamagedJournal: "start over with --fresh, or put the file back"
    case is UnwantedFallback: "run without --strict to accept fallbacks; they are counted in report.json"
    default: nil
    }
  }

  /// Ends the process. The parser's own errors, help and version included, keep their words and codes.
  func exit() -> Never {
    // The parser marks its own errors by codes of their own; whatever else reaches this point gets the plain failure code.
    guard CompressCommand.exitCode(for: error) == .failure else { CompressCommand.exit(withError: error) }
    var text = "error: \(message)\n"
    let kept = (cause is DamagedJournal ? nil : journal).map {
      "what is done is kept in \($0): the same command goes on from there, or starts over with --fresh"
    }
    let hints = [hint, kept].compactMap { $0 }
    if !hints.isEmpty { text += "hint: \(hints.joined(separator: "; "))\n" }
    StandardStreams.say(text)
    Foundation.exit(code.rawValue)
  }
}
