internal import Foundation

extension Machine {
  /// Bytes that this process can still take without another one's being pushed out: what the machine has free, files that it only remembers
  /// included, and what limits of control groups and of the address space leave.
  public static var freeMemory: Int {
    let machine = available(in: (try? String(contentsOfFile: "/proc/meminfo", encoding: .utf8)) ?? "") ?? physicalMemory / 2
    return [machine, ControlGroups().memoryLeft, addressSpaceLeft].compactMap { $0 }.min() ?? machine
  }

  /// What a run may take where nobody says how much: nine tenths of what is free, as others will want some of it, too.
  public static var usualMemoryLimit: Int { freeMemory / 10 * 9 }

  /// `MemAvailable` of `/proc/meminfo`, in bytes.
  static func available(in text: String) -> Int? {
    let line = text.split(separator: "\n").first { $0.hasPrefix("MemAvailable:") }
    return line?.split(separator: " ").dropFirst().first.flatMap { Int($0) }.map { $0 * 1024 }
  }
}

/// Limits that control groups of Linux, such as a container's, set to the memory of all processes in them.
struct ControlGroups {
  /// Where the groups are mounted, and what `/proc/self/cgroup` says of this process.
  var root = URL(filePath: "/sys/fs/cgroup")
  var membership = (try? String(contentsOfFile: "/proc/self/cgroup", encoding: .utf8)) ?? ""

  /// The names of one version's files.
  private struct Files {
    let limit: String
    let usage: String
    /// In `memory.stat`: what the group's files take in memory and could be dropped at once.
    let droppable: String
  }

  private static let unified = Files(limit: "memory.max", usage: "memory.current", droppable: "inactive_file")
  private static let legacy = Files(limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", droppable: "total_inactive_file")

  /// Bytes that the tightest of the groups leaves; `nil` where none limits anything.
  var memoryLeft: Int? {
    let groups = membership.split(separator: "\n").flatMap { line -> [Int] in
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard parts.count == 3 else { return [] }
      let path = String(parts[2])
      if parts[1].isEmpty {
        return [root, root.appending(path: "unified")].flatMap { left(below: $0, path, Self.unified) }
      }
      return parts[1].split(separator: ",").contains("memory") ? left(below: root.appending(path: "memory"), path, Self.legacy) : []
    }
    return groups.min()
  }

  /// What the groups on the way to a path leave. Inside a container the path may be one of the host's, and the group the root of what is mounted.
  private func left(below mount: URL, _ path: String, _ files: Files) -> [Int] {
    var place = mount
    let steps =
      [mount]
      + path.split(separator: "/").map { step in
        place.append(path: String(step))
        return place
      }
    return steps.compactMap { group in
      guard let limit = number(group.appending(path: files.limit)), limit < 1 << 60, let usage = number(group.appending(path: files.usage))
      else { return nil }
      return max(0, limit - max(0, usage - droppable(group, files.droppable)))
    }
  }

  private func number(_ file: URL) -> Int? {
    (try? String(contentsOf: file, encoding: .utf8)).flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) }
  }

  private func droppable(_ group: URL, _ name: String) -> Int {
    let lines = ((try? String(contentsOf: group.appending(path: "memory.stat"), encoding: .utf8)) ?? "").split(separator: "\n")
    return lines.first { $0.hasPrefix(name + " ") }.flatMap { Int($0.dropFirst(name.count + 1)) } ?? 0
  }
}
