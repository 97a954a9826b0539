extension Reference {
  /// Element `j` of one of ggml's blocks, by the formula of its type, in double precision.
  package static func element(_ j: Int, of block: [UInt8], type: BlockType) -> Double {
    func half(_ at: Int) -> Double { Double(Float16(bitPattern: UInt16(block[at]) | UInt16(block[at + 1]) << 8)) }
    func nibble(_ at: Int, _ j: Int, of count: Int = 32) -> Int { Int(j < count / 2 ? block[at + j] & 15 : block[at + j - count / 2] >> 4) }
    func bits(_ byte: Int, from shift: Int, _ mask: UInt8) -> Int { Int(block[byte] >> UInt8(shift) & mask) }
    let nonlinear = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113]
    let doubledE2M1 = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]
    switch type {
    case .f32: return Double(Float(bitPattern: (0..<4).reduce(0) { $0 | UInt32(block[$1]) << UInt32(8 * $1) }))
    case .f16: return half(0)
    case .bf16: return Double(Float(bitPattern: (UInt32(block[0]) | UInt32(block[1]) << 8) << 16))
    case .q4_0: return Double(nibble(2, j) - 8) * half(0)
    case .q4_1: return Double(nibble(4, j)) * half(0) + half(2)
    case .q5_0: return Double((nibble(6, j) | bits(2 + j / 8, from: j % 8, 1) << 4) - 16) * half(0)
    case .q5_1: return Double(nibble(8, j) | bits(4 + j / 8, from: j % 8, 1) << 4) * half(0) + half(2)
    case .q8_0: return Double(Int8(bitPattern: block[2 + j])) * half(0)
    case .q2_k:
      let (scales, h, r) = (block[j / 16], j / 128, j % 128)
      return half(80) * Double(scales & 15) * Double(bits(16 + 32 * h + r % 32, from: 2 * (r / 32), 3)) - half(82) * Double(scales >> 4)
    case .q3_k:
      let (g, h, r) = (j / 16, j / 128, j % 128)
      let low = g < 8 ? block[96 + g] & 15 : block[96 + g - 8] >> 4
      let scale = Int(low) | bits(96 + 8 + g % 4, from: 2 * (g / 4), 3) << 4
      let code = bits(32 + 32 * h + r % 32, from: 2 * (r / 32), 3) - (bits(j % 32, from: j / 32, 1) == 1 ? 0 : 4)
      return half(108) * Double(scale - 32) * Double(code)
    case .q4_k, .q5_k:
      let (g, c, r) = (j / 32, j / 64, j % 64)
      let s = { (i: Int) in Int(block[4 + i]) }
      let scale = g < 4 ? s(g) & 63 : s(g + 4) & 15 | (s(g - 4) >> 6) << 4
      let minimum = g < 4 ? s(g + 4) & 63 : s(g + 4) >> 4 | (s(g) >> 6) << 4
      let codes = type == .q4_k ? 16 : 48
      var code = bits(codes + 32 * c + r % 32, from: r < 32 ? 0 : 4, 15)
      if type == .q5_k { code += bits(16 + j % 32, from: j / 32, 1) << 4 }
      return half(0) * Double(scale * code) - half(2) * Double(minimum)
    case .q6_k:
      let (h, k, l) = (j / 128, j % 128 / 32, j % 32)
      let low = k < 2 ? bits(64 * h + 32 * k + l, from: 0, 15) : bits(64 * h + 32 * (k - 2) + l, from: 4, 15)
      let code = low | bits(128 + 32 * h + l, from: 2 * k, 3) << 4
      return half(208) * Double(Int8(bitPattern: block[192 + j / 16])) * Double(code - 32)
    case .iq4_nl: return half(0) * Double(nonlinear[nibble(2, j)])
    case .iq4_xs:
      let g = j / 32
      let scale = bits(4 + g / 2, from: 4 * (g % 2), 15) | bits(2 + g / 4, from: 2 * (g % 4), 3) << 4
      return half(0) * Double(scale - 32) * Double(nonlinear[nibble(8 + 16 * g, j % 32)])
    case .mxfp4: return Double(doubledE2M1[nibble(1, j)]) * Double(sign: .plus, exponent: Int(block[0]) - 128, significand: 1)
    case .nvfp4:
      let (s, byte) = (j / 16, block[j / 16])
      let (exponent, mantissa) = (Int(byte >> 3 & 15), Double(byte & 7))
      let scale =
        byte == 0x7F
        ? 0 : exponent == 0 ? mantissa / 512 : (1 + mantissa / 8) * Double(sign: .plus, exponent: exponent - 7, significand: 1)
      return Double(doubledE2M1[nibble(4 + 8 * s, j % 16, of: 16)]) * scale / 2
    default: preconditionFailure("\(type.name) is only read; its values are held against gguf's")
    }
  }
}
