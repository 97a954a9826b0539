public import CheckpointIO
public import Models
import StrictJSON
import Tensors

/// The checkpoints of bitsandbytes as transformers saves them: NF4 and FP4, with scales that may be codes themselves, and the integers of
/// LLM.int8(). Read, not written.
///
/// Facts from bitsandbytes 0.50. A module of 4 bits has `weight`, bytes of two codes each, the first in the high half, rows one after the other;
/// `weight.quant_map`, the number behind each of the 16 codes; `weight.absmax`, a scale for every run of `blocksize` weights, which may reach
/// from one row into the next; `weight.quant_state.bitsandbytes__nf4` (or `__fp4`), JSON in bytes. Where scales are codes (Dettmers et al. 2023,
/// "QLoRA": double quantization), they are looked up in `weight.nested_quant_map`, multiplied by `weight.nested_absmax`, one for every
/// `nested_blocksize` of them, and `nested_offset` is added. A module of 8 bits has `weight` and `SCB`, the largest magnitude of each row, which
/// 127 stands for (Dettmers et al. 2022, "LLM.int8()").
public struct BitsAndBytesFormat: ReadOnlyFormat {
  public static let name = "bitsandbytes"
  public static let summary = "NF4, FP4 and LLM.int8() as transformers saves them; read only"
  public static let instead = "compressed-tensors and gptq hold integers of 4 and 8 bits, gguf codes that are spaced otherwise"
  public init() {}

  public func reader(for config: ModelConfig) throws(CheckpointError) -> WeightReader? {
    guard let json = config.quantization else { return nil }
    let loads = ["load_in_4bit", "load_in_8bit"].filter { json[$0]?.bool == true }
    // Old versions of transformers named no method.
    guard json["quant_method"]?.string?.lowercased() == Self.name || json["quant_method"] == nil && !loads.isEmpty else { return nil }
    var reader = WeightReader(
      components: BitsAndBytesLayout.components,
      holds: { module, source in BitsAndBytesLayout.holds(module, source) },
      weight: { module, source throws(CheckpointError) in
        if source.info(module + ".SCB") != nil || source.info(module + ".weight")?.dtype == .int8 {
          return try BitsAndBytesLayout.integers(module, source)
        }
        return try BitsAndBytesLayout.codes(module, source)
      })
    reader.knowsAllComponents = true
    if loads == ["load_in_8bit"] {
      reader.remarks = [
        "bitsandbytes multiplies 8-bit weights by inputs that it rounds to 8 bits too, all but features of outliers; here inputs stay as they are"
      ]
    }
    return reader
  }
}
