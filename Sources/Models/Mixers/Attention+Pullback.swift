package import Tensors

extension ScaledDotProduct {
  /// Gradients of what attention has read.
  struct Gradients {
    var queries, keys, values: Matrix
    /// By head; zeros where there are no sinks.
    var sinks: [Float]
  }

  /// The way back through `attend` of a whole sequence (Vaswani et al. 2017, equation 1; Dao et al. 2022, appendix B.2).
  ///
  /// With P what a query pays to keys: dV = Pᵀ · dO, dP = dO · Vᵀ, dS = P ⊙ (dP − Σ P ⊙ dP), dQ = scale · dS · K and dK = scale · dSᵀ · Q; a
  /// sink gets −(1 − Σ P) · Σ P ⊙ dP. P is computed again, tile by tile as on the way there, so that no [tokens × tokens] matrix exists.
  ///
  /// - Parameter gradient: of attention's output, [tokens × heads · valueSize].
  func pullback(queries: Matrix, keys: Matrix, values: Matrix, gradient: Matrix) -> Gradients {
    let tokens = keys.rows
    let tile = min(128, max(1, tokens))
    var result = Gradients(
      queries: Matrix(rows: tokens, columns: queries.columns), keys: Matrix(rows: tokens, columns: keys.columns),
      values: Matrix(rows: tokens, columns: values.columns), sinks: Array(repeating: 0, count: heads))
    let room = UnsafeMutablePointer<Float>.allocate(capacity: 3 * tile * tokens)
    defer { room.deallocate() }
    let (paid, pulled, capped) = (room, room + tile * tokens, room + 2 * tile * tokens)
    let (queryStride, keyStride, valueStride, outputStride) = (queries.columns, keys.columns, values.columns, gradient.columns)
    result.queries.withUnsafeMutableElements { queryGradient in
      result.keys.withUnsafeMutableElements { keyGradient in
        result.values.withUnsafeMutableElements { valueGradient in
          queries.withUnsafeElements { queries in
            keys.withUnsafeElements { keys in
              values.withUnsafeElements { values in
                gradient.withUnsafeElements { gradient in
                  for head in 0..<heads {
                    let shared = head * keyValueHeads / heads
                    for first in stride(from: 0, to: tokens, by: tile) {
                      let (rows, range) = (min(tile, tokens - first), keysSeen(from: first, to: min(first + tile, tokens), of: tokens))
                      let width = range.count
                      let query = queries + first * queryStride + head * keySize
                      let key = keys + range.lowerBound * keyStride + shared * keySize
                      let output = gradient + first * outputStride + head * valueSize
                      BLAS.product(
                        query, stride: queryStride, key, stride: keyStride, rightTransposed: true, rows: rows, columns: width,
                        inner: keySize, into: paid, stride: width)
                      BLAS.product(
                        output, stride: outputStride, values + range.lowerBound * valueStride + shared * valueSize, stride: valueStride,
                        rightTransposed: true, rows: rows, columns: width, inner: valueSize, into: pulled, stride: width)
                      for row in 0..<rows {
                        let seen = keysSeen(by: first + row, of: tokens)
                        let start = row * width + seen.lowerBound - range.lowerBound
                        blank(paid + row * width, outside: start - row * width..<start - row * width + seen.count, of: width)
                        blank(pulled + row * width, outside: start - row * width..<start - row * width + seen.count, of: width)
                        result.sinks[head] += pullRow(
                          paid + start, pulled + start, capped + start, count: seen.count, head: head)
                      }
                      // dV, dQ, dK of the tile.
                      BLAS.product(
                        paid, stride: width, leftTransposed: true, output, stride: outputStride, rows: width, columns: valueSize,
                        inner: rows, beta: 1, into: valueGradient + range.lowerBound * valueStride + shared * valueSize,
                        stride: valueStride)
                      BLAS.product(
                        pulled, stride: width, key, stride: keyStride, rows: rows, columns: keySize, inner: width,
                        into: queryGradient + first * queryStride + head * keySize, stride: queryStride)
                      BLAS.product(
                        pulled, stride: width, leftTransposed: true, query, stride: queryStride, rows: width, columns: keySize,
                        inner: rows, beta: 1, into: keyGradient + range.lowerBound * keyStride + shared * keySize, stride: keyStride)
                    }
                  }
                }
              }
            }
          }
        }
      }
    }
    return result
  }

  /// Keys that some query of a stretch sees.
  private func keysSeen(from first: Int, to end: Int, of tokens: Int) -> Range<Int> {
    guard isCausal else { return 0..<tokens }
    return reach.first(of: first)..<end
  }

  private func keysSeen(by query: Int, of tokens: Int) -> Range<Int> {
    guard isCausal else { return 0..<tokens }
    return reach.first(of: query)..<query + 1
  }

  private func blank(_ row: UnsafeMutablePointer<Float>, outside seen: Range<Int>, of width: Int) {
    row.update(repeating: 0, count: seen.lowerBound)
    (row + seen.upperBound).update(repeating: 0, count: width - seen.upperBound)
  }

  /// From products of a query with its keys to what it pays to each; and from the gradient of that to the one of the products.
  ///
  /// - Returns: the gradient of the head's sink.
  private func pullRow(
    _ paid: UnsafeMutablePointer<Float>, _ pulled: UnsafeMutablePointer<Float>, _ capped: UnsafeMutablePointer<Float>, count: Int, head: Int
  ) -> Float {
    if let cap = softmax.cap {
      for index in 0..<count { capped[index] = paid[index] * softmax.scale }
      softCap(capped, count: count, cap: cap)
    }
    softmax(paid, count: count, head: head)
    var sink: Float = 0
    if softmax.sinks != nil {
      var (inner, sum) = (Float(0), Float(0))
      for index in 0..<count {
        inner += paid[index] * pulled[index]
        sum += paid[index]
      }
      sink = -(1 - sum) * inner
    }
    Kernel.softmaxPullback(paid, gradient: pulled, scale: softmax.scale, count: count)
    if let cap = softmax.cap {
      for index in 0..<count { pulled[index] *= 1 - (capped[index] / cap) * (capped[index] / cap) }
    }
    return sink
  }
}

extension PreparedAttention: DifferentiableMixer {
  package func pullback(_ made: [Matrix], _ gradient: Matrix, into pull: inout BlockPull) -> [Matrix] {
    let plain = description.split(made)
    var (queries, keys, values) = positioned(made)
    if let cache = parts.cache {
      cache.key.round(&keys)
      cache.value.round(&values)
    }
    let product = description.product(sinks: sinks)
    var (above, gates) = (gradient, Matrix?.none)
    if description.hasOutputGate {
      let open = description.gates(made)
      // Of the gates σ(g): dg = dout ⊙ context ⊙ σ · (1 − σ).
      var pulled = product.attend(queries: queries, keys: keys, values: values)
      pulled.multiply(by: above)
      pulled.multiply(by: Matrix(rows: open.rows, columns: open.columns, elements: open.elements.map { $0 * (1 - $0) }))
      gates = pulled
      above.multiply(by: open)
    }
    var pulled = product.pullback(queries: queries, keys: keys, values: values, gradient: above)
    if sinks != nil { pull.add(parameter: description.sinksName, pulled.sinks) }
    scaleQueries(&pulled.queries)
    if description.normalizesRotated {
      var rotated = (queries: plain.queries, keys: plain.keys)
      rotate(&rotated.queries, &rotated.keys)
      pullNorms(&pulled, rotated.queries, rotated.keys, into: &pull)
      rotate(&pulled.queries, &pulled.keys, isBack: true)
    } else {
      rotate(&pulled.queries, &pulled.keys, isBack: true)
      pullNorms(&pulled, plain.queries, plain.keys, into: &pull)
    }
    if description.normalizesValues {
      let heads = narrow(plain.values, to: description.headSize)
      let ones = [Float](repeating: 1, count: description.headSize)
      let below = parts.norm.pullback(heads, weight: ones, gradient: narrow(pulled.values, to: description.headSize)).rows
      pulled.values = Matrix(rows: plain.values.rows, columns: plain.values.columns, elements: below.elements)
    }
    return description.joined(queries: pulled.queries, keys: pulled.keys, values: pulled.values, gates: gates, like: made)
  }

  /// The way back through the norms of queries and keys, where there are any.
  ///
  /// - Parameters:
  ///   - pulled: gradients of what came out of them, and then of what went in.
  ///   - queries: what went in, [tokens × heads · headSize]; `keys` alike.
  private func pullNorms(_ pulled: inout ScaledDotProduct.Gradients, _ queries: Matrix, _ keys: Matrix, into pull: inout BlockPull) {
    guard let norm = description.queryKeyNorm else { return }
    pulled.queries = normPullback(queries, pulled.queries, by: description.queryNorm, heads: norm == .head, into: &pull)
    pulled.keys = normPullback(keys, pulled.keys, by: description.keyNorm, heads: norm == .head, into: &pull)
  }

  /// The same numbers in rows of another length.
  private func narrow(_ matrix: Matrix, to size: Int) -> Matrix {
    Matrix(rows: matrix.elements.count / size, columns: size, elements: matrix.elements)
  }

  private func normPullback(_ states: Matrix, _ gradient: Matrix, by name: String, heads: Bool, into pull: inout BlockPull) -> Matrix {
    let size = heads ? description.headSize : states.columns
    let (below, weight, bias) = parts.norm.pullback(
      narrow(states, to: size), weight: normWeight(name, count: size), gradient: narrow(gradient, to: size))
    if description.hasNormWeights { pull.add(norm: name, weight, bias: parts.normBiases[name] == nil ? nil : bias) }
    return Matrix(rows: states.rows, columns: states.columns, elements: below.elements)
  }
}

extension AttentionDescription {
  /// The sigmoids of the gates that the query linear made beside the queries.
  fileprivate func gates(_ outputs: [Matrix]) -> Matrix {
    let gates = outputs[0].columns(in: gateColumns)
    return Matrix(rows: gates.rows, columns: gates.columns, elements: gates.elements.map { 1 / (1 + exponential(-$0)) })
  }

  private var gateColumns: [Range<Int>] { (0..<heads).map { (2 * $0 + 1) * headSize..<(2 * $0 + 2) * headSize } }

  /// The way back through `split`: gradients of what the projections put out.
  fileprivate func joined(queries: Matrix, keys: Matrix, values: Matrix, gates: Matrix?, like outputs: [Matrix]) -> [Matrix] {
    let queryColumns = (0..<heads).map { queryRows($0).rows }
    guard case .fused = projections else {
      var others = [keys, values]
      if case .keysAreValues = projections {
        others[0].add(values)
        others.removeLast()
      }
      guard let gates else { return [queries] + others }
      var both = Matrix(rows: outputs[0].rows, columns: outputs[0].columns)
      both.set(queries, columns: queryColumns)
      both.set(gates, columns: gateColumns)
      return [both] + others
    }
    var all = Matrix(rows: outputs[0].rows, columns: outputs[0].columns)
    all.set(queries, columns: queryColumns)
    all.set(keys, columns: (0..<keyValueHeads).map { keyRows($0).rows })
    all.set(values, columns: (0..<keyValueHeads).map { valueRows($0).rows })
    return [all]
  }
}
