import Models
import Tensors

/// Runs of equally many numbers as codes, each run with its own scale or all with one.
struct CodeRuns: Sendable, Equatable {
  enum Coding: Sendable, Hashable {
    /// 8 bits under a scale that calibration has fixed.
    case fixed(CacheScale)
    /// Scales measured from every run.
    case measured(CacheNumbers)

    var bits: Int {
      switch self {
      case .fixed: 8
      case .measured(let numbers): numbers.bits
      }
    }
  }

  let coding: Coding
  /// Numbers in a run.
  let length: Int
  /// Codes, every run on whole words.
  private var words: [UInt32] = []
  /// As they are stored: rounded to binary16 for integers.
  private var scales: [Float] = []
  private var lows: [Float] = []
  private(set) var count = 0

  init(_ coding: Coding, length: Int) {
    self.coding = coding
    self.length = length
  }

  private var wordsPerRun: Int { (length * coding.bits + 31) / 32 }

  /// Bytes of codes and scales; the one fixed scale of a block counts nothing.
  var byteCount: Int {
    let codes = count * ((length * coding.bits + 7) / 8)
    guard case .measured(let numbers) = coding else { return codes }
    return codes + count * numbers.bitsPerGroup / 8
  }

  mutating func append(_ run: UnsafeBufferPointer<Float>) {
    var codes = [UInt8](repeating: 0, count: length)
    codes.withUnsafeMutableBufferPointer { codes in
      let codes = codes.baseAddress!
      switch coding {
      case .fixed(let fixed):
        switch fixed.grid {
        case .integer: Kernel.quantize(run, scale: fixed.scale, zero: 128, top: 255, into: codes)
        case .float: MiniFloat.e4m3.encode(run, scale: fixed.scale, into: codes)
        }
      case .measured(let numbers):
        let range = Kernel.range(run)
        switch numbers.grid {
        case .integer: quantize(run, range, top: Float((1 << numbers.bits) - 1), into: codes)
        case .float:
          let amax = max(-range.lowerBound, range.upperBound)
          // A run of zeros stays one whatever it is divided by.
          scales.append(amax > 0 ? max(amax / MiniFloat.e4m3.largest, .leastNormalMagnitude) : 1)
          MiniFloat.e4m3.encode(run, scale: scales[count], into: codes)
        }
      }
    }
    words += Kernel.pack(codes, rowLength: length, bits: coding.bits)
    count += 1
  }

  private mutating func quantize(
    _ run: UnsafeBufferPointer<Float>, _ range: ClosedRange<Float>, top: Float, into codes: UnsafeMutablePointer<UInt8>
  ) {
    let limit = Float(Float16.greatestFiniteMagnitude)
    let low = Float(Float16(min(max(range.lowerBound, -limit), limit)))
    let scale = Float(Float16(min((range.upperBound - low) / top, limit)))
    lows.append(low)
    scales.append(scale)
    // Nothing to tell apart: every code is 0, which stands for the low end.
    guard scale > 0 else { return }
    // The offset goes first: added to the quotient as a zero point it would cost the small steps of a large offset.
    withUnsafeTemporaryAllocation(of: Float.self, capacity: length) { shifted in
      for index in 0..<length { shifted[index] = run[index] - low }
      Kernel.quantize(UnsafeBufferPointer(shifted), scale: scale, zero: 0, top: top, into: codes)
    }
  }

  /// What the codes stand for: run `index` is written from `destination(index)` on.
  func decode(to destination: (Int) -> UnsafeMutablePointer<Float>) {
    guard count > 0 else { return }
    Kernel.unpack(words, rowLength: length, bits: coding.bits).withUnsafeBufferPointer { codes in
      for index in 0..<count {
        let run = UnsafeBufferPointer(rebasing: codes[index * length..<(index + 1) * length])
        let out = destination(index)
        switch coding {
        case .fixed(let fixed) where fixed.grid == .integer: Kernel.dequantize(run, scale: fixed.scale, zero: 128, into: out)
        case .fixed(let fixed): MiniFloat.e4m3.decode(run, scale: fixed.scale, into: out)
        case .measured(let numbers) where numbers.grid == .integer:
          Kernel.dequantize(run, scale: scales[index], bias: lows[index], into: out)
        case .measured: MiniFloat.e4m3.decode(run, scale: scales[index], into: out)
        }
      }
    }
  }

  /// Leaves only the given runs, in ascending order.
  mutating func keep(_ runs: [Int]) {
    let width = wordsPerRun
    words = runs.flatMap { words[$0 * width..<($0 + 1) * width] }
    if !scales.isEmpty { scales = runs.map { scales[$0] } }
    if !lows.isEmpty { lows = runs.map { lows[$0] } }
    count = runs.count
  }
}
