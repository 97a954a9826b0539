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
  /// Where a weight lies in the matrix of an expert, in a stack of experts.
  package struct Expert: Sendable {
    /// Of the expert: two dimensions.
    package var matrix: Tensor
    package var isTransposed: Bool
    /// Those of the matrix that are the weight's.
    package var outputs: EvenlySpaced
  }

  public let tensor: Tensor
  /// Whether the tensor is [inputs × outputs].
  public let isTransposed: Bool
  /// The tensor's outputs that are the weight's; `nil` for all of them.
  private let outputs: EvenlySpaced?
  /// `nil` for a weight that is a tensor of its own.
  package let expert: Expert?
  public var rows: Int { outputs?.count ?? tensor.shape[isTransposed ? 1 : 0] }
  public var columns: Int { tensor.shape[isTransposed ? 0 : 1] }
  public var storedBits: Int { rows * columns * tensor.dtype.bitCount }

  /// - Precondition: `tensor` is a matrix of floats.
  public init(_ tensor: Tensor, isTransposed: Bool = false) {
    precondition(tensor.shape.count == 2 && tensor.dtype.isReadableAsFloat, "a matrix of floats is needed")
    self.tensor = tensor
    self.isTransposed = isTransposed
    outputs = nil
    expert = nil
  }

  /// A weight that is some of the outputs of an expert's matrix.
  package init(_ expert: Expert) {
    let matrix = expert.matrix
    precondition(matrix.shape.count == 2 && matrix.dtype.isReadableAsFloat, "a matrix of floats is needed")
    self.expert = expert
    isTransposed = expert.isTransposed
    // Outputs that lie one after the other as rows are a tensor of their own.
    let areRows = !expert.isTransposed && expert.outputs.step == 1
    let areAll = expert.outputs == EvenlySpaced(first: 0, step: 1, count: matrix.shape[expert.isTransposed ? 1 : 0])
    tensor = areRows ? matrix.entries(expert.outputs.first..<expert.outputs.first + expert.outputs.count) : matrix
    outputs = areRows || areAll ? nil : expert.outputs
  }

  /// Whether the tensor's rows are the weight's.
  package var liesInRows: Bool { !isTransposed && outputs == nil }

  public func dense() -> Matrix {
    let stored = Matrix(rows: tensor.shape[0], columns: tensor.shape[1]) { tensor.copyFloats(from: 0, into: $0) }
    let whole = isTransposed ? stored.transposed() : stored
    return outputs.map { whole.rows(at: Array($0)) } ?? whole
  }

  /// Some rows only: what an embedding looks up.
  ///
  /// - Precondition: `liesInRows`.
  package func dense(rows range: Range<Int>) -> Matrix {
    precondition(liesInRows, "the rows of the weight are scattered")
    return Matrix(rows: range.count, columns: columns, elements: tensor.floats(rows: range))
  }
}
