internal import Tensors

/// What may lie on the stack of the pickle machine; nothing else can be made.
enum PickleValue {
  case none, bool(Bool), integer(Int), double(Double), string(String)
  /// Depth counts the tuples inside one another.
  case tuple([PickleValue], depth: Int)
  case list(PickleList), dictionary(PickleDictionary)
  case symbol(PickleSymbol)
  case storage(PyTorchStorage), tensor(PyTorchTensor)
  /// A value that no tensor needs: a device, a state.
  case ignored

  /// For messages.
  var kind: String {
    switch self {
    case .none: "None"
    case .bool: "a bool"
    case .integer: "an integer"
    case .double: "a float"
    case .string: "a string"
    case .tuple: "a tuple"
    case .list: "a list"
    case .dictionary: "a dictionary"
    case .symbol(let symbol): "the name \(symbol)"
    case .storage: "a storage"
    case .tensor: "a tensor"
    case .ignored: "a value without meaning here"
    }
  }

  var integer: Int? {
    if case .integer(let value) = self { return value }
    return nil
  }

  var string: String? {
    if case .string(let value) = self { return value }
    return nil
  }

  var elements: [PickleValue]? {
    if case .tuple(let elements, _) = self { return elements }
    return nil
  }

  var integers: [Int]? {
    guard let elements else { return nil }
    let numbers = elements.compactMap(\.integer)
    return numbers.count == elements.count ? numbers : nil
  }
}

/// A list that the memo and the stack share while it grows.
final class PickleList { var elements: [PickleValue] = [] }

/// A dictionary, in the order of insertion, that the memo and the stack share while it grows.
final class PickleDictionary { var pairs: [(key: PickleValue, value: PickleValue)] = [] }

/// A run of elements in the archive.
struct PyTorchStorage: Sendable, Equatable {
  /// `nil` for bytes whose type the tensor says, and for elements of a type that is not read.
  var dtype: DType?
  /// torch's name of a type that is not read.
  var unreadable: String?
  /// The entry `data/KEY`.
  var key: String
  /// Elements, or bytes where there is no type.
  var count: Int
}

/// A view of a storage.
struct PyTorchTensor: Sendable, Equatable {
  var storage: PyTorchStorage
  var dtype: DType
  var view: StridedView
  /// Whether every element stands for its negative.
  var isNegated = false
  /// What torch calls what the elements are, where it is nothing that is read; `dtype` means nothing then.
  var unreadable: String?

  /// Bytes of what torch counts as an element: of the packed floats, two.
  var elementSize: Int { max(1, dtype.bitCount / 8) }
  /// The shape in elements, [2] for a packed pair on its own.
  var shape: [Int] {
    guard dtype.bitCount < 8 else { return view.shape }
    return view.shape.dropLast() + [(view.shape.last ?? 1) * (8 / dtype.bitCount)]
  }
}

/// The global names that a pickle may mention. What they stand for is built in; nothing is looked up, imported or called.
enum PickleSymbol: Equatable, CustomStringConvertible {
  case orderedDictionary, rebuildTensor, rebuildTensorV2, rebuildTensorV3, rebuildParameter, rebuildFromType, tensorType, size, device
  case storage(DType), untypedStorage, dtype(DType)
  /// By torch's names: types that exist, and are not read.
  case otherStorage(String), otherType(String)

  /// - Returns: `nil` for every name that is not listed.
  init?(module: String, name: String) {
    switch (module, name) {
    case ("collections", "OrderedDict"): self = .orderedDictionary
    case ("torch._utils", "_rebuild_tensor"): self = .rebuildTensor
    case ("torch._utils", "_rebuild_tensor_v2"): self = .rebuildTensorV2
    case ("torch._utils", "_rebuild_tensor_v3"): self = .rebuildTensorV3
    case ("torch._utils", "_rebuild_parameter"): self = .rebuildParameter
    case ("torch._tensor", "_rebuild_from_type_v2"): self = .rebuildFromType
    case ("torch.nn.parameter", "Parameter"), ("torch", "Tensor"): self = .tensorType
    case ("torch", "Size"): self = .size
    case ("torch", "device"): self = .device
    case ("torch.storage", "UntypedStorage"), ("torch.storage", "TypedStorage"): self = .untypedStorage
    case ("torch", let name):
      if let dtype = Self.storages[name] {
        self = .storage(dtype)
      } else if let dtype = Self.dtypes[name] {
        self = .dtype(dtype)
      } else if Self.otherStorages.contains(name) {
        self = .otherStorage(name)
      } else if Self.otherTypes.contains(name) {
        self = .otherType(name)
      } else {
        return nil
      }
    default: return nil
    }
  }

  private static let storages: [String: DType] = [
    "FloatStorage": .float32, "DoubleStorage": .float64, "HalfStorage": .float16, "BFloat16Storage": .bfloat16, "LongStorage": .int64,
    "IntStorage": .int32, "ShortStorage": .int16, "CharStorage": .int8, "ByteStorage": .uint8, "BoolStorage": .bool,
    "ComplexFloatStorage": .complex64,
  ]
  private static let dtypes: [String: DType] = [
    "float32": .float32, "float64": .float64, "float16": .float16, "bfloat16": .bfloat16, "float8_e4m3fn": .float8E4M3,
    "float8_e5m2": .float8E5M2, "float8_e8m0fnu": .float8E8M0, "float8_e4m3fnuz": .float8E4M3FNUZ, "float8_e5m2fnuz": .float8E5M2FNUZ,
    "float4_e2m1fn_x2": .float4E2M1, "complex64": .complex64, "int8": .int8, "int16": .int16, "int32": .int32, "int64": .int64,
    "uint8": .uint8, "uint16": .uint16,
    "uint32": .uint32, "uint64": .uint64, "bool": .bool,
  ]

  private static let otherStorages: Set = ["ComplexDoubleStorage", "QUInt8Storage", "QInt8Storage", "QInt32Storage"]
  private static let otherTypes: Set = [
    "complex32", "complex128", "quint8", "qint8", "qint32", "quint4x2", "quint2x4", "bits8", "bits16", "bits1x8", "bits2x4", "bits4x2",
    "uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7", "int1", "int2", "int3", "int4", "int5", "int6", "int7",
  ]

  var description: String {
    switch self {
    case .orderedDictionary: "collections.OrderedDict"
    case .rebuildTensor: "torch._utils._rebuild_tensor"
    case .rebuildTensorV2: "torch._utils._rebuild_tensor_v2"
    case .rebuildTensorV3: "torch._utils._rebuild_tensor_v3"
    case .rebuildParameter: "torch._utils._rebuild_parameter"
    case .rebuildFromType: "torch._tensor._rebuild_from_type_v2"
    case .tensorType: "torch.Tensor"
    case .size: "torch.Size"
    case .device: "torch.device"
    case .storage(let dtype): "the storage of \(dtype.rawValue)"
    case .untypedStorage: "torch.storage.UntypedStorage"
    case .dtype(let dtype): "the type \(dtype.rawValue)"
    case .otherStorage(let name): "the storage torch.\(name)"
    case .otherType(let name): "the type torch.\(name)"
    }
  }
}
