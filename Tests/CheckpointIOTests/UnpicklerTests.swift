import CheckpointIO
import Foundation
import TestSupport
import Testing

/// Pickles written by hand in an archive of our own: what the machine refuses, one by one.
struct UnpicklerTests {
  private func complaint(_ pickle: [UInt8]) throws -> String? {
    try Places.withTemporaryDirectory { directory in
      let url = directory.appending(path: "x.pt")
      try StoredArchive.bytes(["x/data.pkl": Data(pickle), "x/data/0": Data(count: 16)]).write(to: url)
      return ForeignFiles.complaint { try PyTorchFile(url) }
    }
  }

  private static func line(_ module: String, _ name: String) -> [UInt8] { Array("c\(module)\n\(name)\n".utf8) }

  /// A dictionary of one tensor of 4 floats, with shape, strides and offset as given.
  private static func tensor(_ shape: [UInt8], _ strides: [UInt8], offset: UInt8 = 0, count: UInt8 = 4, location: String = "cpu") -> [UInt8]
  {
    func tuple(_ numbers: [UInt8]) -> [UInt8] { [0x28] + numbers.flatMap { [0x4B, $0] } + [0x74] }
    func text(_ text: String) -> [UInt8] { [0x8C, UInt8(text.utf8.count)] + Array(text.utf8) }
    let parts: [[UInt8]] = [
      [0x80, 2, 0x7D], text("a"), line("torch._utils", "_rebuild_tensor_v2"), [0x28, 0x28], text("storage"), line("torch", "FloatStorage"),
      text("0"), text(location), [0x4B, count, 0x74, 0x51, 0x4B, offset], tuple(shape), tuple(strides),
      [0x89, 0x4E, 0x74, 0x52, 0x73, 0x2E],
    ]
    return parts.flatMap { $0 }
  }

  @Test func theSamplesAreSound() throws {
    #expect(try complaint(Self.tensor([4], [1])) == nil)
    #expect(try complaint(Self.tensor([2, 2], [1, 2])) == nil)
    #expect(try complaint(Self.tensor([], [], offset: 3)) == nil)
    #expect(try complaint(Self.tensor([0, 9], [200, 200], offset: 200)) == nil)
  }

  @Test func viewsStayInsideTheirStorage() throws {
    for pickle in [Self.tensor([5], [1]), Self.tensor([2], [4]), Self.tensor([1], [1], offset: 4), Self.tensor([2, 2], [2, 2])] {
      #expect(try complaint(pickle)?.contains("beyond its storage") == true)
    }
    #expect(try complaint(Self.tensor([4], [1], count: 5))?.contains("declared") == true)
    #expect(try complaint(Self.tensor([4], [1], location: "meta"))?.contains("meta") == true)
    #expect(try complaint(Self.tensor([4, 1], [1]))?.contains("strides") == true)
    #expect(try complaint(Self.tensor([255, 255, 255], [0, 0, 0]))?.contains("more than the whole file") == true)
  }

  /// The bytes after the protocol, and a part of what is said about them.
  private struct Refusal {
    let body: [UInt8]
    let reason: String

    init(_ reason: String, _ parts: [UInt8]...) {
      body = parts.flatMap { $0 }
      self.reason = reason
    }
  }

  private static let refusals: [Refusal] = [
    Refusal("os.system", line("os", "system")), Refusal("builtins.eval", line("builtins", "eval")),
    Refusal("numpy.ndarray", line("numpy", "ndarray")), Refusal("torch.load", line("torch", "load")),
    Refusal("__builtin__.set", line("__builtin__", "set")), Refusal("_rebuild_qtensor", line("torch._utils", "_rebuild_qtensor")),
    Refusal("runs empty", [0x93]), Refusal("has no name", [0x4E, 0x4E, 0x93]), Refusal("opcode 0x69", [0x69]),
    Refusal("opcode 0x82", [0x82, 1]), Refusal("runs empty", [0x29, 0x52]),
    Refusal("is called", [0x4B, 1, 0x29, 0x52]), Refusal("remembered", [0x68, 9]), Refusal("mark", [0x74]),
    Refusal("appended", [0x4B, 1, 0x4B, 1, 0x61]), Refusal("mark", [0x7D, 0x4B, 1, 0x75]), Refusal("given a state", [0x4E, 0x4E, 0x62]),
    Refusal("integer of 9", [0x8A, 9], [UInt8](repeating: 1, count: 9)), Refusal("inside a string", [0x58, 255, 255, 255, 127]),
    Refusal("UTF-8", [0x8C, 1, 0xFF]), Refusal("called", line("torch", "FloatStorage"), [0x29, 0x52]),
    Refusal("left over", [0x4E, 0x4E, 0x2E]), Refusal("names no storage", [0x4E, 0x51]),
    Refusal("OrderedDict of", line("collections", "OrderedDict"), [0x4B, 1, 0x85, 0x52]), Refusal("ends early"),
    Refusal("nested", [0x29], [UInt8](repeating: 0x85, count: 1000)), Refusal("protocol", [0x80, 2]),
    Refusal("without an end", Array("cxxx".utf8)),
  ]

  @Test func refuses() throws {
    for refusal in Self.refusals {
      let complaint = try #require(try complaint([0x80, 2] + refusal.body))
      #expect(complaint.contains(refusal.reason), "\(complaint)")
    }
  }

  /// Protocol 4 takes the names of a symbol from the stack.
  @Test func protocol4IsRead() throws {
    func text(_ text: String) -> [UInt8] { [0x8C, UInt8(text.utf8.count)] + Array(text.utf8) + [0x94] }
    let module = text("torch._utils") + text("_rebuild_tensor_v2") + [0x93, 0x94]
    let storage =
      text("storage") + text("torch") + text("FloatStorage") + [0x93, 0x94] + text("0") + text("cpu") + [0x4B, 4, 0x74, 0x94, 0x51]
    let frame: [UInt8] = [0x80, 4, 0x95, 0, 0, 0, 0, 0, 0, 0, 0, 0x7D, 0x94]
    let tail: [UInt8] = [0x4B, 0, 0x4B, 4, 0x85, 0x94, 0x4B, 1, 0x85, 0x94, 0x89, 0x7D, 0x94, 0x74, 0x94, 0x52, 0x94, 0x73, 0x2E]
    #expect(try complaint(frame + text("a") + module + [0x28, 0x28] + storage + tail) == nil)
    #expect(try complaint(frame + text("os") + text("system") + [0x93, 0x2E])?.contains("os.system") == true)
  }

  /// What a sound file may hold is not called damage.
  @Test func refusalsDoNotBlameTheFile() throws {
    func hint(_ pickle: [UInt8]) throws -> String? {
      try Places.withTemporaryDirectory { directory in
        let url = directory.appending(path: "x.pt")
        try StoredArchive.bytes(["x/data.pkl": Data(pickle)]).write(to: url)
        do { _ = try PyTorchFile(url) } catch { return (error as? CheckpointError)?.hint }
        return nil
      }
    }
    for pickle in [[0x80, 2] + Self.line("os", "system"), [0x80, 9, 0x2E], [0x80, 2, 0x49]] as [[UInt8]] {
      #expect(try hint(pickle)?.contains("nothing says that the file is damaged") == true)
    }
    #expect(try hint([0x80, 2, 0x58, 255])?.contains("fetch the file again") == true)
  }

  @Test func thePickleNeedsItsProtocol() throws {
    #expect(try complaint([0x7D, 0x2E])?.contains("protocol") == true)
    #expect(try complaint([0x80, 6, 0x7D, 0x2E])?.contains("protocol 6") == true)
    #expect(try complaint([])?.contains("protocol") == true)
  }

  @Test func containersThatHoldThemselvesAreFreed() throws {
    // A list that holds itself, ten thousand lists inside one another, and then nothing that is a dictionary.
    let inner: [UInt8] = [0x5D, 0x71, 1, 0x68, 0, 0x61, 0x71, 0]
    var pickle: [UInt8] = [0x80, 2, 0x5D, 0x71, 0, 0x68, 0, 0x61]
    for _ in 0..<10_000 { pickle += inner }
    pickle += [0x28, 0x74, 0x4E, 0x2E]
    let complaint = try complaint(pickle)
    #expect(complaint?.contains("left over") == true)
  }

  @Test func oneListIsNotCopiedForEver() throws {
    var pickle: [UInt8] = [0x80, 2]
    pickle += Self.line("collections", "OrderedDict")
    pickle += [0x71, 1, 0x5D, 0x71, 0]
    for _ in 0..<200 { pickle += [0x4E, 0x4E, 0x86, 0x61] as [UInt8] }
    for _ in 0..<200 { pickle += [0x68, 1, 0x68, 0, 0x85, 0x52] as [UInt8] }
    #expect(try complaint(pickle)?.contains("too often") == true)
  }
}
