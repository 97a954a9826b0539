/// Which sequences gradients are taken of, and which only decide what is best.
struct KeptOut {
  let training: [Int]
  let validation: [Int]
  /// Whether there were too few to keep any out.
  let isEmpty: Bool

  /// - Parameters:
  ///   - count: of all sequences, at least one.
  ///   - share: to be kept out, spread evenly.
  init(of count: Int, share: Double) {
    let every = max(2, Int((1 / share).rounded()))
    isEmpty = count < 2
    guard count >= 2 else {
      (training, validation) = (Array(0..<count), Array(0..<count))
      return
    }
    let kept = count < every ? [count - 1] : (0..<count).filter { $0 % every == every - 1 }
    training = (0..<count).filter { !kept.contains($0) }
    validation = kept
  }
}
