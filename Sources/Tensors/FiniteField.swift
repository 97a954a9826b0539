/// The finite field of an odd prime power order, as far as Paley's construction needs it: differences, and which elements are squares.
///
/// Element i is the polynomial whose coefficients are the digits of i in base p, modulo an irreducible polynomial.
struct FiniteField {
  let order: Int
  private let characteristic: Int
  private let degree: Int
  /// 0 for zero, 1 for the square of something else, −1 for all others.
  let character: [Int8]

  /// `nil` where no field of odd order has so many elements.
  init?(order: Int) {
    guard order > 2, let (prime, degree) = Self.primePower(order), prime != 2 else { return nil }
    self.order = order
    characteristic = prime
    self.degree = degree
    // A polynomial is irreducible exactly if no element but zero squares to zero and half of the others are squares: a repeated factor
    // makes a nilpotent element, and of a product of fields fewer than half are squares.
    for candidate in 0..<order {
      let modulus = Self.digits(candidate, base: prime, count: degree)
      var character = [Int8](repeating: -1, count: order)
      for element in 1..<order {
        character[Self.square(Self.digits(element, base: prime, count: degree), modulus: modulus, prime: prime)] = 1
      }
      guard character[0] != 1, character.count(where: { $0 == 1 }) == (order - 1) / 2 else { continue }
      character[0] = 0
      self.character = character
      return
    }
    return nil
  }

  /// a − b.
  func difference(_ a: Int, _ b: Int) -> Int {
    guard degree > 1 else { return a >= b ? a - b : a - b + characteristic }
    var (a, b, place, result) = (a, b, 1, 0)
    for _ in 0..<degree {
      result += (a % characteristic + characteristic - b % characteristic) % characteristic * place
      (a, b, place) = (a / characteristic, b / characteristic, place * characteristic)
    }
    return result
  }

  /// The prime and the exponent of a prime power; `nil` for all other numbers.
  static func primePower(_ number: Int) -> (prime: Int, exponent: Int)? {
    guard number > 1 else { return nil }
    var prime = 2
    while prime * prime <= number, number % prime != 0 { prime += 1 }
    if number % prime != 0 { prime = number }
    var (rest, exponent) = (number, 0)
    while rest % prime == 0 { (rest, exponent) = (rest / prime, exponent + 1) }
    return rest == 1 ? (prime, exponent) : nil
  }

  private static func digits(_ number: Int, base: Int, count: Int) -> [Int] {
    var rest = number
    return (0..<count).map { _ in
      defer { rest /= base }
      return rest % base
    }
  }

  /// a² modulo xᵏ + modulus, as an index.
  private static func square(_ a: [Int], modulus: [Int], prime: Int) -> Int {
    let degree = a.count
    var product = [Int](repeating: 0, count: 2 * degree - 1)
    for i in 0..<degree { for j in 0..<degree { product[i + j] = (product[i + j] + a[i] * a[j]) % prime } }
    for top in stride(from: 2 * degree - 2, through: degree, by: -1) {
      for i in 0..<degree {
        product[top - degree + i] = (product[top - degree + i] + (prime - product[top]) * modulus[i]) % prime
      }
    }
    return product[..<degree].reversed().reduce(0) { $0 * prime + $1 }
  }
}
