@_exported public import Allocation
@_exported public import CheckpointIO
@_exported public import Distillation
@_exported public import Evaluation
@_exported public import Formats
@_exported public import KVCache
@_exported public import LowRank
@_exported public import Models
@_exported public import Passes
@_exported public import Pruning
@_exported public import Quantization
@_exported public import Recipes
@_exported public import StrictJSON
@_exported public import Tensors
@_exported public import Tokenizers
@_exported public import Training

extension PassCatalog {
  /// The passes this package ships.
  public static let standard = PassCatalog(
    [
      Rotate.self, SmoothQuant.self, AWQ.self, RoundToNearest.self, GPTQ.self, HQQ.self, LQER.self, Allocate.self, BlockQuantization.self,
      CacheCompression.self, LowRank.self, LatentCache.self, Magnitude.self, Wanda.self, SparseGPT.self, PruneWidth.self, PruneDepth.self,
      PruneExperts.self, SliceGPT.self, GroupedQueries.self, Tune.self, Distill.self,
    ], sentences: OptionSentences.all)
}

/// What reports and `--version` say.
public let toolkitVersion = "0.1.0"
