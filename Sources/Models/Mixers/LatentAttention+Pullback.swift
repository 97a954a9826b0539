import Tensors

extension PreparedLatentAttention: DifferentiableMixer {
  /// The way back through attention and the rotation; the rotary key part, which all heads read, gets the sum of what they pull.
  func pullback(_ inputs: [Matrix], _ gradient: Matrix, into pull: inout BlockPull) -> [Matrix] {
    let (queries, keys, values) = positioned(inputs, from: 0)
    var pulled = product.pullback(queries: queries, keys: keys, values: values, gradient: gradient)
    scale(&pulled.queries, from: 0)
    let (places, heads, size) = (description.places, description.heads, description.rotarySize)
    var queryGradient = pulled.queries
    queryGradient.set(turnedBack(pulled.queries.columns(in: places.rotaryQueries), heads: heads), columns: places.rotaryQueries)
    var expanded = Matrix(rows: inputs[1].rows, columns: inputs[1].columns)
    // In queries and keys, heads lie alike.
    expanded.set(pulled.keys.columns(in: places.plainQueries), columns: places.plainKeys)
    expanded.set(pulled.values, columns: places.values)
    var rotaryKeys = Matrix(rows: inputs[2].rows, columns: size)
    for place in places.rotaryQueries { rotaryKeys.add(pulled.keys.columns(in: [place])) }
    return [queryGradient, expanded, turnedBack(rotaryKeys, heads: 1)]
  }

  /// The way back through `turned` from the first position on.
  private func turnedBack(_ gradient: Matrix, heads: Int) -> Matrix {
    var gradient = gradient
    rotary.inverted.rotate(&gradient, heads: heads, headSize: description.rotarySize)
    guard description.isInterleaved else { return gradient }
    var below = gradient
    below.set(gradient, columns: description.halvesOfNeighbours(heads: heads))
    return below
  }
}
