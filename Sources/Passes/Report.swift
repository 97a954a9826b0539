/// What a run did, as plain data: the `report.json` beside the weights.
public struct Report: Sendable, Codable, Equatable {
  /// What one pass did to one linear.
  public struct LayerRecord: Sendable, Codable, Equatable {
    public var pass: String
    /// Its name in the whole model.
    public var layer: String
    public var metrics: [String: Double] = [:]
    public var scheme: String?
    /// Why the layer was not done as asked; `nil` where it was.
    public var fallback: String?

    public init(pass: String, layer: String) {
      self.pass = pass
      self.layer = layer
    }
  }

  /// What the sweep of one block cost.
  public struct BlockRecord: Sendable, Codable, Equatable {
    public var block: String
    public var seconds: Double
    /// Whole forward passes over the calibration data, in multiply-adds of the linears; absent without calibration.
    public var forwardPasses: Double?
    /// Calibration tokens that each expert of a mixture has seen, the shared one last; absent where there are none.
    public var expertTokens: [Int]?
  }

  /// How a pass has trained the whole model.
  public struct TrainingRecord: Sendable, Codable, Equatable {
    public struct Point: Sendable, Codable, Equatable {
      public var step: Int
      /// Seen so far.
      public var tokens: Int
      /// Mean over the batch of that step, in nats.
      public var loss: Double
      /// Mean over the sequences kept out.
      public var lossKeptOut: Double

      public init(step: Int, tokens: Int, loss: Double, lossKeptOut: Double) {
        self.step = step
        self.tokens = tokens
        self.loss = loss
        self.lossKeptOut = lossKeptOut
      }
    }

    public var pass: String
    /// On the sequences kept out, before and at the best.
    public var lossBefore: Double
    public var lossAfter: Double
    /// The step whose state was kept; 0 for the start.
    public var bestStep: Int
    /// Spent on steps, validation apart.
    public var seconds: Double
    public var curve: [Point]

    public init(pass: String, lossBefore: Double, lossAfter: Double, bestStep: Int, seconds: Double, curve: [Point]) {
      self.pass = pass
      self.lossBefore = lossBefore
      self.lossAfter = lossAfter
      self.bestStep = bestStep
      self.seconds = seconds
      self.curve = curve
    }
  }

  public var layers: [LayerRecord] = []
  public var training: [TrainingRecord] = []
  public var blocks: [BlockRecord] = []
  /// What passes have to say about the model as a whole, in words.
  public var remarks: [String] = []
  /// Which of the model's blocks are left, by the numbers they had.
  public var keptBlocks: [Int] = []

  public init() {}

  public var fallbacks: [LayerRecord] { layers.filter { $0.fallback != nil } }
}
