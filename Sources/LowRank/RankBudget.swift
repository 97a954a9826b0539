import Models

/// The size of what is factored together: a weight, or several that share their input factor.
struct FactorShape: Sendable, Hashable {
  /// Outputs of all weights together.
  var rows: Int
  var columns: Int

  /// Elements of both factors for each unit of rank.
  var cost: Int { rows + columns }
  var elements: Int { rows * columns }

  /// The largest multiple of `step` that takes fewer elements than the dense weight; `nil` where none does.
  func largestRank(step: Int) -> Int? {
    let rank = (elements - 1) / cost / step * step
    return rank > 0 ? rank : nil
  }
}

/// Ranks within a number of elements, every shape keeping about the same share of its own.
struct RankBudget {
  let step: Int

  /// - Returns: a rank for each shape, a multiple of `step`; `nil` for one that no rank makes smaller, and which stays dense. The sizes add up
  ///   to no more than `elements` unless every rank is already the smallest possible.
  func ranks(for shapes: [FactorShape], elements: Int) -> [Int?] {
    let limits = shapes.map { $0.largestRank(step: step) }
    let factored = shapes.indices.filter { limits[$0] != nil }
    let dense = shapes.indices.filter { limits[$0] == nil }.reduce(0) { $0 + shapes[$1].elements }
    let share = Double(max(0, elements - dense)) / Double(max(1, factored.reduce(0) { $0 + shapes[$1].elements }))
    var ranks = [Int?](repeating: nil, count: shapes.count)
    var left = elements - dense
    func target(_ index: Int) -> Double { share * Double(shapes[index].elements) / Double(shapes[index].cost) }
    for index in factored {
      let rank = min(limits[index]!, max(step, Int(target(index)) / step * step))
      ranks[index] = rank
      left -= rank * shapes[index].cost
    }
    // What rounding down has left over goes to whom it has taken most from.
    while true {
      let open = factored.filter { ranks[$0]! + step <= limits[$0]! && step * shapes[$0].cost <= left && Double(ranks[$0]!) < target($0) }
      guard let next = open.min(by: { Double(ranks[$0]!) / target($0) < Double(ranks[$1]!) / target($1) }) else { return ranks }
      ranks[next]! += step
      left -= step * shapes[next].cost
    }
  }
}
