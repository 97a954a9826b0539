public import Foundation

/// What lies under the name of an output, or is on its way there.
public enum OutputState: Sendable, Equatable {
  case absent
  /// `reason` says why what lies there is not this program's, or not only.
  case foreign(reason: String)
  case complete
  /// `holder` says which process makes it.
  case beingMade(holder: String)
  /// Nobody makes it, and the journal of a run that began to is there.
  case interrupted
  /// It is complete, and the journal of a run that was to replace it is there.
  case replacementInterrupted

  /// Looks, and changes nothing.
  ///
  /// - Throws: `CheckpointError.cannotWrite` for a link that leads nowhere.
  public init(of output: URL) throws(CheckpointError) {
    let place = try OutputPlace(output)
    if let holder = OutputLock.holder(of: place) {
      self = .beingMade(holder: holder)
    } else if let journal = RunJournal(at: Self.journalPlace(place)), !journal.isDone(with: place.url) {
      self = place.exists && OutputMarker.foreignness(of: place.url) == nil ? .replacementInterrupted : .interrupted
    } else if !place.exists {
      self = .absent
    } else if let reason = OutputMarker.foreignness(of: place.url) {
      self = .foreign(reason: reason)
    } else {
      self = .complete
    }
  }

  /// Where the journal of an output lies, if there is one.
  public static func journalPlace(of output: URL) throws(CheckpointError) -> URL { journalPlace(try OutputPlace(output)) }

  static func journalPlace(_ place: OutputPlace) -> URL { place.sibling("compress-journal") }
}
