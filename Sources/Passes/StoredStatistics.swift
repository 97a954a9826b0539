package import Tensors

/// Statistics of the inputs of a model's linears that were gathered in an earlier run: what passes are answered with in place of a run over
/// calibration data.
///
/// They are those of the original model. A pass that asks group after group, so that each sees what became of the ones before ("true
/// sequential"), sees none of that here.
public protocol StoredStatistics: Sendable {
  /// - Parameter linear: full name of the first linear that reads the inputs.
  /// - Returns: `nil` for a statistic that is not stored.
  func statistic<S: Statistic>(_ type: S.Type, of linear: String) throws -> S?
}

/// A pass asked for what a file of statistics does not hold.
public struct StatisticNotStored: Error, Equatable, Sendable, CustomStringConvertible {
  public let statistic: String
  public let linear: String
  public var description: String {
    "the stored statistics hold no \(statistic) of the inputs of \(linear); give the recipe calibration data instead"
  }
}

/// What is stored of the inputs of a group: everything that the statistics of this module can be made of.
package struct InputStatistics: Statistic {
  package private(set) var hessian: Hessian
  package private(set) var magnitude: InputMagnitude

  package init(features: Int) {
    hessian = Hessian(features: features)
    magnitude = InputMagnitude(features: features)
  }

  package mutating func update(_ input: Matrix) {
    hessian.update(input)
    magnitude.update(input)
  }

  package mutating func merge(_ other: InputStatistics) {
    hessian.merge(other.hessian)
    magnitude.merge(other.magnitude)
  }
}
