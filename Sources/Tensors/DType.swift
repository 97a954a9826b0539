/// The element type of a stored tensor. Raw values are the safetensors spellings; the order of cases is that format's rank,
/// lowest first, which its writer sorts by.
public enum DType: String, Sendable, Codable, CaseIterable {
  case bool = "BOOL"
  case float4E2M1 = "F4"
  case float6E2M3 = "F6_E2M3", float6E3M2 = "F6_E3M2"
  case uint8 = "U8", int8 = "I8"
  case float8E5M2 = "F8_E5M2", float8E4M3 = "F8_E4M3", float8E8M0 = "F8_E8M0"
  case float8E4M3FNUZ = "F8_E4M3FNUZ", float8E5M2FNUZ = "F8_E5M2FNUZ"
  case int16 = "I16", uint16 = "U16", float16 = "F16", bfloat16 = "BF16"
  case int32 = "I32", uint32 = "U32", float32 = "F32"
  case complex64 = "C64", float64 = "F64", int64 = "I64", uint64 = "U64"

  /// Bits of one element; less than 8 for the packed floats.
  public var bitCount: Int {
    switch self {
    case .float4E2M1: 4
    case .float6E2M3, .float6E3M2: 6
    case .bool, .uint8, .int8, .float8E5M2, .float8E4M3, .float8E8M0, .float8E4M3FNUZ, .float8E5M2FNUZ: 8
    case .int16, .uint16, .float16, .bfloat16: 16
    case .int32, .uint32, .float32: 32
    case .complex64, .float64, .int64, .uint64: 64
    }
  }

  /// Whether `Tensor.floats()` can read it.
  public var isReadableAsFloat: Bool { [.float32, .float16, .bfloat16, .float64].contains(self) }

  /// Rank in the safetensors writer's order.
  package var rank: Int { Self.allCases.firstIndex(of: self)! }
}
