internal import Foundation
internal import Tensors

/// Elements that lie in a buffer at regular distances: what a transposed, sliced or expanded array is in memory.
struct StridedView: Equatable {
  var shape: [Int]
  /// In elements, one for each dimension; 0 repeats.
  var strides: [Int]
  /// Of the first element.
  var offset = 0

  init(shape: [Int], strides: [Int], offset: Int = 0) {
    self.shape = shape
    self.strides = strides
    self.offset = offset
  }

  /// The first dimension is the fastest.
  ///
  /// - Precondition: the number of elements does not overflow.
  init(columnMajor shape: [Int]) {
    var (strides, next): ([Int], Int) = ([], 1)
    for dimension in shape {
      strides.append(next)
      next *= dimension
    }
    self.init(shape: shape, strides: strides)
  }

  /// Whether the elements lie one after the other, the last dimension fastest.
  var isContiguous: Bool {
    var expected = 1
    for (size, stride) in zip(shape, strides).reversed() where size != 1 {
      guard stride == expected else { return shape.contains(0) }
      expected *= size
    }
    return true
  }

  /// The index of the element that lies last; `nil` where there is none, or for what overflows.
  var lastIndex: Int? {
    guard !shape.contains(0) else { return nil }
    var index = offset
    for (size, stride) in zip(shape, strides) {
      let (step, overflow) = (size - 1).multipliedReportingOverflow(by: stride)
      let (sum, carried) = index.addingReportingOverflow(step)
      guard !overflow, !carried else { return nil }
      index = sum
    }
    return index
  }

  /// The elements of a buffer, contiguous.
  ///
  /// - Parameters:
  ///   - buffer: holds every element of the view.
  ///   - size: bytes of an element.
  func gathered(from buffer: Data, elementSize size: Int) -> Data {
    let total = shape.reduce(1, *)
    guard total > 0 else { return Data() }
    if isContiguous { return buffer.slice(at: offset * size, count: total * size) }
    let (inner, step) = (shape.last ?? 1, (strides.last ?? 1) * size)
    var result = Data(count: total * size)
    result.withUnsafeMutableBytes { target in
      buffer.withUnsafeBytes { source in
        nonisolated(unsafe) let (out, bytes) = (target.baseAddress!, source.baseAddress!)
        // Every run along the last dimension knows its place, so they are copied several at a time.
        Parallel.forEach(total / inner) { run in
          var (rest, start) = (run, offset)
          for dimension in (0..<max(shape.count - 1, 0)).reversed() {
            start += rest % shape[dimension] * strides[dimension]
            rest /= shape[dimension]
          }
          var (from, to) = (bytes + start * size, out + run * inner * size)
          for _ in 0..<inner {
            to.copyMemory(from: from, byteCount: size)
            from += step
            to += size
          }
        }
      }
    }
    return result
  }
}
