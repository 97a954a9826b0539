import Foundation
import Tensors

/// Damages bytes: a few changes of the kinds that files suffer and attackers make. The same seed makes the same damage.
struct Mutator {
  private var random: KeyedRandomness
  /// What other seeds look like, to splice from.
  private let corpus: [Data]

  /// Numbers that lengths and counts go wrong at.
  private static let edges: [UInt64] = [
    0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 1 << 32, 1 << 40,
    1 << 62, 0x7FFF_FFFF_FFFF_FFFF, 1 << 63, .max,
  ]
  private static let digits = Array("0123456789".utf8)
  private static let signs = Array("{}[]\",:'()-.eE\\/\n \u{0}".utf8)

  init(seed: UInt64, corpus: [Data]) {
    random = KeyedRandomness(seed: seed, key: "fuzz")
    self.corpus = corpus
  }

  mutating func next() -> Data {
    var bytes = corpus.randomElement(using: &random).map { [UInt8]($0) } ?? []
    for _ in 0..<(1 << Int.random(in: 0...3, using: &random)) { change(&bytes) }
    return Data(bytes)
  }

  private mutating func change(_ bytes: inout [UInt8]) {
    guard !bytes.isEmpty else {
      bytes = (0..<Int.random(in: 0...40, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      return
    }
    let place = Int.random(in: 0..<bytes.count, using: &random)
    let length = min(1 << Int.random(in: 0...7, using: &random), bytes.count - place)
    switch Int.random(in: 0...11, using: &random) {
    case 0: bytes[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
    case 1: bytes[place] = UInt8.random(in: 0...255, using: &random)
    case 2: bytes[place] = bytes[place] &+ (Bool.random(using: &random) ? 1 : 255)
    case 3: number(&bytes, place)
    case 4: bytes.removeSubrange(place..<place + length)
    case 5: bytes.insert(contentsOf: (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) }, at: place)
    case 6: bytes.insert(contentsOf: bytes[place..<place + length], at: Int.random(in: 0...bytes.count, using: &random))
    case 7: bytes.removeLast(bytes.count - place)
    case 8: splice(&bytes, place)
    case 9: bytes[place] = Self.signs.randomElement(using: &random)!
    case 10: digit(&bytes, place)
    default: for index in place..<place + length { bytes[index] = bytes[place] }
    }
  }

  /// An integer of one to eight bytes, at an edge or close to what was there.
  private mutating func number(_ bytes: inout [UInt8], _ place: Int) {
    let size = [1, 2, 4, 8].randomElement(using: &random)!
    guard place + size <= bytes.count else { return }
    var value = Self.edges.randomElement(using: &random)! &+ UInt64(bitPattern: Int64.random(in: -2...2, using: &random))
    if Bool.random(using: &random) { value = value.byteSwapped }
    for index in 0..<size { bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
  }

  private mutating func splice(_ bytes: inout [UInt8], _ place: Int) {
    guard let other = corpus.randomElement(using: &random), !other.isEmpty else { return }
    let start = Int.random(in: 0..<other.count, using: &random)
    let end = min(other.count, start + (1 << Int.random(in: 0...9, using: &random)))
    let piece = other[other.startIndex + start..<other.startIndex + end]
    bytes.replaceSubrange(place..<min(place + (Bool.random(using: &random) ? piece.count : 0), bytes.count), with: piece)
  }

  /// Numbers in text: another one, or one of many digits.
  private mutating func digit(_ bytes: inout [UInt8], _ place: Int) {
    guard let start = bytes[place...].firstIndex(where: Self.digits.contains) else { return }
    let text = Bool.random(using: &random) ? "\(Self.edges.randomElement(using: &random)!)" : "\(Int.random(in: -3...70, using: &random))"
    bytes.replaceSubrange(start...start, with: text.utf8)
  }
}
