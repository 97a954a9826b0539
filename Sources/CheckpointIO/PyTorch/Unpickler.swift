internal import Foundation
internal import Tensors

/// A closed machine for the pickles that torch writes: it knows the opcodes and the global names that such files need, refuses all
/// others by name, and has no way to execute anything.
struct Unpickler {
  private let bytes: UnsafeRawBufferPointer
  private let path: String
  private var offset = 0
  private var stack: [PickleValue] = []
  /// Heights of the stack.
  private var marks: [Int] = []
  private var memo: [Int: PickleValue] = [:]
  /// Everything that can hold itself, so that it can be taken apart in the end.
  private var containers: [AnyObject] = []
  /// Items that went from lists into dictionaries.
  private var copied = 0

  private static let deepest = 1000

  private init(_ bytes: UnsafeRawBufferPointer, _ path: String) { (self.bytes, self.path) = (bytes, path) }

  /// Hands the object of a pickle to `body`; nothing of it outlives the call.
  static func unpickle<Value>(
    _ bytes: UnsafeRawBufferPointer, path: String, _ body: (PickleValue) throws(CheckpointError) -> Value
  ) throws(CheckpointError) -> Value {
    var machine = Unpickler(bytes, path)
    defer { machine.release() }
    return try body(try machine.run())
  }

  /// Lists and dictionaries may hold one another, in circles and to any depth: emptied one by one they are freed without recursion.
  private mutating func release() {
    (stack, memo) = ([], [:])
    for container in containers {
      if let list = container as? PickleList { list.elements = [] }
      if let dictionary = container as? PickleDictionary { dictionary.pairs = [] }
    }
  }

  private func malformed(_ reason: String) -> CheckpointError {
    .malformedHeader(path: path, offset: offset, reason: "in the pickle: " + reason)
  }

  /// What a sound pickle may hold, and is not carried out.
  private func refused(_ reason: String) -> CheckpointError {
    .notRead(path: path, reason: "in the pickle, at byte \(offset): " + reason)
  }

  private mutating func run() throws(CheckpointError) -> PickleValue {
    guard bytes.first == 0x80 else { throw malformed("it does not begin with its protocol") }
    while true {
      let code = try number(UInt8.self)
      switch code {
      case 0x80:
        let version = try number(UInt8.self)
        guard offset == 2 else { throw malformed("protocol \(version) at byte \(offset - 2)") }
        guard (2...5).contains(version) else { throw refused("protocol \(version); 2 to 5 are read") }
      case 0x95: _ = try number(UInt64.self)
      case 0x2E:
        let result = try pop()
        guard stack.isEmpty, marks.isEmpty else { throw malformed("it stops with \(stack.count) values left over") }
        return result
      case 0x28: marks.append(stack.count)
      case 0x4E: stack.append(.none)
      case 0x88: stack.append(.bool(true))
      case 0x89: stack.append(.bool(false))
      case 0x4A: stack.append(.integer(Int(try number(Int32.self))))
      case 0x4B: stack.append(.integer(Int(try number(UInt8.self))))
      case 0x4D: stack.append(.integer(Int(try number(UInt16.self))))
      case 0x8A: stack.append(.integer(try longInteger()))
      case 0x47: stack.append(.double(Double(bitPattern: try number(UInt64.self).byteSwapped)))
      case 0x58: stack.append(.string(try text(Int(try number(UInt32.self)))))
      case 0x8C: stack.append(.string(try text(Int(try number(UInt8.self)))))
      case 0x55: stack.append(.string(try text(Int(try number(UInt8.self)), isLatin: true)))
      case 0x71: memo[Int(try number(UInt8.self))] = try top()
      case 0x72: memo[Int(try number(UInt32.self))] = try top()
      case 0x94: memo[memo.count] = try top()
      case 0x68: stack.append(try recall(Int(try number(UInt8.self))))
      case 0x6A: stack.append(try recall(Int(try number(UInt32.self))))
      case 0x63: stack.append(.symbol(try symbol(try line(), try line())))
      case 0x93:
        let names = try pop(2)
        guard case .string(let module) = names[0], case .string(let name) = names[1] else { throw malformed("a symbol that has no name") }
        stack.append(.symbol(try symbol(module, name)))
      default: try build(code)
      }
    }
  }

  /// The opcodes that make values of values.
  private mutating func build(_ code: UInt8) throws(CheckpointError) {
    switch code {
    case 0x29: stack.append(.tuple([], depth: 1))
    case 0x85: try pushTuple(try pop(1))
    case 0x86: try pushTuple(try pop(2))
    case 0x87: try pushTuple(try pop(3))
    case 0x74: try pushTuple(try popToMark())
    case 0x5D, 0x8F:
      let list = PickleList()
      containers.append(list)
      stack.append(.list(list))
    case 0x7D: stack.append(.dictionary(newDictionary()))
    case 0x61: try extend(with: try pop(1))
    case 0x65: try extend(with: try popToMark())
    case 0x73: try set(try pop(2))
    case 0x75: try set(try popToMark())
    case 0x51: stack.append(.storage(try storage(try pop())))
    case 0x52, 0x81:
      let arguments = try pop()
      let function = try pop()
      guard case .symbol(let symbol) = function, let arguments = arguments.elements else {
        throw refused("\(function.kind) is called, which is refused")
      }
      guard code == 0x52 || symbol == .orderedDictionary && arguments.isEmpty else {
        throw refused("\(symbol) is made anew, which is refused")
      }
      stack.append(try result(of: symbol, arguments))
    case 0x62:
      _ = try pop()
      switch try top() {
      case .dictionary, .tensor: break
      case let other: throw refused("\(other.kind) is given a state, which is refused")
      }
    default:
      throw refused(
        "opcode \(String(format: "0x%02x", code)) is not one that weights need, and is refused; protocols 2 to 5 of torch.save are read")
    }
  }

  // MARK: Operands

  private mutating func number<Value: FixedWidthInteger>(_: Value.Type) throws(CheckpointError) -> Value {
    guard let value = bytes.little(Value.self, at: offset) else { throw malformed("it ends early") }
    offset += Value.bitWidth / 8
    return value
  }

  private mutating func take(_ count: Int) throws(CheckpointError) -> UnsafeRawBufferPointer {
    guard count <= bytes.count - offset else { throw malformed("it ends inside a string of \(count) bytes") }
    defer { offset += count }
    return UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + count])
  }

  private mutating func text(_ count: Int, isLatin: Bool = false) throws(CheckpointError) -> String {
    let bytes = try take(count)
    if isLatin { return String(String.UnicodeScalarView(bytes.map { Unicode.Scalar($0) })) }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw malformed("a string is not UTF-8") }
    return text
  }

  /// Two's complement of up to eight bytes.
  private mutating func longInteger() throws(CheckpointError) -> Int {
    let bytes = try take(Int(try number(UInt8.self)))
    guard bytes.count <= 8 else { throw malformed("an integer of \(bytes.count) bytes") }
    guard let last = bytes.last else { return 0 }
    let value = bytes.enumerated().reduce(UInt64(0)) { $0 | UInt64($1.element) << UInt64(8 * $1.offset) }
    let missing = 64 - 8 * bytes.count
    return last & 0x80 == 0
      ? Int(truncatingIfNeeded: value) : Int(truncatingIfNeeded: Int64(bitPattern: value << UInt64(missing)) >> missing)
  }

  private mutating func line() throws(CheckpointError) -> String {
    guard let end = bytes[offset...].prefix(256).firstIndex(of: 0x0A) else { throw malformed("a name without an end") }
    let line = try text(end - offset)
    offset += 1
    return line
  }

  private func symbol(_ module: String, _ name: String) throws(CheckpointError) -> PickleSymbol {
    guard let symbol = PickleSymbol(module: module, name: name) else {
      throw refused(
        "it asks for \(module).\(name), which weights do not need; nothing in a pickle is executed, and what is not known is refused")
    }
    return symbol
  }

  // MARK: The stack

  private func top() throws(CheckpointError) -> PickleValue {
    guard let value = stack.last, stack.count > marks.last ?? 0 else { throw malformed("its stack runs empty") }
    return value
  }

  private mutating func pop() throws(CheckpointError) -> PickleValue {
    let value = try top()
    stack.removeLast()
    return value
  }

  private mutating func pop(_ count: Int) throws(CheckpointError) -> [PickleValue] {
    guard stack.count - count >= marks.last ?? 0 else { throw malformed("its stack runs empty") }
    defer { stack.removeLast(count) }
    return Array(stack.suffix(count))
  }

  private mutating func popToMark() throws(CheckpointError) -> [PickleValue] {
    guard let mark = marks.popLast() else { throw malformed("a mark is missing") }
    defer { stack.removeLast(stack.count - mark) }
    return Array(stack[mark...])
  }

  private func recall(_ index: Int) throws(CheckpointError) -> PickleValue {
    guard let value = memo[index] else { throw malformed("nothing is remembered as \(index)") }
    return value
  }

  private mutating func pushTuple(_ elements: [PickleValue]) throws(CheckpointError) {
    var depth = 1
    for case .tuple(_, let inner) in elements { depth = max(depth, inner + 1) }
    guard depth <= Self.deepest else { throw malformed("tuples nested \(depth) deep") }
    stack.append(.tuple(elements, depth: depth))
  }

  private mutating func newDictionary() -> PickleDictionary {
    let dictionary = PickleDictionary()
    containers.append(dictionary)
    return dictionary
  }

  private mutating func extend(with elements: [PickleValue]) throws(CheckpointError) {
    guard case .list(let list) = try top() else { throw malformed("only lists are appended to") }
    list.elements += elements
  }

  private mutating func set(_ items: [PickleValue]) throws(CheckpointError) {
    guard case .dictionary(let dictionary) = try top(), items.count % 2 == 0 else { throw malformed("only dictionaries have items") }
    for index in stride(from: 0, to: items.count, by: 2) { dictionary.pairs.append((items[index], items[index + 1])) }
  }

  // MARK: Meaning

  private func storage(_ reference: PickleValue) throws(CheckpointError) -> PyTorchStorage {
    guard let parts = reference.elements, parts.count == 5, parts[0].string == "storage", case .symbol(let type) = parts[1],
      let key = parts[2].string, let location = parts[3].string, let count = parts[4].integer, count >= 0
    else { throw malformed("a reference that names no storage") }
    guard location != "meta" else { throw malformed("storage \(key) is on the device meta: it has no data") }
    switch type {
    case .storage(let dtype): return PyTorchStorage(dtype: dtype, key: key, count: count)
    case .untypedStorage: return PyTorchStorage(dtype: nil, key: key, count: count)
    case .otherStorage(let name): return PyTorchStorage(dtype: nil, unreadable: "torch.\(name)", key: key, count: count)
    default: throw malformed("\(type) is no storage")
    }
  }

  private mutating func result(of symbol: PickleSymbol, _ arguments: [PickleValue]) throws(CheckpointError) -> PickleValue {
    switch symbol {
    case .orderedDictionary:
      let dictionary = newDictionary()
      if let argument = arguments.first {
        guard arguments.count == 1, case .list(let list) = argument else { throw malformed("\(symbol) of \(argument.kind)") }
        copied += list.elements.count
        guard copied <= bytes.count else { throw malformed("\(symbol) copies one list too often") }
        for pair in list.elements {
          guard let pair = pair.elements, pair.count == 2 else { throw malformed("\(symbol) of what is no pair") }
          dictionary.pairs.append((pair[0], pair[1]))
        }
      }
      return .dictionary(dictionary)
    case .size:
      guard arguments.count == 1, case .tuple = arguments[0] else { throw malformed("\(symbol) of what is no tuple") }
      return arguments[0]
    case .device: return .ignored
    case .rebuildTensor, .rebuildTensorV2, .rebuildTensorV3: return .tensor(try tensor(symbol, arguments))
    case .rebuildParameter:
      guard case .tensor? = arguments.first else { throw malformed("\(symbol) of what is no tensor") }
      return arguments[0]
    case .rebuildFromType:
      guard arguments.count == 4, case .symbol(let function) = arguments[0], case .symbol(.tensorType) = arguments[1],
        let inner = arguments[2].elements, [.rebuildTensor, .rebuildTensorV2, .rebuildTensorV3, .rebuildParameter].contains(function)
      else { throw malformed("\(symbol) of a type that is not known") }
      return try result(of: function, inner)
    case .tensorType, .storage, .untypedStorage, .dtype, .otherStorage, .otherType: throw refused("\(symbol) is called, which is refused")
    }
  }

  private func tensor(_ symbol: PickleSymbol, _ arguments: [PickleValue]) throws(CheckpointError) -> PyTorchTensor {
    guard arguments.count >= 4, case .storage(let storage) = arguments[0], let first = arguments[1].integer,
      let shape = arguments[2].integers, let strides = arguments[3].integers
    else { throw malformed("\(symbol) without storage, offset, shape and strides") }
    var (dtype, unreadable) = (storage.dtype, storage.unreadable)
    if symbol == .rebuildTensorV3 {
      guard arguments.count >= 7, case .symbol(let type) = arguments[6] else { throw malformed("\(symbol) without a type") }
      switch type {
      case .dtype(let named): dtype = named
      case .otherType(let name): unreadable = "torch.\(name)"
      default: throw malformed("\(symbol) without a type")
      }
    }
    guard let dtype = dtype ?? (unreadable == nil ? nil : .uint8) else { throw malformed("a tensor over bytes without a type") }
    var isNegated = false
    let place = symbol == .rebuildTensorV3 ? 7 : 6
    if arguments.count > place, case .dictionary(let marks) = arguments[place] {
      for mark in marks.pairs {
        guard case .bool(let isSet) = mark.value else { throw malformed("a tensor with a mark that is no bool") }
        switch mark.key.string {
        case _ where !isSet: break
        // What is negative in name only.
        case "neg" where dtype.isReadableAsFloat: isNegated = true
        case let name: unreadable = unreadable ?? "\(dtype.rawValue) with the mark \(name ?? "")"
        }
      }
    }
    guard shape.count == strides.count, shape.count <= 64, first >= 0, (shape + strides).allSatisfy({ $0 >= 0 }) else {
      throw malformed("a tensor of shape \(shape) with strides \(strides) from \(first)")
    }
    return PyTorchTensor(
      storage: storage, dtype: dtype, view: StridedView(shape: shape, strides: strides, offset: first), isNegated: isNegated,
      unreadable: unreadable)
  }
}
