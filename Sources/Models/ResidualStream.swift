extension ModelDescription {
  /// Why the values of some attention cannot take other coordinates on their way to its output; `nil` where all can.
  package var valueObstacle: String? { blocks.lazy.compactMap(\.valueObstacle).first }

  /// Why the residual stream cannot be given other coordinates by changing weights alone; `nil` where it can.
  ///
  /// Only a root mean square is the same in all coordinates, and only a norm whose weight can move into the linears after it.
  package var residualObstacle: String? {
    let norms = blocks.map(\.norm) + [norm]
    if norms.contains(where: { $0.kind == .layer }) { return "LayerNorm subtracts the mean, which other coordinates do not keep" }
    if norms.contains(where: \.hasBias) { return "its norms add biases" }
    if positions != nil { return "learned positions are added to its embedding" }
    if blocks.contains(where: { $0.norms.afterAttention != nil || $0.norms.afterFeedForward != nil }) {
      return "norms stand between its layers and the residual stream and scale every coordinate"
    }
    if blocks.contains(where: \.norms.areOnSums) || embeddingNorm != nil { return "norms stand on the residual stream itself" }
    return nil
  }
}
