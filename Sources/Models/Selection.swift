/// Finds an element by its rank without sorting all of them.
enum Selection {
  /// The `rank`-th smallest value, counted from 1 (Hoare's quickselect).
  ///
  /// - Precondition: 1 ≤ `rank` ≤ count, and no value is NaN.
  static func smallest(_ rank: Int, of values: UnsafeBufferPointer<Float>) -> Float {
    precondition((1...values.count).contains(rank), "there is no element of rank \(rank) among \(values.count)")
    return withUnsafeTemporaryAllocation(of: Float.self, capacity: values.count) { work in
      _ = work.initialize(from: values)
      var (low, high) = (0, values.count - 1)
      let wanted = rank - 1
      while low < high {
        let middle = (low + high) / 2
        // The median of three keeps sorted input from being the worst case.
        let pivot = max(min(work[low], work[middle]), min(max(work[low], work[middle]), work[high]))
        var (left, right) = (low, high)
        while left <= right {
          while work[left] < pivot { left += 1 }
          while work[right] > pivot { right -= 1 }
          if left <= right {
            work.swapAt(left, right)
            left += 1
            right -= 1
          }
        }
        if wanted <= right {
          high = right
        } else if wanted >= left {
          low = left
        } else {
          return work[wanted]
        }
      }
      return work[wanted]
    }
  }
}
