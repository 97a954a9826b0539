internal import Foundation
internal import Tensors

/// A loss of one position's logits, with its gradient.
package protocol LogitLoss: Sendable {
  /// - Parameters:
  ///   - logits: the student's, `count` of them; become the gradient.
  ///   - teacher: the teacher's logits; `nil` for a loss that needs none. May be overwritten.
  ///   - next: the token that really follows; `nil` behind the last one.
  /// - Returns: the loss in nats; `nil` where the position has none, whose gradient is then zero.
  func pull(
    _ logits: UnsafeMutablePointer<Float>, teacher: UnsafeMutablePointer<Float>?, next: Int32?, count: Int
  ) -> Double?

  var needsTeacher: Bool { get }
}

/// −log q of the token that really follows; its gradient is q − 1 there and q elsewhere.
package struct CrossEntropy: LogitLoss {
  package init() {}
  package var needsTeacher: Bool { false }

  package func pull(
    _ logits: UnsafeMutablePointer<Float>, teacher: UnsafeMutablePointer<Float>?, next: Int32?, count: Int
  ) -> Double? {
    guard let next else {
      logits.update(repeating: 0, count: count)
      return nil
    }
    let loss = Kernel.logSumExp(logits, count: count) - Double(logits[Int(next)])
    Kernel.softmax(logits, count: count, scale: 1)
    logits[Int(next)] -= 1
    return loss
  }
}

/// KL(p ‖ q) of teacher and student at a temperature, times its square: Σ p · (log p − log q), whose gradient is T · (q − p) (Hinton et al.
/// 2015). The student covers all that the teacher deems possible.
package struct ForwardDivergence: LogitLoss {
  package var temperature: Float

  package init(temperature: Float = 1) { self.temperature = temperature }
  package var needsTeacher: Bool { true }

  package func pull(
    _ logits: UnsafeMutablePointer<Float>, teacher: UnsafeMutablePointer<Float>?, next: Int32?, count: Int
  ) -> Double? {
    guard let teacher else { preconditionFailure("a divergence needs a teacher") }
    let t = temperature
    let (own, other) = (cooledSum(logits, count, by: t), cooledSum(teacher, count, by: t))
    let loss = Kernel.klDivergence(teacher, logSumExp: other, logits, logSumExp: own, count: count)
    Kernel.softmax(logits, count: count, scale: 1)
    Kernel.softmax(teacher, count: count, scale: 1)
    for index in 0..<count { logits[index] = t * (logits[index] - teacher[index]) }
    return Double(t * t) * loss
  }
}

/// KL(q ‖ p), which asks the student for nothing that the teacher deems unlikely; its gradient is T · q ⊙ (δ − KL) with δ = log q − log p.
package struct ReverseDivergence: LogitLoss {
  package var temperature: Float

  package init(temperature: Float = 1) { self.temperature = temperature }
  package var needsTeacher: Bool { true }

  package func pull(
    _ logits: UnsafeMutablePointer<Float>, teacher: UnsafeMutablePointer<Float>?, next: Int32?, count: Int
  ) -> Double? {
    guard let teacher else { preconditionFailure("a divergence needs a teacher") }
    let t = temperature
    let (own, other) = (cooledSum(logits, count, by: t), cooledSum(teacher, count, by: t))
    let loss = Kernel.klDivergence(logits, logSumExp: own, teacher, logSumExp: other, count: count)
    // δ first, for the softmax overwrites the logits.
    for index in 0..<count { teacher[index] = Float(Double(logits[index]) - own - Double(teacher[index]) + other) }
    Kernel.softmax(logits, count: count, scale: 1)
    for index in 0..<count { logits[index] *= t * (teacher[index] - Float(loss)) }
    return Double(t * t) * loss
  }
}

/// β · KL(p ‖ m) + (1 − β) · KL(q ‖ m) with m = β · p + (1 − β) · q (Agarwal et al. 2024, equation 1); the gradient is
/// T · (1 − β) · q ⊙ (r − Σ q · r) with r = log(q / m).
package struct JensenShannonDivergence: LogitLoss {
  package var beta: Float
  package var temperature: Float

  package init(beta: Float = 0.5, temperature: Float = 1) {
    self.beta = beta
    self.temperature = temperature
  }
  package var needsTeacher: Bool { true }

  package func pull(
    _ logits: UnsafeMutablePointer<Float>, teacher: UnsafeMutablePointer<Float>?, next: Int32?, count: Int
  ) -> Double? {
    guard let teacher else { preconditionFailure("a divergence needs a teacher") }
    Kernel.softmax(logits, count: count, scale: 1 / temperature)
    Kernel.softmax(teacher, count: count, scale: 1 / temperature)
    var (forward, reverse) = (0.0, 0.0)
    for index in 0..<count {
      let (p, q) = (teacher[index], logits[index])
      let middle = beta * p + (1 - beta) * q
      if p > 0 { forward += Double(p) * logarithm(p / middle) }
      let ratio = q > 0 ? logarithm(q / middle) : 0
      reverse += Double(q) * ratio
      teacher[index] = Float(ratio)
    }
    for index in 0..<count { logits[index] *= temperature * (1 - beta) * (teacher[index] - Float(reverse)) }
    return Double(temperature * temperature) * (Double(beta) * forward + Double(1 - beta) * reverse)
  }
}

/// A share of a divergence and the rest of cross-entropy.
package struct MixedLoss: LogitLoss {
  package var divergence: any LogitLoss
  /// 1 for the divergence alone.
  package var share: Float

  package init(_ divergence: any LogitLoss, share: Float) {
    self.divergence = divergence
    self.share = share
  }
  package var needsTeacher: Bool { divergence.needsTeacher }

  package func pull(
    _ logits: UnsafeMutablePointer<Float>, teacher: UnsafeMutablePointer<Float>?, next: Int32?, count: Int
  ) -> Double? {
    var own = Array(UnsafeBufferPointer(start: logits, count: count))
    let divergence = divergence.pull(logits, teacher: teacher, next: next, count: count)
    let entropy = own.withUnsafeMutableBufferPointer { CrossEntropy().pull($0.baseAddress!, teacher: nil, next: next, count: count) }
    for index in 0..<count { logits[index] = share * logits[index] + (1 - share) * own[index] }
    guard let entropy else { return divergence.map { Double(share) * $0 } }
    return Double(share) * (divergence ?? 0) + Double(1 - share) * entropy
  }
}

/// Divides logits by a temperature, and says their log Σ exp.
private func cooledSum(_ logits: UnsafeMutablePointer<Float>, _ count: Int, by temperature: Float) -> Double {
  if temperature != 1 { for index in 0..<count { logits[index] /= temperature } }
  return Kernel.logSumExp(logits, count: count)
}

private func logarithm(_ x: Float) -> Double { log(Double(x)) }
