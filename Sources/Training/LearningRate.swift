internal import Foundation

/// How the learning rate goes over a run: up in a straight line, then down.
public struct LearningRate: Sendable, Equatable {
  /// The way down from the peak.
  public enum Decay: String, Sendable, Codable, CaseIterable { case constant, linear, cosine }

  public var peak: Double
  public var decay: Decay
  /// The share of all steps in which the rate rises.
  public var warmUp: Double
  /// What is left of the peak at the end, as a share of it.
  public var last: Double

  public init(peak: Double, decay: Decay = .cosine, warmUp: Double = 0.03, last: Double = 0.05) {
    self.peak = peak
    self.decay = decay
    self.warmUp = warmUp
    self.last = last
  }

  /// The rate of a step, of `steps` counted from 0.
  public func callAsFunction(_ step: Int, of steps: Int) -> Float {
    let rising = (warmUp * Double(steps)).rounded()
    if Double(step) < rising { return Float(peak * Double(step + 1) / (rising + 1)) }
    let way = min(1, (Double(step) - rising) / max(1, Double(steps) - rising))
    switch decay {
    case .constant: return Float(peak)
    case .linear: return Float(peak * (1 - (1 - last) * way))
    case .cosine: return Float(peak * (last + (1 - last) * (1 + cos(.pi * way)) / 2))
    }
  }
}
