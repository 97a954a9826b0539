public import Tensors

/// What a linear layer multiplies by: stored, dense, quantized, or a library user's own.
public protocol Weight: Sendable {
  /// Outputs.
  var rows: Int { get }
  /// Inputs.
  var columns: Int { get }
  /// Bits this weight occupies when stored, scales and indices included.
  var storedBits: Int { get }
  /// The weight as numbers, [outputs × inputs].
  func dense() -> Matrix
}

extension Matrix: Weight {
  /// Counted at 16 bits an element, as checkpoints store dense weights.
  public var storedBits: Int { rows * columns * 16 }
  public func dense() -> Matrix { self }
}

/// A weight still in its checkpoint: mapped bytes that become floats when asked for.
public struct StoredWeight: Weight {
  public let tensor: Tensor
  public var rows: Int { tensor.shape[0] }
  public var columns: Int { tensor.shape[1] }
  public var storedBits: Int { tensor.bytes.count * 8 }

  /// - Precondition: `tensor` is a matrix of floats.
  public init(_ tensor: Tensor) {
    precondition(tensor.shape.count == 2 && tensor.dtype.isReadableAsFloat, "a matrix of floats is needed")
    self.tensor = tensor
  }

  public func dense() -> Matrix {
    Matrix(rows: rows, columns: columns) { tensor.copyFloats(from: 0, into: $0) }
  }

  /// Some rows only: what an embedding looks up.
  package func dense(rows range: Range<Int>) -> Matrix {
    Matrix(rows: range.count, columns: columns, elements: tensor.floats(rows: range))
  }
}
