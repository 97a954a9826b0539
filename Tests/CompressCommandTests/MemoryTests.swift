import Foundation
import TestSupport
import Testing

@testable import CompressKit

/// What a process may take: of a machine, of a control group, of what a user allows.
@Suite struct MemoryTests {
  @Test func freeIsWhatLinuxCallsAvailable() {
    let text = "MemTotal:       24684084 kB\nMemFree:        15057064 kB\nMemAvailable:   17051552 kB\nBuffers: 1 kB\n"
    #expect(Machine.available(in: text) == 17_051_552 * 1024)
    #expect(Machine.available(in: "MemTotal: 1 kB\n") == nil)
    #expect(Machine.freeMemory > 0 && Machine.freeMemory <= Machine.physicalMemory)
  }

  private static func write(_ files: [String: String], below root: URL) throws {
    for (path, text) in files {
      let file = root.appending(path: path)
      try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
      try Data(text.utf8).write(to: file)
    }
  }

  /// The tightest group on the way to the process counts, less what is used and could not be dropped.
  @Test func groupsOfTheSecondVersion() throws {
    try Places.withTemporaryDirectory { root in
      try Self.write(
        [
          "a/memory.max": "1000000\n", "a/memory.current": "400000\n", "a/memory.stat": "anon 1\ninactive_file 100000\n",
          "a/b/memory.max": "max\n", "a/b/memory.current": "100\n", "a/b/memory.stat": "inactive_file 0\n",
        ], below: root)
      #expect(ControlGroups(root: root, membership: "0::/a/b\n").memoryLeft == 700_000)
      #expect(ControlGroups(root: root, membership: "0::/c\n").memoryLeft == nil)
      #expect(ControlGroups(root: root, membership: "").memoryLeft == nil)
    }
  }

  /// In a container the path is often the host's, and what is mounted is the group itself.
  @Test func groupsOfTheFirstVersion() throws {
    try Places.withTemporaryDirectory { root in
      let huge = "9223372036854771712\n"
      try Self.write(
        [
          "memory/memory.limit_in_bytes": "5000\n", "memory/memory.usage_in_bytes": "6000\n",
          "memory/memory.stat": "total_inactive_file 3000\n",
          "memory/x/memory.limit_in_bytes": huge, "memory/x/memory.usage_in_bytes": "1\n",
        ], below: root)
      for path in ["/docker/1234", "/x"] {
        #expect(ControlGroups(root: root, membership: "5:cpu,cpuacct:/\n4:memory:\(path)\n0::/\n").memoryLeft == 2000)
      }
      #expect(ControlGroups(root: root, membership: "5:cpu,cpuacct:/\n").memoryLeft == nil)
    }
  }

  @Test func whatIsNotAllowedIsRefusedWithTheLeast() throws {
    try Machine.require(1 << 20, limit: 1 << 20)
    let error = #expect(throws: NotEnoughMemory.self) { try Machine.require(3_000_000, limit: 2_000_000) }
    #expect(error == NotEnoughMemory(needed: 3_000_000, available: 2_000_000, bound: .limit))
    #expect("\(error!)".contains("at least 3.00 MB") && "\(error!)".contains("--memory-limit"))
    let machine = #expect(throws: NotEnoughMemory.self) { try Machine.require(Machine.physicalMemory + 1) }
    #expect(machine?.bound == .machine)
  }
}
