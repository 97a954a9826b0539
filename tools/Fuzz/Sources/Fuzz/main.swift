import CLibFuzzer
import Foundation

// Fuzz READER [options and corpora of libFuzzer]: feeds one reader what libFuzzer makes up, and stops at anything that it does not promise.

let names = FuzzedReader.all.map(\.name).joined(separator: ", ")
guard CommandLine.arguments.count > 1, let chosen = FuzzedReader.all.first(where: { $0.name == CommandLine.arguments[1] }) else {
  FileHandle.standardError.write(Data("usage: Fuzz READER [options] [corpus]; readers: \(names)\n".utf8))
  exit(2)
}
FuzzedReader.current = chosen

// The driver may rewrite its arguments, so they are given to it for good.
var arguments: [UnsafeMutablePointer<CChar>?] = ([CommandLine.arguments[0]] + CommandLine.arguments.dropFirst(2)).map { strdup($0) }
var count = Int32(arguments.count)
arguments.append(nil)
let status = arguments.withUnsafeMutableBufferPointer { buffer in
  var base = buffer.baseAddress
  return LLVMFuzzerRunDriver(&count, &base) { data, size in
    FuzzedReader.current.attack(Data(UnsafeBufferPointer(start: data, count: size)))
    return 0
  }
}
exit(status)
