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

  /// Whether so much will be had, before it is asked for: an allocation that fails in the middle of the work ends the process.
  ///
  /// - Parameter mapped: bytes of files that will be mapped beside it, which count only where the address space is limited.
  /// - Throws: `NotEnoughMemory`.
  public static func require(_ bytes: Int, mapped: Int = 0) throws(NotEnoughMemory) {
    guard bytes <= physicalMemory else { throw NotEnoughMemory(needed: bytes, available: physicalMemory) }
    // Stacks of threads, and what allocators hold back.
    let slack = 64 << 20
    if let left = addressSpaceLeft, bytes + mapped + slack > left {
      throw NotEnoughMemory(needed: bytes + mapped + slack, available: left, isLimited: true)
    }
  }

  /// Prepares the process for products on so many threads.
  ///
  /// - Throws: `NotEnoughMemory` where the address space is limited to less than the linear algebra wants for itself.
  public static func prepare(threads: Int) throws(NotEnoughMemory) {
    guard let left = addressSpaceLeft else { return }
    guard BLAS.reserveWorkspace(threads: threads) else {
      throw NotEnoughMemory(needed: (threads + 1) << 27, available: left, isLimited: true)
    }
  }
}

/// The machine cannot hold what a run needs at least.
public struct NotEnoughMemory: Error, Equatable, Sendable, CustomStringConvertible {
  public let needed: Int
  public let available: Int
  /// Whether it is a limit of the process that is too low, and not the machine that is too small.
  public var isLimited = false

  public var description: String {
    let (needed, available) = (ByteCount.text(needed), ByteCount.text(available))
    return isLimited
      ? "at least \(needed) of address space are needed, and the limit of this process (ulimit -v) leaves \(available); raise it, or use fewer --threads"
      : "the run needs at least \(needed) of memory; this machine has \(available)"
  }
}
