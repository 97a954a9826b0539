internal import CHDF5
internal import Foundation
internal import Tensors

/// How elements are typed in HDF5 files, as h5py and Keras do it.
///
/// There is no bfloat16 in HDF5 or h5py: Keras stores two opaque bytes and says what they are in the attribute `dtype` of the dataset; the
/// 8-bit floats are done alike.
enum HDF5Type {
  private static let opaque: [(name: String, dtype: DType)] = [
    ("bfloat16", .bfloat16), ("float8_e4m3fn", .float8E4M3), ("float8_e5m2", .float8E5M2), ("float8_e8m0fnu", .float8E8M0),
    ("float8_e4m3fnuz", .float8E4M3FNUZ), ("float8_e5m2fnuz", .float8E5M2FNUZ),
  ]

  /// The name that goes into the attribute `dtype`, for types that HDF5 has no description for.
  static func attribute(of dtype: DType) -> String? { opaque.first { $0.dtype == dtype }?.name }

  /// What to create a dataset with; `nil` for a type that has no spelling.
  static func file(_ dtype: DType) -> HDF5Handle? {
    let id: hid_t
    switch dtype {
    case .float16: id = hdf5_float16()
    case .float32: id = hdf5_float32()
    case .float64: id = hdf5_float64()
    case .bool: id = hdf5_boolean()
    case .int8, .int16, .int32, .int64: id = hdf5_integer(dtype.bitCount / 8, 1)
    case .uint8, .uint16, .uint32, .uint64: id = hdf5_integer(dtype.bitCount / 8, 0)
    default:
      guard attribute(of: dtype) != nil else { return nil }
      id = hdf5_opaque(dtype.bitCount / 8)
    }
    return HDF5Handle(id) { H5Tclose($0) }
  }

  /// The element type of a dataset; `nil` for compounds, strings and floats of other forms.
  ///
  /// - Parameter attribute: the dataset's attribute `dtype`.
  static func dtype(of type: hid_t, attribute: String?) -> DType? {
    let size = H5Tget_size(type)
    switch H5Tget_class(type) {
    case H5T_INTEGER:
      guard H5Tget_precision(type) == size * 8, H5Tget_offset(type) == 0 else { return nil }
      let isSigned = H5Tget_sign(type) == H5T_SGN_2
      switch size {
      case 1: return isSigned ? .int8 : .uint8
      case 2: return isSigned ? .int16 : .uint16
      case 4: return isSigned ? .int32 : .uint32
      case 8: return isSigned ? .int64 : .uint64
      default: return nil
      }
    case H5T_FLOAT:
      var (sign, exponent, exponentSize, mantissa, mantissaSize) = (0, 0, 0, 0, 0)
      guard H5Tget_fields(type, &sign, &exponent, &exponentSize, &mantissa, &mantissaSize) >= 0, mantissa == 0 else { return nil }
      switch (size, exponentSize, mantissaSize, H5Tget_ebias(type)) {
      case (2, 5, 10, 15): return .float16
      case (2, 8, 7, 127): return .bfloat16
      case (4, 8, 23, 127): return .float32
      case (8, 11, 52, 1023): return .float64
      default: return nil
      }
    case H5T_OPAQUE:
      guard let found = opaque.first(where: { $0.name == attribute }), found.dtype.bitCount == size * 8 else { return nil }
      return found.dtype
    case H5T_ENUM: return size == 1 && isBoolean(type) ? .bool : nil
    default: return nil
    }
  }

  private static func isBoolean(_ type: hid_t) -> Bool {
    var (no, yes): (Int8, Int8) = (-1, -1)
    return H5Tget_nmembers(type) == 2 && H5Tenum_valueof(type, "FALSE", &no) >= 0 && H5Tenum_valueof(type, "TRUE", &yes) >= 0
      && no == 0 && yes == 1
  }
}
