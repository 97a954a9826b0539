/// Calibration data drawn from the model itself, for where no text is at hand.
public struct SelfSampling: Sendable, Codable, Equatable {
  /// Divides the logits; 0 takes the most likely token each time.
  public var temperature: Float = 1
  /// Only the most likely tokens that together have at least this probability are drawn from.
  public var topP: Float = 1

  public init(temperature: Float = 1, topP: Float = 1) {
    self.temperature = temperature
    self.topP = topP
  }

  private enum CodingKeys: String, CodingKey { case temperature, topP = "top_p" }

  public init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: CodingKeys.self)
    temperature = try values.decodeIfPresent(Float.self, forKey: .temperature) ?? 1
    topP = try values.decodeIfPresent(Float.self, forKey: .topP) ?? 1
  }
}
