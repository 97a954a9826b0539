import CheckpointIO
import Foundation
import Tensors
import TestSupport
import Testing

/// What gguf 0.19.0's writer makes of two tensors and six keys.
private let golden = Data(
  hex: """
    4747554603000000020000000000000006000000000000001400000000000000\
    67656e6572616c2e617263686974656374757265080000000500000000000000\
    6c6c616d6111000000000000006c6c616d612e626c6f636b5f636f756e740400\
    0000010000000600000000000000782e666c6167070000000126000000000000\
    006c6c616d612e617474656e74696f6e2e6c617965725f6e6f726d5f726d735f\
    657073696c6f6e06000000acc527371500000000000000746f6b656e697a6572\
    2e67676d6c2e746f6b656e730900000008000000020000000000000001000000\
    000000006103000000000000003c733e1900000000000000746f6b656e697a65\
    722e67676d6c2e746f6b656e5f74797065090000000500000002000000000000\
    0001000000030000000100000000000000740200000003000000000000000200\
    0000000000000000000000000000000000000100000000000000710200000020\
    0000000000000001000000000000000800000020000000000000000000000000\
    000000000000803f0000004000004040000080400000a0400000000000000000\
    d0330004080c1014191d2125292d3135393d42464a4e52565a5e62666b6f7377\
    7b7f000000000000000000000000000000000000000000000000000000000000
    """)

/// The parts of a small file, to be put together wrongly.
private struct Parts {
  var magic = Array("GGUF".utf8)
  var version: UInt32 = 3
  var tensorCount: Int64?
  var keyCount: Int64?
  var keys: [[UInt8]] = []
  var tensors: [[UInt8]] = []
  var data: [UInt8] = []
  var padding = true

  var bytes: Data {
    var out = magic + little(version) + little(tensorCount ?? Int64(tensors.count)) + little(keyCount ?? Int64(keys.count))
    out += keys.flatMap { $0 } + tensors.flatMap { $0 }
    if padding { out += [UInt8](repeating: 0, count: (32 - out.count % 32) % 32) }
    return Data(out + data)
  }
}

private func little(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value.littleEndian) { Array($0) } }
private func text(_ string: String) -> [UInt8] { little(UInt64(string.utf8.count)) + Array(string.utf8) }
private func key(_ name: String, _ type: UInt32 = 4, _ value: [UInt8] = little(UInt32(32))) -> [UInt8] { text(name) + little(type) + value }
private func tensor(_ name: String, _ dimensions: [Int64], type: UInt32 = 0, offset: UInt64 = 0, rank: UInt32? = nil) -> [UInt8] {
  text(name) + little(rank ?? UInt32(dimensions.count)) + dimensions.flatMap { little($0) } + little(type) + little(offset)
}

private func open(_ data: Data) throws -> GGUFFile {
  try Places.withTemporaryDirectory { directory in
    let file = directory.appending(path: "model.gguf")
    try data.write(to: file)
    return try GGUFFile(file)
  }
}

private func expectRefusal(_ parts: Parts, _ words: String, _ location: SourceLocation = #_sourceLocation) {
  let error = #expect(throws: CheckpointError.self, sourceLocation: location) { try open(parts.bytes) }
  #expect(error.map { "\($0)".contains(words) } ?? true, "\(error.map { "\($0)" } ?? "") does not say \(words)", sourceLocation: location)
}

struct GGUFFileTests {
  @Test func theGoldenFileReads() throws {
    let file = try open(golden)
    #expect(file.names == ["t", "q"])
    #expect(file.metadata.entries.map(\.key).first == "general.architecture")
    #expect(file.metadata["general.architecture"]?.string == "llama" && file.metadata["llama.block_count"] == .uint32(1))
    #expect(file.metadata["x.flag"]?.bool == true)
    #expect(file.metadata["llama.attention.layer_norm_rms_epsilon"] == .float32(1e-5))
    #expect(file.metadata["tokenizer.ggml.tokens"] == .strings(["a", "<s>"]))
    #expect(file.metadata["tokenizer.ggml.token_type"] == .integers([1, 3]))
    #expect(file.info("t") == TensorInfo(dtype: .float32, shape: [2, 3]))
    #expect(file.info("q") == TensorInfo(type: .q8_0, shape: [1, 32]) && file.info("q")?.typeName == "Q8_0")
    #expect(try file.tensor("t").floats() == [0, 1, 2, 3, 4, 5])
    let q = try file.tensor("q")
    #expect(q.shape == [1, 34] && q.bytes.count == file.info("q")?.byteCount)
    #expect(throws: CheckpointError.missingTensor(name: "r")) { try file.tensor("r") }
  }

  @Test func theGoldenFileIsWritten() throws {
    let file = try open(golden)
    let entries = [
      GGUFHeader.Entry(name: "t", type: .f32, shape: [2, 3]), GGUFHeader.Entry(name: "q", type: .q8_0, shape: [1, 32]),
    ]
    let header = GGUFHeader(layingOut: entries, metadata: file.metadata)
    #expect(Data(header.serialized()) == golden[..<384])
    #expect(header.dataStart == 384 && header.dataLength == 96 && header.entries.map(\.offset) == [0, 32])
    let values = Matrix(rows: 1, columns: 32, elements: (0..<32).map { Float($0) })
    #expect(BlockType.q8_0.quantize(values).bytes == golden[416..<450])
  }

  @Test func everyKindOfValueSurvives() throws {
    var metadata = GGUFMetadata()
    let values: [GGUFValue] = [
      .uint8(200), .int8(-100), .uint16(60000), .int16(-30000), .uint32(4_000_000_000), .int32(-2_000_000_000), .float32(1.5), .bool(false),
      .string("ä\u{2581}"), .strings([]), .floats([1, -2]), .array(.bool, [.bool(true)]), .uint64(.max), .int64(.min), .float64(0.1),
    ]
    for (index, value) in values.enumerated() { metadata["k\(index)"] = value }
    let bytes = GGUFHeader(layingOut: [], metadata: metadata).serialized()
    #expect(try open(Data(bytes)).metadata == metadata)
    #expect(metadata["k12"]?.integer == nil && metadata["k0"]?.integer == 200 && metadata["k6"]?.double == 1.5)
    metadata["k0"] = nil
    #expect(metadata["k0"] == nil && metadata["k1"] == .int8(-100) && metadata.entries.count == values.count - 1)
  }

  @Test func otherAlignmentsAndScalarsRead() throws {
    var metadata = GGUFMetadata()
    metadata["general.alignment"] = .uint32(64)
    let header = GGUFHeader(
      layingOut: [.init(name: "scalar", type: .f32, shape: []), .init(name: "b", type: .f16, shape: [2, 2])], metadata: metadata)
    #expect(header.entries.map(\.offset) == [0, 64] && header.dataStart % 64 == 0)
    let file = try open(Data(header.serialized() + [UInt8](repeating: 0, count: 128)))
    #expect(file.info("scalar")?.shape == [] && file.info("b")?.byteCount == 8)
    // Version 2 has the same layout.
    var older = Parts(tensors: [tensor("a", [1])], data: [0, 0, 0, 0])
    older.version = 2
    #expect(try open(older.bytes).names == ["a"])
  }

  @Test func everyCutIsNoticed() throws {
    for length in 0..<450 {
      #expect(throws: CheckpointError.self, "\(length) bytes") { try open(golden[..<length]) }
    }
    // Nothing lies in the padding after the last tensor.
    #expect(try open(golden[..<450]).names.count == 2)
  }

  @Test func headersThatLieAreRefused() {
    expectRefusal(Parts(magic: Array("GGML".utf8)), "begins with the letters GGUF")
    for version: UInt32 in [0, 1, 4] { expectRefusal(Parts(version: version), "version \(version)") }
    expectRefusal(Parts(version: 3 << 24), "big-endian")
    for version: UInt32 in [1, 4, 3 << 24] {
      let error = #expect(throws: CheckpointError.self) { try open(Parts(version: version).bytes) }
      #expect(error?.hint?.contains("nothing says that the file is damaged") == true)
    }
    expectRefusal(Parts(tensorCount: -1), "-1 tensors")
    expectRefusal(Parts(tensorCount: .max), "do not fit")
    expectRefusal(Parts(keyCount: -5), "-5 keys")
    expectRefusal(Parts(keyCount: 1 << 40), "do not fit")
  }

  @Test func keysThatLieAreRefused() {
    expectRefusal(Parts(keys: [key("")]), "empty key")
    expectRefusal(Parts(keys: [key("a"), key("a")]), "occurs twice")
    expectRefusal(Parts(keys: [key("a", 13)]), "unknown value type 13")
    expectRefusal(Parts(keys: [key("a", 9, little(UInt32(9)) + little(UInt64(0)))]), "array of arrays")
    expectRefusal(Parts(keys: [key("a", 9, little(UInt32(0)) + little(UInt64(1) << 31))]), "does not fit")
    expectRefusal(Parts(keys: [key("a", 9, little(UInt32(12)) + little(UInt64(1000)))]), "does not fit")
    expectRefusal(Parts(keys: [key("a", 9, little(UInt32(4)) + little(UInt64.max))]), "does not fit")
    expectRefusal(Parts(keys: [key("a", 8, little(UInt64(1) << 31))]), "a string of")
    expectRefusal(Parts(keys: [key("a", 8, little(UInt64(500)))]), "after the file")
    expectRefusal(Parts(keys: [little(UInt64.max) + Array(repeating: 65, count: 40)]), "a key of")
    expectRefusal(Parts(keys: [key("a", 8, little(UInt64(1)) + [0xFF])]), "not UTF-8")
    expectRefusal(Parts(keys: [key("general.alignment", 10, little(UInt64(32)))]), "power of two")
    for alignment: UInt32 in [0, 3, 48] { expectRefusal(Parts(keys: [key("general.alignment", 4, little(alignment))]), "power of two") }
  }

  @Test func tensorsThatLieAreRefused() {
    let data = [UInt8](repeating: 0, count: 256)
    expectRefusal(Parts(tensors: [tensor("a", [1]), tensor("a", [1], offset: 32)], data: data), "occurs twice")
    expectRefusal(Parts(tensors: [tensor(String(repeating: "n", count: 64), [1])], data: data), "a name of 64 bytes")
    expectRefusal(Parts(tensors: [tensor("a", [1, 1, 1, 1, 1])], data: data), "5 dimensions")
    expectRefusal(Parts(tensors: [tensor("a", [], rank: .max)], data: data), "4294967295 dimensions")
    expectRefusal(Parts(tensors: [tensor("a", [-1])], data: data), "negative")
    expectRefusal(Parts(tensors: [tensor("a", [1 << 40, 1 << 40])], data: data), "overflows")
    expectRefusal(Parts(tensors: [tensor("a", [1 << 56])], data: data), "the header describes")
    expectRefusal(Parts(tensors: [tensor("a", [32], type: 4)], data: data), "unknown type 4")
    expectRefusal(Parts(tensors: [tensor("a", [32], type: 99)], data: data), "unknown type 99")
    expectRefusal(Parts(tensors: [tensor("a", [256], type: 15)], data: data), "Q8_K")
    expectRefusal(Parts(tensors: [tensor("a", [33], type: 8)], data: data), "no whole number of Q8_0 blocks")
    expectRefusal(Parts(tensors: [tensor("a", [128], type: 12)], data: data), "no whole number of Q4_K blocks")
    expectRefusal(Parts(tensors: [tensor("a", [], type: 8)], data: data), "no whole number")
    expectRefusal(Parts(tensors: [tensor("a", [1], offset: 32)], data: data), "its data lies at 32")
    expectRefusal(Parts(tensors: [tensor("a", [1]), tensor("b", [1], offset: 4)], data: data), "its data lies at 4")
    expectRefusal(Parts(tensors: [tensor("a", [1], offset: .max)], data: data), "its offset overflows")
    expectRefusal(Parts(tensors: [tensor("a", [1000])], data: data), "the header describes")
  }

  @Test func missingFilesAreNamed() {
    #expect(throws: CheckpointError.missingFile(path: "/nonexistent/model.gguf")) { try GGUFFile(URL(filePath: "/nonexistent/model.gguf")) }
  }

  /// Any byte of a header may be wrong; the reader must come to an end with a typed error or a file.
  @Test func damagedHeadersNeverTrap() throws {
    var random = KeyedRandomness(seed: 3, key: "damage")
    for _ in 0..<3000 {
      var bytes = golden
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: 0..<384, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      let result = bytes.withUnsafeBytes { buffer in
        Result { () throws(CheckpointError) in try GGUFHeader(parsing: buffer, path: "damaged") }
      }
      if case .success(let header) = result { #expect(header.dataStart + header.dataLength <= bytes.count + 64) }
    }
  }
}

extension Data {
  fileprivate init(hex: String) {
    let digits = Array(hex.utf8)
    func value(_ digit: UInt8) -> UInt8 { digit < 58 ? digit - 48 : digit - 87 }
    self.init(stride(from: 0, to: digits.count, by: 2).map { value(digits[$0]) << 4 | value(digits[$0 + 1]) })
  }
}
