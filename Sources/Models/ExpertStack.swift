package import Tensors

/// How a family's checkpoints store the experts that a router chooses among: all experts' matrices of a kind in one tensor,
/// [experts × outputs × inputs] or [experts × inputs × outputs].
///
/// Here every expert's linear is an ordinary linear all the same, a view of the tensor; what a run writes dense goes back into stacks, and what it
/// compresses is written expert by expert, as runtimes look for it.
public struct StackedExperts: Sendable, Equatable {
  /// How an expert's gates and what they gate share the outputs of one matrix.
  public enum Order: Sendable, Equatable {
    /// All gates first.
    case halves
    /// A gate, what it gates, the next gate (gpt-oss).
    case interleaved
  }

  /// The tensor of the linears that read the layer's input, by its name inside the block, such as `mlp.experts.gate_up_proj`.
  public var readers: String
  public var down: String
  /// What follows those names in the names of the biases.
  public var biasSuffix = "_bias"
  /// Whether an expert's matrix is [inputs × outputs].
  public var isTransposed: Bool
  public var order: Order
  /// Whether transformers reads the family's experts one by one as well; otherwise it leaves them at random numbers where it finds no stacks.
  public var isReadSeparately: Bool

  public init(readers: String, down: String, isTransposed: Bool = false, order: Order = .halves, isReadSeparately: Bool = false) {
    self.readers = readers
    self.down = down
    self.isTransposed = isTransposed
    self.order = order
    self.isReadSeparately = isReadSeparately
  }
}

/// One tensor of stacked experts, and the linears that lie in it.
package struct ExpertStack: Sendable, Equatable {
  /// Inside the block.
  package var name: String
  /// Of the tensor of all biases; `nil` where there are none.
  package var biasName: String?
  /// By expert, the linears that share its matrix.
  package var linears: [[LinearName]]
  /// Outputs of each linear.
  package var rows: Int
  /// Inputs of each linear.
  package var columns: Int
  package var isTransposed: Bool
  package var order: StackedExperts.Order

  /// Outputs of an expert's matrix.
  var outputs: Int { rows * (linears.first?.count ?? 0) }
  package var shape: [Int] { isTransposed ? [linears.count, columns, outputs] : [linears.count, outputs, columns] }
  package var biasShape: [Int] { [linears.count, outputs] }

  /// The same stack with its matrices the other way round.
  var turned: ExpertStack {
    var turned = self
    turned.isTransposed.toggle()
    return turned
  }

  /// Which outputs of an expert's matrix are those of one of its linears.
  package func outputs(of part: Int) -> EvenlySpaced {
    order == .interleaved
      ? EvenlySpaced(first: part, step: linears.first?.count ?? 1, count: rows) : EvenlySpaced(first: part * rows, step: 1, count: rows)
  }
}

extension ExpertStack {
  /// One of the linears of an expert, as it lies in the expert's matrix.
  package func weight(_ part: Int, in matrix: Tensor) -> StoredWeight {
    StoredWeight(StoredWeight.Expert(matrix: matrix, isTransposed: isTransposed, outputs: outputs(of: part)))
  }
}

extension BlockDescription {
  /// The tensors that the family's checkpoints store routed experts in; none where each expert has matrices of its own.
  package var expertStacks: [ExpertStack] {
    guard let feedForward, let mixture = feedForward.mixture, let stored = mixture.stacked else { return [] }
    let experts = (0..<mixture.experts).map { feedForward.expert($0) }
    func stack(_ name: String, _ linears: [[LinearName]], rows: Int, columns: Int) -> ExpertStack {
      ExpertStack(
        name: name, biasName: feedForward.hasBias ? name + stored.biasSuffix : nil, linears: linears, rows: rows, columns: columns,
        isTransposed: stored.isTransposed, order: stored.order)
    }
    return [
      stack(stored.readers, experts.map(\.readers), rows: feedForward.size, columns: hiddenSize),
      stack(stored.down, experts.map { [$0.down] }, rows: hiddenSize, columns: feedForward.size),
    ]
  }
}

// MARK: - Writing

extension Block {
  /// The stacks that the block's experts are written in: those of the family where all are written dense, none where one is compressed or its
  /// input is.
  ///
  /// - Parameter isDense: whether whoever asks writes any weight as numbers.
  package func denseStacks(writingAll isDense: Bool = false) -> [ExpertStack] {
    let stacks = description.expertStacks
    let areDense = stacks.flatMap(\.linears).joined().allSatisfy { name in
      guard let linear = linears[name] else { return false }
      return linear.inputQuantization == nil && (isDense || linear.weight is StoredWeight || linear.weight is Matrix)
    }
    return areDense ? stacks : []
  }

  /// What a stack is written as: the type of its experts, or single precision where a file of tensors for each has several.
  package func storageType(of stack: ExpertStack) -> DType {
    let types = Set(stack.linears.joined().map { self[$0].storageType })
    return types.count == 1 ? types.first! : .float32
  }

  /// An expert's matrix in a stack.
  ///
  /// - Parameter type: of the whole stack, see `storageType(of:)`.
  /// - Returns: the bytes that were read, where nothing was changed.
  package func matrix(of expert: Int, in stack: ExpertStack, as type: DType) -> Tensor {
    let parts = stack.linears[expert].map { self[$0] }
    if let stored = unchanged(parts, stack), stored.dtype == type { return stored }
    var joined = Matrix(rows: stack.outputs, columns: stack.columns)
    for (part, linear) in parts.enumerated() { joined.set(linear.weight.dense(), atRows: Array(stack.outputs(of: part))) }
    if stack.isTransposed { joined = joined.transposed() }
    return Tensor(joined.elements, shape: [joined.rows, joined.columns], dtype: type)
  }

  /// The linears of experts as the stacks that they are written in hold them, each made when it is asked for.
  package func stackedWeights(writingAll isDense: Bool) -> [LinearName: () -> StoredWeight] {
    var weights: [LinearName: () -> StoredWeight] = [:]
    for stack in denseStacks(writingAll: isDense) {
      for (expert, names) in stack.linears.enumerated() {
        for (part, name) in names.enumerated() {
          weights[name] = { stack.weight(part, in: matrix(of: expert, in: stack, as: storageType(of: stack))) }
        }
      }
    }
    return weights
  }

  private func unchanged(_ parts: [Linear], _ stack: ExpertStack) -> Tensor? {
    let stored = parts.compactMap { $0.weight as? StoredWeight }
    guard stored.count == parts.count, let whole = stored.first?.expert,
      stored.enumerated().allSatisfy({ part, weight in
        guard let own = weight.expert else { return false }
        return own.isTransposed == stack.isTransposed && own.outputs == stack.outputs(of: part) && own.matrix.isSame(as: whole.matrix)
      })
    else { return nil }
    return whole.matrix
  }

  /// The biases of all experts in a stack; `nil` where there are none.
  package func biases(of stack: ExpertStack) -> Tensor? {
    guard stack.biasName != nil else { return nil }
    var values = [Float](repeating: 0, count: stack.biasShape.reduce(1, *))
    for (expert, linears) in stack.linears.enumerated() {
      for (part, name) in linears.enumerated() {
        for (output, value) in zip(stack.outputs(of: part), self[name].bias ?? []) { values[expert * stack.outputs + output] = value }
      }
    }
    return Tensor(values, shape: stack.biasShape, dtype: storageType(of: stack))
  }
}
