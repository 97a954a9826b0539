package import Foundation
internal import Synchronization
package import Tensors

/// One matrix per sequence, in memory or in a scratch file that has no name.
///
/// The file is unlinked as soon as it is open, so it vanishes with the process whatever happens; its pages belong to the system's cache
/// and count against no limit of ours.
package final class ActivationStore: Sendable {
  private struct Slot { var offset: Int, capacity: Int, rows: Int, columns: Int }
  private struct Contents {
    var held: [Int: Matrix] = [:]
    var slots: [Int: Slot] = [:]
    var fileEnd = 0
  }
  private let contents = Mutex(Contents())
  private let file: FileHandle?

  /// - Parameter scratch: the directory of the scratch file; `nil` keeps everything in memory.
  package init(scratch: URL?) throws {
    guard let scratch else {
      file = nil
      return
    }
    let url = scratch.appending(path: ".compress-activations-\(UUID().uuidString)")
    guard FileManager.default.createFile(atPath: url.path, contents: nil) else {
      throw ScratchError(path: url.path, reason: "cannot be created")
    }
    file = try FileHandle(forUpdating: url)
    try FileManager.default.removeItem(at: url)
  }

  func remove(_ index: Int) { contents.withLock { $0.held[index] = nil } }

  package func write(_ matrix: Matrix, at index: Int) throws {
    guard let file else { return contents.withLock { $0.held[index] = matrix } }
    let count = matrix.elements.count * 4
    let offset = contents.withLock { contents -> Int in
      var slot = contents.slots[index] ?? Slot(offset: contents.fileEnd, capacity: 0, rows: 0, columns: 0)
      if slot.capacity < count {
        slot.offset = contents.fileEnd
        slot.capacity = count
        contents.fileEnd += count
      }
      (slot.rows, slot.columns) = (matrix.rows, matrix.columns)
      contents.slots[index] = slot
      return slot.offset
    }
    try matrix.elements.withUnsafeBytes { bytes in
      var done = 0
      while done < count {
        let written = pwrite(file.fileDescriptor, bytes.baseAddress! + done, count - done, off_t(offset + done))
        guard written > 0 else { throw ScratchError(path: "scratch file", reason: String(cString: strerror(errno))) }
        done += written
      }
    }
  }

  package func read(_ index: Int) throws -> Matrix {
    guard let file else { return contents.withLock { $0.held[index]! } }
    let slot = contents.withLock { $0.slots[index]! }
    var failure: ScratchError?
    let matrix = Matrix(rows: slot.rows, columns: slot.columns) { buffer in
      let bytes = UnsafeMutableRawBufferPointer(buffer)
      var done = 0
      while done < bytes.count {
        let got = pread(file.fileDescriptor, bytes.baseAddress! + done, bytes.count - done, off_t(slot.offset + done))
        guard got > 0 else {
          failure = ScratchError(path: "scratch file", reason: String(cString: strerror(errno)))
          buffer.update(repeating: 0)
          return
        }
        done += got
      }
    }
    if let failure { throw failure }
    return matrix
  }
}

/// The scratch file for activations could not be used.
public struct ScratchError: Error, Equatable, Sendable, CustomStringConvertible {
  public let path: String
  public let reason: String
  public var description: String { "\(path): \(reason); the scratch file holds hidden states beyond --memory-limit" }
}
