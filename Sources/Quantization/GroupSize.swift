import Models
public import Passes

/// Columns of a row that share a scale, as recipes spell it: a number, `channel` for the whole row, `tensor` for the whole matrix, tiles such as
/// `128x128`, or `auto` for the largest usual number that fits each layer.
public enum GroupSize: Sendable, Hashable, Codable, ExpressibleByIntegerLiteral, SpelledOption {
  case columns(Int)
  /// For each layer the first of `GroupSize.usual` that divides its columns, and the whole row where none does.
  case auto
  case channel
  case tensor
  case block(rows: Int, columns: Int)

  public init(integerLiteral value: Int) { self = .columns(value) }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let count = try? container.decode(Int.self) {
      // Other toolkits spell a whole row as −1.
      self = count == -1 ? .channel : .columns(count)
      return
    }
    let text = try container.decode(String.self)
    let sides = text.split(separator: "x", omittingEmptySubsequences: false).map { Int($0) }
    switch text {
    case "auto": self = .auto
    case "channel": self = .channel
    case "tensor": self = .tensor
    case _ where sides.count == 2 && sides.allSatisfy({ $0 != nil }): self = .block(rows: sides[0]!, columns: sides[1]!)
    default:
      throw DecodingError.dataCorruptedError(
        in: container, debugDescription: "\(Self.spelling) are needed")
    }
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .columns(let count): try container.encode(count)
    case .auto: try container.encode("auto")
    case .channel: try container.encode("channel")
    case .tensor: try container.encode("tensor")
    case .block(let rows, let columns): try container.encode("\(rows)x\(columns)")
    }
  }

  /// What `auto` chooses from: group sizes that runtimes have kernels for.
  static let usual = [128, 64, 32]

  /// The largest usual number of columns that divides all of the given ones; `nil` where none does.
  static func fitting(_ columns: [Int]) -> Int? { usual.first { size in columns.allSatisfy { $0 % size == 0 } } }

  /// - Parameter columns: what the groups must divide: of a dense weight its columns, of two factors those of both.
  func granularity(columns: [Int]) -> QuantizationScheme.Granularity {
    switch self {
    case .columns(let count): .group(count)
    case .auto: Self.fitting(columns).map { .group($0) } ?? .channel
    case .channel: .channel
    case .tensor: .tensor
    case .block(let rows, let columns): .block(rows: rows, columns: columns)
    }
  }

  /// The values in words.
  public static var spelling: String { "a number of columns, auto, channel, tensor, or tiles such as 128x128" }

  /// What to write in place of a number that does not divide these columns.
  static func advice(_ columns: [Int]) -> String {
    guard let size = fitting(columns) else {
      return "none of \(usual.map(String.init).joined(separator: ", ")) does; give it an override with \"channel\", or set group_size: auto"
    }
    return "\(size) does; give it an override with that, or set group_size: auto, which chooses for every layer"
  }

  var isPositive: Bool {
    switch self {
    case .columns(let count): count > 0
    case .block(let rows, let columns): rows > 0 && columns > 0
    case .auto, .channel, .tensor: true
    }
  }
}
