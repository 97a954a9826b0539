public import Foundation
internal import Synchronization

/// An output on its way: a hidden directory `.NAME.partial-XXXXXXXX` beside the place where it is to appear, which gets its name when everything
/// is on the disk.
///
/// From the beginning until then the place is locked, so that no other run writes to it; what killed runs left there is cleared away. Of what
/// lies at the place only outputs of this program are ever replaced.
public final class StagedDirectory: Sendable {
  /// The final place, links followed.
  public let destination: URL
  /// Where the files lie until then.
  public let directory: URL
  /// What the user should know.
  public let remarks: [String]
  private let place: OutputPlace
  private let lock: OutputLock
  private let overwrite: Bool
  private let inputs: [URL]
  private let foreignness: @Sendable (URL) -> String?
  private let isOpen = Mutex(true)

  /// - Parameters:
  ///   - destination: what is to appear; refused if it exists, unless `overwrite`, which replaces it at the very end.
  ///   - inputs: what is read while it is made; a destination that is or holds one of these is never replaced.
  /// - Throws: `CheckpointError.busy` while another run makes the same output; `exists`, `cannotReplace`, `cannotWrite`.
  public convenience init(for destination: URL, overwrite: Bool, inputs: [URL] = []) throws(CheckpointError) {
    try self.init(for: destination, overwrite: overwrite, inputs: inputs) { OutputMarker.foreignness(of: $0) }
  }

  /// - Parameter foreignness: why what lies at the destination is not this program's; `nil` where it is.
  package init(
    for destination: URL, overwrite: Bool, inputs: [URL], foreignness: @escaping @Sendable (URL) -> String?
  ) throws(CheckpointError) {
    var place = try OutputPlace(destination)
    func check() throws(CheckpointError) {
      guard place.exists else { return }
      guard overwrite else { throw .exists(path: place.given.path) }
      try place.checkReplaceable(inputs: inputs, foreign: foreignness)
    }
    try check()
    try place.makeParents()
    do throws(CheckpointError) {
      lock = try OutputLock(place)
      if lock.excludesOthers { try Self.clear(place) }
      // Another run may have ended meanwhile.
      try check()
      directory = place.freshSibling("partial")
      guard mkdir(directory.path, 0o777) == 0 else { throw .cannotWrite(path: place.given.path, reason: SystemError.text) }
    } catch {
      place.removeParents()
      throw error
    }
    (self.place, self.overwrite, self.inputs, self.foreignness) = (place, overwrite, inputs, foreignness)
    self.destination = place.url
    remarks = lock.excludesOthers ? [] : ["\(place.parent.path): this file system has no locks; start no second run with this output"]
    do throws(CheckpointError) { try write(CheckpointFile(OutputMarker.name, .text(OutputMarker.unfinished))) } catch {
      abandon()
      throw error
    }
  }

  deinit { abandon() }

  /// Takes away what killed runs left, and gives an output its name back that one of them was about to replace.
  private static func clear(_ place: OutputPlace) throws(CheckpointError) {
    do {
      for old in place.siblings("replaced") where OutputMarker.foreignness(of: old) == nil {
        if place.exists { try discard(old, place) } else { try FileManager.default.moveItem(at: old, to: place.url) }
      }
      // A run that was killed behind its last step.
      if let journal = RunJournal(at: OutputState.journalPlace(place)), journal.isDone(with: place.url) { journal.remove() }
      for left in place.siblings("partial") where OutputMarker.isStaging(left) { try OutputMarker.remove(left) }
    } catch {
      throw .cannotWrite(path: place.given.path, reason: "what an earlier run left cannot be removed: \(SystemError.reason(error))")
    }
  }

  /// Removes an output that has been replaced. By its other name it is nothing to go back to, half gone as it may be.
  private static func discard(_ old: URL, _ place: OutputPlace) throws {
    let left = place.freshSibling("partial")
    try FileManager.default.moveItem(at: old, to: left)
    try OutputMarker.remove(left)
  }

  /// Where what is kept for another run lies, whatever becomes of this directory.
  public var journalPlace: URL { OutputState.journalPlace(place) }

  // MARK: Files

  /// Of a file in the directory.
  public func url(_ name: String) -> URL { directory.appending(path: name) }

  /// What messages call a file: the name that it was to have.
  private func finalPath(_ name: String) -> String { place.given.appending(path: name).path }

  /// Opens a new file for reading and writing; directories in its name are made as needed.
  func create(_ name: String) throws(CheckpointError) -> FileHandle {
    let url = url(name)
    if name.contains("/") {
      do { try FileManager.default.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true) } catch {
        throw failure(finalPath(name), error)
      }
    }
    let descriptor = open(url.path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o666)
    guard descriptor >= 0 else { throw .cannotWrite(path: finalPath(name), reason: SystemError.text) }
    return FileHandle(fileDescriptor: descriptor, closeOnDealloc: true)
  }

  /// A file without a name: only this handle reads and writes it, and it is gone with the process.
  func scratchFile() throws(CheckpointError) -> FileHandle {
    let name = ".scratch"
    let file = try create(name)
    guard unlink(url(name).path) == 0 else { throw .cannotWrite(path: finalPath(name), reason: SystemError.text) }
    return file
  }

  /// Writes a file, or copies it here; one that lies here already stays as it is.
  public func write(_ file: CheckpointFile) throws(CheckpointError) {
    switch file.content {
    case .text(let text):
      // What describes the weights wins over a companion of that name.
      unlink(url(file.name).path)
      let handle = try create(file.name)
      do {
        try handle.write(contentsOf: Data(text.utf8))
        try handle.synchronize()
        try handle.close()
      } catch { throw failure(finalPath(file.name), error) }
    case .copy(let source):
      guard source.path != url(file.name).path else { return }
      try copy(source, to: file.name)
    }
  }

  /// Copies files here.
  ///
  /// - Returns: the same files, at the places where they lie now.
  public func gather(_ files: [CheckpointFile]) throws(CheckpointError) -> [CheckpointFile] {
    var gathered: [CheckpointFile] = []
    for file in files {
      try write(file)
      gathered.append(CheckpointFile(file.name, .copy(of: url(file.name))))
    }
    return gathered
  }

  /// Copies what a name leads to, through links.
  private func copy(_ source: URL, to name: String) throws(CheckpointError) {
    // Opening a pipe would wait for a writer.
    let from = open(source.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard from >= 0 else { throw .unreadable(path: source.path, reason: SystemError.text) }
    defer { close(from) }
    var entry = stat()
    guard fstat(from, &entry) == 0, entry.st_mode & S_IFMT == S_IFREG else {
      throw .unreadable(path: source.path, reason: "it is no file that could be copied")
    }
    let target = try create(name)
    do {
      try Self.copy(Int(entry.st_size), from: from, at: 0, to: target.fileDescriptor, at: 0)
      fchmod(target.fileDescriptor, entry.st_mode & 0o777 | 0o600)
      try target.synchronize()
      try target.close()
    } catch CheckpointError.cannotWrite(_, let reason) { throw .cannotWrite(path: finalPath(name), reason: reason) } catch {
      throw failure(finalPath(name), error)
    }
  }

  // MARK: The end

  /// Gives the directory its final name, in the place of what is replaced.
  ///
  /// - Parameter journal: is taken away when the directory has its name, before others may make the same output.
  /// - Throws: `CheckpointError`, such as `cutShort` where something that was read had lost its end; then everything is as before, and the
  ///   directory is still to be abandoned.
  public func publish(removing journal: RunJournal? = nil) throws(CheckpointError) {
    let files: [String]
    do { files = try OutputMarker.files(in: directory) } catch { throw failure(place.given.path, error) }
    // There is a marker at every moment, or a run that is killed here would leave what nobody knows.
    let marker = OutputMarker.name + ".new"
    try write(CheckpointFile(marker, .text(OutputMarker.finished(files))))
    guard rename(url(marker).path, url(OutputMarker.name).path) == 0 else {
      throw .cannotWrite(path: place.given.path, reason: SystemError.text)
    }
    DurableFile.synchronize(directory)
    try journal?.markDone(by: directory)
    try publish(directory, journal)
  }

  /// Gives one file of the directory the final name instead, and takes the rest away.
  package func publish(_ name: String) throws(CheckpointError) {
    DurableFile.synchronize(url(name))
    try publish(url(name))
    try? OutputMarker.remove(directory)
  }

  private func publish(_ item: URL, _ journal: RunJournal? = nil) throws(CheckpointError) {
    try MappedFile.checkIntact()
    var old: URL?
    var isDirectory: ObjCBool = false
    if FileManager.default.fileExists(atPath: destination.path, isDirectory: &isDirectory) {
      guard overwrite else { throw .exists(path: place.given.path) }
      try place.checkReplaceable(inputs: inputs, foreign: foreignness)
    }
    // A file is replaced in one step, a directory only once there is none of its name.
    if isDirectory.boolValue {
      let aside = place.freshSibling("replaced")
      guard rename(destination.path, aside.path) == 0 else { throw .cannotWrite(path: place.given.path, reason: SystemError.text) }
      old = aside
    }
    guard rename(item.path, destination.path) == 0 else {
      let reason = SystemError.text
      if let old { rename(old.path, destination.path) }
      throw .cannotWrite(path: place.given.path, reason: reason)
    }
    DurableFile.synchronize(place.parent)
    isOpen.withLock { $0 = false }
    // Where this fails the next run does it.
    if let old { try? Self.discard(old, place) }
    journal?.remove()
    lock.release()
  }

  /// Takes everything away that was written, unless it has been published.
  public func abandon() {
    isOpen.withLock { isOpen in
      guard isOpen else { return }
      isOpen = false
      try? OutputMarker.remove(directory)
      lock.release()
      place.removeParents()
    }
  }

  /// The error as one of ours, in the operating system's words where it has any.
  func failure(_ path: String, _ error: any Error) -> CheckpointError {
    (error as? CheckpointError) ?? .cannotWrite(path: path, reason: SystemError.reason(error))
  }
}
