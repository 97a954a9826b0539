import CheckpointIO
import Models
import Tensors

/// What the readers of all packed formats check before they touch a tensor's elements.
enum StoredTensors {
  /// The types that scales and biases of integer grids come in.
  static let floats: [DType] = [.float16, .bfloat16, .float32]

  /// - Throws: for a tensor that is missing, of another type, or not a matrix of the shape given; `nil` for any number of elements but none.
  static func matrix(
    _ name: String, _ source: any TensorSource, _ types: [DType], rows: Int? = nil, columns: Int? = nil
  ) throws(CheckpointError) -> Tensor {
    let tensor = try source.tensor(name)
    guard types.contains(tensor.dtype) else {
      throw .unusableType(tensor: name, dtype: tensor.dtype.rawValue, use: types.map(\.rawValue).joined(separator: " or "))
    }
    guard tensor.shape.count == 2, tensor.elementCount > 0, rows ?? tensor.shape[0] == tensor.shape[0],
      columns ?? tensor.shape[1] == tensor.shape[1]
    else {
      let (first, second) = (tensor.shape.first ?? 1, tensor.shape.count > 1 ? tensor.shape[1] : 1)
      throw .wrongShape(tensor: name, expected: [rows ?? max(1, first), columns ?? max(1, second)], found: tensor.shape)
    }
    return tensor
  }

  /// One scale or zero point per output and group, [outputs × groups], out of a tensor that is the other way round.
  static func transposedFloats(_ tensor: Tensor) -> Matrix {
    Matrix(rows: tensor.shape[0], columns: tensor.shape[1], elements: tensor.floats()).transposed()
  }

  static let scaleTooLarge =
    "its largest weights need a scale beyond 65504, the largest of the half-precision scales this format has; leave it out of the pass's layers"

  /// The scales as F16, or `nil` where that would change one.
  static func exactHalves(_ scales: Matrix) -> Tensor? {
    let tensor = Tensor(scales.elements, shape: [scales.rows, scales.columns], dtype: .float16)
    return tensor.floats() == scales.elements ? tensor : nil
  }
}

extension QuantizedMatrix {
  /// The zero points as codes, the middle of the grid where none are stored, [outputs × groups].
  ///
  /// - Precondition: an integer grid whose zero points are not real.
  var zeroCodes: [UInt8] {
    zeroPoints?.elements.map { UInt8($0) } ?? [UInt8](repeating: UInt8(scheme.middle), count: scales.rows * scales.columns)
  }
}
