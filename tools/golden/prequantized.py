"""Write weights as other libraries quantize and store them, and the numbers they make of them, as a JSON fixture.

  prequantized.py LIBRARY... OUT       LIBRARY: bitsandbytes, modelopt, auto-round, hqq, quanto, torchao, or all
  python tools/golden/prequantized.py all Tests/FormatsTests/Fixtures/prequantized.json

OUT is a JSON object that this adds to, one entry per case: `tensors` of one module as the library lays them out (little-endian bytes as hexadecimal
digits), `quantization`, what config.json says under quantization_config, `files` beside it, and what the library makes of the weight: `dense`, its
numbers, rounded to the type `rounded` where there is one, or a `digest` of them (FNV-1a, 64 bits, over little-endian float32, zeros without sign:
bitsandbytes' kernels and its own table of FP4 differ in that). Made on a CPU with
bitsandbytes 0.50.2, nvidia-modelopt 0.47.0, auto-round 0.16.1, hqq 0.2.8, optimum-quanto 0.2.7, torchao 0.18.0, transformers 5.24.0, torch 2.13.0:

  pip install bitsandbytes nvidia-modelopt auto-round hqq optimum-quanto torchao transformers accelerate termcolor

Two things are not the libraries' own work. transformers 5.24 does not quantize with HQQ, and refuses HQQ on a CPU; what earlier versions stored of a
module is its state dictionary, which is taken here. torchao quantizes to 4 bits in plain packing only with kernels for a GPU (mslk); its Int4Tensor is
filled by hand, as its docstring lays it out.
"""
import importlib.metadata
import json
import os
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# This folder has a tokenizers.py, which is not the library of that name.
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]

import torch

NAMES = {torch.uint8: "U8", torch.int8: "I8", torch.int32: "I32", torch.int64: "I64", torch.float32: "F32", torch.float16: "F16",
         torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


def raw(tensor):
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def stored(tensors):
    return {name: {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "bytes": raw(tensor).hex()} for name, tensor in tensors.items()}


def digest(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def case(library, tensors, dense, quantization=None, files=None, rounded=None, whole=True):
    dense = dense.detach().float()
    entry = {"library": f"{library} {importlib.metadata.version(library)}", "shape": list(dense.shape), "tensors": stored(tensors)}
    entry |= {"dense": raw(dense).hex()} if whole else {"digest": digest(raw(dense + 0.0))}
    entry |= {key: value for key, value in (("quantization", quantization), ("files", files), ("rounded", rounded)) if value}
    return entry


def linear(rows, columns, dtype=torch.float32, seed=1):
    layer = torch.nn.Linear(columns, rows, bias=False)
    layer.weight.data = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05
    return layer.to(dtype)


def bitsandbytes():
    import bitsandbytes as bnb

    config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    # Blocks of 64 reach from one row of 96 into the next, and the last one is short; 264 blocks need two scales of scales.
    for kind, nested, rows, columns, dtype in (("nf4", False, 5, 90, torch.bfloat16), ("fp4", False, 5, 90, torch.float16),
                                               ("nf4", True, 64, 264, torch.bfloat16), ("fp4", True, 4, 64, torch.float32)):
        layer = bnb.nn.Linear4bit(columns, rows, bias=False, compress_statistics=nested, quant_type=kind)
        layer.weight = bnb.nn.Params4bit(linear(rows, columns, dtype).weight.data, requires_grad=False, compress_statistics=nested, quant_type=kind)
        layer = layer.to("cpu")
        dense = bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        yield f"{kind}{'-nested' if nested else ''}", case("bitsandbytes", layer.state_dict(), dense, config, whole=False)
    layer = bnb.nn.Linear8bitLt(24, 6, bias=False, has_fp16_weights=False, threshold=6.0)
    layer.weight = bnb.nn.Int8Params(linear(6, 24, torch.float16).weight.data, requires_grad=False, has_fp16_weights=False)
    layer = layer.to("cpu")
    dense = bnb.functional.int8_vectorwise_dequant(layer.weight.data, layer.weight.SCB)
    yield "llm-int8", case("bitsandbytes", layer.state_dict(), dense, {"quant_method": "bitsandbytes", "load_in_8bit": True})


def modelopt():
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint
    from modelopt.torch.quantization.qtensor import NVFP4QTensor
    from safetensors.torch import load_file
    from transformers import LlamaConfig, LlamaForCausalLM

    module = "model.layers.0.self_attn.k_proj."
    for name, preset in (("modelopt-fp8", mtq.FP8_DEFAULT_CFG), ("modelopt-nvfp4", mtq.NVFP4_DEFAULT_CFG)):
        torch.manual_seed(2)
        model = LlamaForCausalLM(LlamaConfig(vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                             num_key_value_heads=1, head_dim=16, max_position_embeddings=64, tie_word_embeddings=False, architectures=["LlamaForCausalLM"]))
        model = mtq.quantize(model.to(torch.bfloat16), preset, lambda model: model(torch.arange(32)[None]))
        with tempfile.TemporaryDirectory() as folder:
            export_hf_checkpoint(model, export_dir=folder)
            config = json.load(open(f"{folder}/config.json"))["quantization_config"]
            files = {"hf_quant_config.json": json.load(open(f"{folder}/hf_quant_config.json"))}
            tensors = {key[len(module):]: value for key, value in load_file(f"{folder}/model.safetensors").items() if key.startswith(module)}
        codes, scale = tensors["weight"], tensors["weight_scale"]
        if name == "modelopt-fp8":
            dense = codes.float() * scale
        else:
            packed = NVFP4QTensor(torch.Size([codes.shape[0], codes.shape[1] * 2]), torch.float32, codes)
            dense = packed.dequantize(torch.float32, scale=scale, double_scale=tensors["weight_scale_2"], block_sizes={-1: 16})
        yield name, case("nvidia-modelopt", tensors, dense, config, files)


def auto_round():
    from auto_round_extension.torch.qlinear_torch import QuantLinear as Own
    from auto_round_extension.torch.qlinear_torch_zp import QuantLinear as Shifted

    for name, kind, packing, bits in (("auto-round-w4", Own, "auto_round", 4), ("auto-round-w3", Own, "auto_round:gptqmodel", 3),
                                      ("auto-round-w5", Own, "auto_round", 5), ("auto-round-w4-gptq", Shifted, "auto_round:auto_gptq", 4)):
        layer = linear(32, 64)
        groups = layer.weight.data.reshape(32, 2, 32)
        low, high = groups.amin(-1), groups.amax(-1)
        scale = ((high - low) / (2**bits - 1)).half().float()
        zero = (-low / scale).round()
        codes = (groups / scale[..., None] + zero[..., None]).round().clamp(0, 2**bits - 1)
        dense = ((codes - zero[..., None]) * scale[..., None]).reshape(32, 64)
        layer.weight.data = dense.clone()
        packed = kind(bits, 32, 64, 32, False, weight_dtype=torch.float32)
        packed.device = "cpu"  # its exporter says so, too
        packed.pack(layer, scale, zero, None, device="cpu")
        # What the module multiplies by, in half precision.
        seen = packed(torch.eye(64, dtype=torch.float16)).T
        assert torch.allclose(seen.float(), dense, atol=1e-3)
        config = {"quant_method": "auto-round", "packing_format": packing, "bits": bits, "group_size": 32, "sym": False, "data_type": "int"}
        yield name, case("auto-round", packed.state_dict(), dense, config)


def hqq():
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer

    for bits, size, axis in ((4, 32, 1), (3, 32, 1), (2, 16, 1), (1, 32, 1), (8, 32, 1), (4, 32, 0), (4, 48, 1)):
        layer = HQQLinear(linear(12, 64), BaseQuantizeConfig(nbits=bits, group_size=size, axis=axis), compute_dtype=torch.float16, device="cpu")
        meta = layer.meta | {"scale": layer.meta["scale"].float(), "zero": layer.meta["zero"].float(), "compute_dtype": torch.float32}
        dense = Quantizer.dequantize(layer.W_q, meta)
        config = {"quant_method": "hqq", "quant_config": layer.quant_config["weight_quant_params"], "skip_modules": ["lm_head"]}
        yield f"hqq{bits}-g{size}-axis{axis}", case("hqq", layer.state_dict(), dense, config)


def quanto():
    from optimum import quanto as library
    from optimum.quanto.nn import QLinear
    from optimum.quanto.tensor.packed import PackedTensor

    # What unpacks codes is a kernel that the library would compile for this machine: here it is what was packed.
    packed = []
    pack = PackedTensor.pack
    PackedTensor.pack = classmethod(lambda cls, codes, bits=4: packed.append(codes) or pack(codes, bits))
    PackedTensor.unpack = lambda self: packed[-1]
    for name, kind, rows, columns, dtype in (("qint8", library.qint8, 6, 24, torch.bfloat16), ("qfloat8", library.qfloat8, 6, 24, torch.bfloat16),
                                             ("qfloat8_e5m2", library.qfloat8_e5m2, 6, 24, torch.float32), ("qint4", library.qint4, 6, 256, torch.float32),
                                             ("qint2", library.qint2, 6, 24, torch.float32)):
        layer = QLinear.from_module(linear(rows, columns, dtype), weights=kind)
        layer.freeze()
        files = {"quanto_qmap.json": {"m": {"weights": kind.name, "activations": "none"}}}
        tensors = layer.state_dict()
        yield f"quanto-{name}", case("optimum-quanto", tensors, layer.weight.dequantize(), files=files, rounded="BF16" if dtype == torch.bfloat16 else None)


def torchao():
    import torchao.quantization as library
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    def entry(weight, dense, kind):
        tensors, _ = flatten_tensor_state_dict({"m.weight": weight})
        config = {"quant_method": "torchao", "quant_type": {"default": {"_type": kind, "_version": 2, "_data": {}}}}
        return case("torchao", {name.removeprefix("m."): tensor for name, tensor in tensors.items()}, dense, config)

    for name, config in (("int8", library.Int8WeightOnlyConfig()), ("float8", library.Float8WeightOnlyConfig()),
                         ("int8-g16", library.Int8WeightOnlyConfig(granularity=library.PerGroup(16)))):
        layer = linear(6, 48, torch.bfloat16)
        library.quantize_(layer, config)
        yield f"torchao-{name}", entry(layer.weight, layer.weight.dequantize(torch.float32), type(config).__name__)
    codes = torch.randint(-8, 8, (6, 64), generator=torch.Generator().manual_seed(4), dtype=torch.int8)
    scale = torch.rand(2, 6, generator=torch.Generator().manual_seed(5)).to(torch.bfloat16) * 0.01 + 0.01
    zero = (torch.rand(2, 6, generator=torch.Generator().manual_seed(6)).to(torch.bfloat16) - 0.5) * 0.02
    packed = (codes[:, ::2] & 15) | (codes[:, 1::2] << 4)
    weight = library.Int4Tensor(packed, scale, zero, [1, 32], torch.Size([6, 64]))
    dense = (codes.reshape(6, 2, 32).double() * scale.T[..., None].double() + zero.T[..., None].double()).reshape(6, 64)
    yield "torchao-int4", entry(weight, dense, "Int4WeightOnlyConfig")


MAKERS = {"bitsandbytes": bitsandbytes, "modelopt": modelopt, "auto-round": auto_round, "hqq": hqq, "quanto": quanto, "torchao": torchao}


def main():
    *libraries, out = sys.argv[1:]
    torch.set_num_threads(1)
    fixture = json.load(open(out)) if os.path.exists(out) else {}
    for library in MAKERS if libraries == ["all"] else libraries:
        for name, entry in MAKERS[library]():
            fixture[name] = entry
            print(name, {key: (value["dtype"], value["shape"]) for key, value in entry["tensors"].items()})
    with open(out, "w") as file:
        file.write("{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(fixture[key])}" for key in sorted(fixture)) + "\n}\n")


if __name__ == "__main__":
    main()
