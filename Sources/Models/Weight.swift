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
  /// Whether the tensor is [inputs × outputs].
  public let isTransposed: Bool
  public var rows: Int { tensor.shape[isTransposed ? 1 : 0] }
  public var columns: Int { tensor.shape[isTransposed ? 0 : 1] }
  public var storedBits: Int { tensor.bytes.count * 8 }

  /// - Precondition: `tensor` is a matrix of floats.
  public init(_ tensor: Tensor, isTransposed: Bool = false) {
    precondition(tensor.shape.count == 2 && tensor.dtype.isReadableAsFloat, "a matrix of floats is needed")
    self.tensor = tensor
    self.isTransposed = isTransposed
  }

  public func dense() -> Matrix {
    let stored = Matrix(rows: tensor.shape[0], columns: tensor.shape[1]) { tensor.copyFloats(from: 0, into: $0) }
    return isTransposed ? stored.transposed() : stored
  }

  /// Some rows only: what an embedding looks up.
  ///
  /// - Precondition: the tensor is [outputs × inputs].
  package func dense(rows range: Range<Int>) -> Matrix {
    precondition(!isTransposed, "the rows of a transposed tensor are scattered")
    return Matrix(rows: range.count, columns: columns, elements: tensor.floats(rows: range))
  }
}
