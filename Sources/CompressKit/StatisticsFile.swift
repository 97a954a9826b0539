public import CheckpointIO
public import Foundation
public import Passes
internal import Tensors

/// Calibration statistics in an HDF5 file, as `compress calibrate` saves them: of the inputs of every group of linears the lower triangle of
/// the Hessian (F64), the sums of |x| and x², the largest |x|, and how many tokens they are of.
///
/// A group `/NAME` is named after the first linear that reads the inputs. The root says of which model and of which data they are.
public struct StatisticsFile: StoredStatistics {
  public let path: String
  /// What the tokens came from.
  public let source: String
  public let sequences: Int
  public let tokens: Int
  /// The file as it was when it was opened.
  let stamp: FileStamp?
  private let file: HDF5File
  private let fingerprints: (model: String, data: String)

  enum Attribute {
    static let (format, model, data, source) = ("format", "model_fingerprint", "data_fingerprint", "data_source")
    static let (sequences, tokens) = ("sequences", "tokens")
    static let family = "compress calibration statistics"
    static let version = family + " 1"
  }

  /// The datasets of a group.
  enum Part { static let (hessian, sums, squares, maxima, counts) = ("hessian", "sums", "squares", "maxima", "counts") }

  /// - Throws: `CheckpointError` for a file that is damaged or another's.
  public init(_ url: URL) throws(CheckpointError) {
    stamp = FileStamp(of: url)
    let file = try HDF5File(url)
    func attribute(_ name: String) throws(CheckpointError) -> String {
      guard let value = file.attribute(name)?.first else {
        throw .unreadable(path: url.path, reason: "no calibration statistics: the attribute \(name) is missing")
      }
      return value
    }
    guard try attribute(Attribute.format) == Attribute.version else {
      throw .unreadable(path: url.path, reason: "its format is not \"\(Attribute.version)\"")
    }
    self.file = file
    path = url.path
    source = try attribute(Attribute.source)
    sequences = Int(try attribute(Attribute.sequences)) ?? 0
    tokens = Int(try attribute(Attribute.tokens)) ?? 0
    fingerprints = (try attribute(Attribute.model), try attribute(Attribute.data))
  }

  /// Why a file is not one of these; `nil` for one that is.
  static func foreignness(of url: URL) -> String? {
    guard let file = try? HDF5File(url), file.attribute(Attribute.format)?.first?.hasPrefix(Attribute.family) == true else {
      return "it is no file of calibration statistics"
    }
    return nil
  }

  /// - Throws: `StatisticsMismatch` where they are of another model, or of other data than is given.
  func check(against tensors: any TensorSource, data: [[Int32]]?) throws {
    let model = try Fingerprint.of(tensors)
    guard model == fingerprints.model else { throw StatisticsMismatch(path: path, what: "model", stored: fingerprints.model, found: model) }
    guard let data else { return }
    let found = Fingerprint.of(data)
    guard found == fingerprints.data else { throw StatisticsMismatch(path: path, what: "data", stored: fingerprints.data, found: found) }
  }

  public func statistic<S: Statistic>(_ type: S.Type, of linear: String) throws -> S? {
    guard file.info("\(linear)/\(Part.counts)") != nil else { return nil }
    let counts: [Int64] = try part(linear, Part.counts, .int64).integers(Int64.self)
    guard counts.count == 2, counts.allSatisfy({ (0..<1 << 53).contains($0) }) else {
      throw CheckpointError.malformedTensor(path: path, tensor: linear, offset: 0, reason: "its counts are not two numbers")
    }
    let tokens = Int(counts[0])
    switch type {
    case is Hessian.Type:
      let tensor = try part(linear, Part.hessian, .float64)
      guard tensor.shape.count == 2, tensor.shape[0] == tensor.shape[1] else {
        throw CheckpointError.wrongShape(tensor: linear, expected: [tensor.shape.first ?? 0, tensor.shape.first ?? 0], found: tensor.shape)
      }
      var matrix = SymmetricMatrix(size: tensor.shape[0])
      matrix.lower = doubles(tensor)
      return Hessian(matrix, tokens: tokens, skippedTokens: Int(counts[1])) as? S
    case is InputNorm.Type: return InputNorm(squares: doubles(try part(linear, Part.squares, .float64)), tokens: tokens) as? S
    case is InputMaximum.Type: return InputMaximum(values: try part(linear, Part.maxima, .float32).floats(), tokens: tokens) as? S
    case is InputMagnitude.Type:
      let (sums, squares) = (try part(linear, Part.sums, .float64), try part(linear, Part.squares, .float64))
      let maxima = try part(linear, Part.maxima, .float32)
      guard sums.shape == squares.shape, sums.shape == maxima.shape else {
        throw CheckpointError.wrongShape(tensor: linear, expected: sums.shape, found: maxima.shape)
      }
      return InputMagnitude(sums: doubles(sums), squares: doubles(squares), maxima: maxima.floats(), tokens: tokens) as? S
    default: return nil
    }
  }

  private func part(_ linear: String, _ name: String, _ dtype: DType) throws(CheckpointError) -> Tensor {
    let tensor = try file.tensor("\(linear)/\(name)")
    guard tensor.dtype == dtype else {
      throw .unusableType(tensor: "\(linear)/\(name)", dtype: tensor.dtype.rawValue, use: dtype.rawValue)
    }
    return tensor
  }

  private func doubles(_ tensor: Tensor) -> [Double] { tensor.integers(UInt64.self).map { Double(bitPattern: $0) } }
}

/// Statistics were gathered from something else than what they are asked about.
public struct StatisticsMismatch: Error, Equatable, Sendable, CustomStringConvertible {
  public let path: String
  /// `model` or `data`.
  public let what: String
  public let stored: String
  public let found: String
  public var description: String {
    "\(path): these statistics are of another \(what) (fingerprint \(stored), this one's is \(found)); run `compress calibrate` again"
  }
}

/// A pass needs more than statistics of the original model.
public struct StatisticsDoNotSuffice: Error, Equatable, Sendable, CustomStringConvertible {
  public let pass: String
  public let reason: String
  public var description: String { "\(pass) cannot use stored statistics: \(reason); give the recipe calibration data instead" }
}
