import Tensors

/// The elements of a row-major matrix with rows and columns exchanged.
func transposed<Element: BitwiseCopyable & Sendable>(_ elements: [Element], rows: Int, columns: Int) -> [Element] {
  precondition(elements.count == rows * columns, "elements do not fill the shape")
  return [Element](unsafeUninitializedCapacity: elements.count) { out, count in
    elements.withUnsafeBufferPointer { source in
      guard let from = source.baseAddress, let to = out.baseAddress else { return }
      nonisolated(unsafe) let (source, out) = (from, to)
      // Tiles keep both sides in the cache.
      let tile = 64
      Parallel.forEach((rows + tile - 1) / tile) { strip in
        let range = strip * tile..<min((strip + 1) * tile, rows)
        for left in stride(from: 0, to: columns, by: tile) {
          for column in left..<min(left + tile, columns) {
            for row in range { out[column * rows + row] = source[row * columns + column] }
          }
        }
      }
    }
    count = elements.count
  }
}
