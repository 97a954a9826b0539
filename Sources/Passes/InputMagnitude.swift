public import Tensors

/// Size of every input feature: the mean of |x| and of x², and the largest |x|.
public struct InputMagnitude: Statistic, Equatable {
  package private(set) var sums: [Double]
  package private(set) var squares: [Double]
  public private(set) var maxima: [Float]
  /// Tokens summed.
  public private(set) var tokens = 0

  public init(features: Int) {
    sums = Array(repeating: 0, count: features)
    squares = sums
    maxima = Array(repeating: 0, count: features)
  }

  /// What was summed before.
  package init(sums: [Double], squares: [Double], maxima: [Float], tokens: Int) {
    self.sums = sums
    self.squares = squares
    self.maxima = maxima
    self.tokens = tokens
  }

  /// Mean of |x|, what AWQ's scales grow with.
  public var means: [Float] { sums.map { Float($0 / Double(max(1, tokens))) } }
  /// Mean of x², the diagonal of the second moment.
  public var meanSquares: [Float] { squares.map { Float($0 / Double(max(1, tokens))) } }

  /// Those of x / `scale`.
  public func divided(by scale: [Float]) -> InputMagnitude {
    var result = self
    for index in scale.indices {
      result.sums[index] /= Double(scale[index])
      result.squares[index] /= Double(scale[index]) * Double(scale[index])
      result.maxima[index] /= scale[index]
    }
    return result
  }

  public mutating func update(_ input: Matrix) {
    let input = input.withoutNonfiniteRows()
    let width = sums.count
    tokens += input.rows
    // Few rows at a time in single precision, their totals in double.
    for start in stride(from: 0, to: input.rows, by: 64) {
      var part = [Float](repeating: 0, count: width)
      var squared = part
      input.withUnsafeElements { elements in
        maxima.withUnsafeMutableBufferPointer { maxima in
          part.withUnsafeMutableBufferPointer { part in
            squared.withUnsafeMutableBufferPointer { squared in
              for row in start..<min(start + 64, input.rows) {
                let x = elements + row * width
                for index in 0..<width {
                  let magnitude = abs(x[index])
                  part[index] += magnitude
                  squared[index] += magnitude * magnitude
                  maxima[index] = max(maxima[index], magnitude)
                }
              }
            }
          }
        }
      }
      for index in 0..<width {
        sums[index] += Double(part[index])
        squares[index] += Double(squared[index])
      }
    }
  }

  public mutating func merge(_ other: InputMagnitude) {
    for index in sums.indices {
      sums[index] += other.sums[index]
      squares[index] += other.squares[index]
      maxima[index] = max(maxima[index], other.maxima[index])
    }
    tokens += other.tokens
  }
}
