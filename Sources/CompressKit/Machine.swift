internal import Foundation
internal import Tensors

/// Sizes of this machine and process.
public enum Machine {
  public static var physicalMemory: Int { Int(ProcessInfo.processInfo.physicalMemory) }

  /// Bytes that this process may use in all: what the machine has, or what a limit of the address space (`ulimit -v`) leaves.
  public static var usableMemory: Int { min(physicalMemory, addressSpaceLeft ?? .max) }

  /// Bytes of address space that may still be mapped; `nil` where there is no limit.
  static var addressSpaceLeft: Int? {
    var limit = rlimit()
    guard getrlimit(addressSpace, &limit) == 0, limit.rlim_cur < UInt64(Int.max) else { return nil }
    return max(0, Int(limit.rlim_cur) - (figure("VmSize") ?? 0))
  }

  #if canImport(Glibc)
    private static let addressSpace = __rlimit_resource_t(RLIMIT_AS.rawValue)
  #else
    private static let addressSpace = RLIMIT_AS
  #endif

  /// The largest resident size this process has had, in bytes; `nil` where the system does not say.
  public static var peakMemory: Int? { figure("VmHWM") }

  /// What the processor calls itself; `nil` where the system does not say.
  public static var processor: String? {
    #if canImport(Darwin)
      var size = 0
      guard sysctlbyname("machdep.cpu.brand_string", nil, &size, nil, 0) == 0, size > 1 else { return nil }
      var text = [UInt8](repeating: 0, count: size)
      guard sysctlbyname("machdep.cpu.brand_string", &text, &size, nil, 0) == 0 else { return nil }
      return String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
    #else
      guard let text = try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8) else { return nil }
      let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
      return line?.split(separator: ":", maxSplits: 1).dropFirst().first.map { $0.trimmingCharacters(in: .whitespaces) }
    #endif
  }

  private static func figure(_ name: String) -> Int? {
    guard let status = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8),
      let line = status.split(separator: "\n").first(where: { $0.hasPrefix(name + ":") }),
      let kilobytes = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).dropFirst().first.flatMap({ Int($0) })
    else { return nil }
    return kilobytes * 1024
  }

  /// What the program itself takes, its libraries and its threads' stacks included, before there is any model.
  public static let ownMemory = 56 << 20

  /// Whether so much will be had, before it is asked for: an allocation that fails in the middle of the work ends the process.
  ///
  /// - Parameters:
  ///   - mapped: bytes of files that will be mapped beside it, which count only where the address space is limited.
  ///   - limit: what the user allows.
  /// - Throws: `NotEnoughMemory`.
  public static func require(_ bytes: Int, mapped: Int = 0, limit: Int = .max) throws(NotEnoughMemory) {
    guard bytes <= physicalMemory else { throw NotEnoughMemory(needed: bytes, available: physicalMemory, bound: .machine) }
    guard bytes <= limit else { throw NotEnoughMemory(needed: bytes, available: limit, bound: .limit) }
    // Stacks of threads, and what allocators hold back.
    let slack = 64 << 20
    if let left = addressSpaceLeft, bytes + mapped + slack > left {
      throw NotEnoughMemory(needed: bytes + mapped + slack, available: left, bound: .addressSpace)
    }
  }

  /// Prepares the process for products on so many threads.
  ///
  /// - Throws: `NotEnoughMemory` where the address space is limited to less than the linear algebra wants for itself.
  public static func prepare(threads: Int) throws(NotEnoughMemory) {
    guard let left = addressSpaceLeft else { return }
    guard BLAS.reserveWorkspace(threads: threads) else {
      throw NotEnoughMemory(needed: (threads + 1) << 27, available: left, bound: .addressSpace)
    }
  }
}

/// What a run needs at least is more than it may take.
public struct NotEnoughMemory: Error, Equatable, Sendable, CustomStringConvertible {
  /// What it is that has too little.
  public enum Bound: Sendable {
    case machine
    /// A limit of the process (`ulimit -v`).
    case addressSpace
    /// What the user allows.
    case limit
  }

  public let needed: Int
  public let available: Int
  public let bound: Bound

  public var description: String {
    let (needed, available) = (ByteCount.text(needed), ByteCount.text(available))
    return switch bound {
    case .machine: "at least \(needed) of memory are needed; this machine has \(available)"
    case .limit: "at least \(needed) of memory are needed, and the limit is \(available); raise --memory-limit, or free memory"
    case .addressSpace:
      "at least \(needed) of address space are needed, and the limit of this process (ulimit -v) leaves \(available); raise it, or use fewer --threads"
    }
  }
}
