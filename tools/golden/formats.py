"""Have other tools read checkpoints that compress wrote, and write some for compress to read.

  formats.py write COMPRESS DIR            a tiny Llama, quantized by `compress` in every way below, under DIR/NAME
  formats.py llmcompressor DIR             the same Llama, quantized by llm-compressor, under DIR/llmcompressor-SCHEME
  formats.py read TOOL DIR OUT [NAME...]   what TOOL makes of them: compressed-tensors, gptqmodel, autoawq or mlx

OUT is a JSON object that `read` adds to, one entry per checkpoint: digests of the tensors that compress wrote and of the weights as TOOL
dequantized them (FNV-1a, 64 bits, over little-endian float32), and some of their numbers; `rounded` where TOOL hands out BF16. Of llm-compressor's checkpoints it keeps two
linears with all their tensors. Each TOOL needs an environment of its own; `write`
needs torch and safetensors. Run one after the other:

  python formats.py write .build/release/compress /tmp/f && python formats.py llmcompressor /tmp/f
  python formats.py read compressed-tensors /tmp/f Tests/FormatsTests/Fixtures/peers.json    # and so on
"""
import glob
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Compiled kernels would compute the same.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

# This folder has a tokenizers.py, which is not the library of that name.
sys.path[:] = [path for path in sys.path if os.path.abspath(path) != os.path.dirname(os.path.abspath(__file__))]

import numpy as np

CONFIG = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
    num_attention_heads=2, num_key_value_heads=1, head_dim=32, hidden_act="silu", rms_norm_eps=1e-5, max_position_embeddings=64,
    tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, dtype="bfloat16", torch_dtype="bfloat16")

RTN = "scales: minmax"
INPUTS = "calibration: { tokens: tokens.npy, sequences: 4, length: 32 }\n"
# Name, tool that reads it, output format, options of rtn.
CASES = {}
for bits in (4, 8):
    for group in ("32", "channel"):
        for symmetric in ("true", "false"):
            kind = f"w{bits}-{group}-{'sym' if symmetric == 'true' else 'asym'}"
            CASES["ct-" + kind] = ("compressed-tensors", f"bits: {bits}, group_size: {group}, symmetric: {symmetric}")
for bits in (2, 3, 5, 6):
    CASES[f"ct-w{bits}-32-sym"] = ("compressed-tensors", f"bits: {bits}, group_size: 32")
CASES |= {
    "ct-w8a8": ("compressed-tensors", "bits: 8, group_size: channel, activations: int8"),
    "ct-w8a8-tensor": ("compressed-tensors", "bits: 8, group_size: tensor, activations: int8"),
    "ct-w8a8-asym": ("compressed-tensors", "bits: 8, group_size: channel, symmetric: false, activations: int8"),
    "ct-w8a8-static": ("compressed-tensors", "bits: 8, group_size: channel, activations: int8_static"),
    "ct-w4a8": ("compressed-tensors", "bits: 4, group_size: 32, activations: int8"),
    "ct-w4afp8": ("compressed-tensors", "bits: 4, group_size: 32, activations: fp8"),
    "ct-fp8": ("compressed-tensors", "numbers: fp8, group_size: tensor, activations: fp8_static"),
    "ct-fp8-dynamic": ("compressed-tensors", "numbers: fp8, activations: fp8"),
    "ct-fp8-block": ("compressed-tensors", "numbers: fp8, group_size: 64x64, activations: fp8_g128"),
    "ct-fp8-weights": ("compressed-tensors", "numbers: fp8"),
    "ct-nvfp4a16": ("compressed-tensors", "numbers: nvfp4"),
    "ct-nvfp4": ("compressed-tensors", "numbers: nvfp4, activations: nvfp4"),
    "ct-mxfp4a16": ("compressed-tensors", "numbers: mxfp4"),
    "ct-mxfp4": ("compressed-tensors", "numbers: mxfp4, activations: mxfp4"),
    "ct-mxfp8a16": ("compressed-tensors", "numbers: mxfp8"),
    "ct-mxfp8": ("compressed-tensors", "numbers: mxfp8, activations: mxfp8"),
    "ct-mixed": ("compressed-tensors", "bits: 4, group_size: 32, layers: { exclude: [o_proj] }, overrides: [{ layers: down_proj, bits: 8 }]"),
    "gptq-w4-sym": ("gptq", "bits: 4, group_size: 32"),
    "gptq-w4-asym": ("gptq", "bits: 4, group_size: 32, symmetric: false"),
    "gptq-w4-channel": ("gptq", "bits: 4, group_size: channel"),
    "gptq-w2-asym": ("gptq", "bits: 2, group_size: 32, symmetric: false"),
    "gptq-w2-sym": ("gptq", "bits: 2, group_size: 32"),
    "gptq-w3-sym": ("gptq", "bits: 3, group_size: 32"),
    "gptq-w3-asym": ("gptq", "bits: 3, group_size: 64, symmetric: false"),
    "gptq-w8-sym": ("gptq", "bits: 8, group_size: 64"),
    "gptq-w8-asym": ("gptq", "bits: 8, group_size: 32, symmetric: false"),
    "gptq-mixed": ("gptq", "bits: 4, group_size: 32, layers: { exclude: [o_proj] }, overrides: [{ layers: down_proj, bits: 8, group_size: 64 }]"),
    "awq-sym": ("awq", "bits: 4, group_size: 32"),
    "awq-asym": ("awq", "bits: 4, group_size: 64, symmetric: false"),
    "awq-dense": ("awq", "bits: 4, group_size: 32, symmetric: false, layers: { exclude: [o_proj] }"),
    "mlx-sym": ("mlx", "bits: 4, group_size: 32"),
    "mlx-mxfp4": ("mlx", "numbers: mxfp4"),
    "mlx-mxfp8": ("mlx", "numbers: mxfp8"),
    "mlx-mixed": (
        "mlx", "bits: 4, group_size: 64, symmetric: false, zero_point: real, layers: { include: ['*', embed_tokens, lm_head], exclude: [o_proj] }, "
        "overrides: [{ layers: down_proj, bits: 6, group_size: 32 }]"),
}
for bits in (2, 3, 4, 5, 6, 8):
    CASES[f"mlx-w{bits}-real"] = ("mlx", f"bits: {bits}, group_size: 32, symmetric: false, zero_point: real")

READERS = {"compressed-tensors": "ct-", "gptqmodel": "gptq-", "autoawq": "awq-", "mlx": "mlx-"}
# llm-compressor's presets, and one of our own for groups that the tiny model has.
PRESETS = ["W8A8", "FP8", "FP8_DYNAMIC", "NVFP4A16", "NVFP4", "MXFP4A16", "MXFP8", "W4A16", "W4A16_ASYM"]


def weight(name, shape):
    """The weights of Tests/TestSupport/TinyModel.swift; see logits.py."""
    h = 2166136261
    for byte in name.encode():
        h = (h ^ byte) * 16777619 % 2**32
    count = int(np.prod(shape))
    x = (np.uint64(h) + np.uint64(2654435761) * np.arange(count, dtype=np.uint64)).astype(np.uint32)
    x ^= x >> np.uint32(15)
    x *= np.uint32(2246822519)
    x ^= x >> np.uint32(13)
    u = x.astype(np.float64) / 2**32 - 0.5
    is_norm = name.endswith(".weight") and ("norm" in name or ".ln_" in name)
    return (0.5 * u + is_norm).astype(np.float32).reshape(shape)


def shapes():
    hidden, wide, keys = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["head_dim"] * CONFIG["num_key_value_heads"]
    queries = CONFIG["head_dim"] * CONFIG["num_attention_heads"]
    yield "model.embed_tokens.weight", (CONFIG["vocab_size"], hidden)
    yield "lm_head.weight", (CONFIG["vocab_size"], hidden)
    yield "model.norm.weight", (hidden,)
    for layer in range(CONFIG["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, shape in dict(q_proj=(queries, hidden), k_proj=(keys, hidden), v_proj=(keys, hidden), o_proj=(hidden, queries)).items():
            yield prefix + f"self_attn.{name}.weight", shape
        for name, shape in dict(gate_proj=(wide, hidden), up_proj=(wide, hidden), down_proj=(hidden, wide)).items():
            yield prefix + f"mlp.{name}.weight", shape
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield prefix + name + ".weight", (hidden,)


def make_model(folder):
    import torch
    from safetensors.torch import save_file
    os.makedirs(folder, exist_ok=True)
    tensors = {name: torch.from_numpy(weight(name, shape)).to(torch.bfloat16) for name, shape in shapes()}
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(CONFIG, file)
    # Some loaders insist on a tokenizer.
    words = {chr(65 + i % 26) * (1 + i // 26): i for i in range(CONFIG["vocab_size"])}
    with open(os.path.join(folder, "tokenizer.json"), "w") as file:
        json.dump({"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel", "vocab": words, "unk_token": "A"}}, file)
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as file:
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "A", "eos_token": "C"}, file)


def write(compress, folder):
    make_model(os.path.join(folder, "model"))
    np.save(os.path.join(folder, "tokens.npy"), (np.arange(128, dtype=np.int32) * 37 + 11) % 64)
    for name, (target, options) in CASES.items():
        needs_inputs = any(word in options for word in ("static", "activations: nvfp4"))
        recipe = os.path.join(folder, name + ".yaml")
        with open(recipe, "w") as file:
            file.write((INPUTS if needs_inputs else "") + f"passes: [{{ rtn: {{ {RTN}, {options} }} }}]\noutput: {{ format: {target} }}\n")
        subprocess.run(
            [compress, "--recipe", recipe, "--model", os.path.join(folder, "model"), "--output", os.path.join(folder, name), "--overwrite",
             "--progress", "none"], check=True, stdout=subprocess.DEVNULL, cwd=folder)


def llmcompressor(folder):
    import torch
    from transformers import AutoModelForCausalLM
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from datasets import Dataset
    data = Dataset.from_dict({"input_ids": [[(37 * i + 11 * j + 3) % 64 for i in range(32)] for j in range(4)]})
    data = data.map(lambda row: {"attention_mask": [1] * len(row["input_ids"])})
    for preset in PRESETS:
        model = AutoModelForCausalLM.from_pretrained(os.path.join(folder, "model"), dtype=torch.bfloat16)
        if preset.startswith("W4A16"):
            arguments = dict(num_bits=4, type="int", symmetric=preset == "W4A16", strategy="group", group_size=32)
            recipe = QuantizationModifier(
                config_groups={"group_0": {"targets": ["Linear"], "weights": arguments}}, ignore=["lm_head"])
        else:
            recipe = QuantizationModifier(targets="Linear", scheme=preset, ignore=["lm_head"])
        oneshot(model=model, dataset=data, recipe=recipe, max_seq_length=32, num_calibration_samples=4)
        target = os.path.join(folder, "llmcompressor-" + preset.lower())
        shutil.rmtree(target, ignore_errors=True)
        model.save_pretrained(target, save_compressed=True)
        with open(os.path.join(target, "config.json")) as file:
            print(preset, json.load(file)["quantization_config"]["format"])


def digest(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return f"{h:016x}"


def tensors(folder):
    """Type, shape and bytes of every tensor, as they lie in the file."""
    result = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            data = file.read()
        for name, info in header.items():
            if name != "__metadata__":
                result[name] = (info["dtype"], info["shape"], data[slice(*info["data_offsets"])])
    return result


def read_compressed_tensors(folder):
    import torch
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, quantization_config=CompressedTensorsConfig(dequantize=True))
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info.get(kind), (folder, kind, info[kind])
    return {name + ".weight": module.weight for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}


def read_gptqmodel(folder):
    import torch
    from gptqmodel import BACKEND, GPTQModel
    model = GPTQModel.load(folder, backend=BACKEND.GPTQ_TORCH, device="cpu", dtype=torch.float16)
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear
    weights = {}
    for name, module in model.model.named_modules():
        if isinstance(module, BaseQuantLinear):
            # The layer's formula on the tensors as GPTQModel loaded, converted and unpacked them; its F16 product would round.
            scales = module.scales
            module.scales = torch.nn.Parameter(torch.ones_like(scales.float()), requires_grad=False) if isinstance(
                scales, torch.nn.Parameter) else torch.ones_like(scales, dtype=torch.float32)
            steps = module.dequantize_weight().float().T
            weights[name + ".weight"] = steps * scales.float()[module.g_idx.long()].T
        elif isinstance(module, torch.nn.Linear):
            weights[name + ".weight"] = module.weight
    return weights


def read_autoawq(folder):
    import torch
    import awq.models.base
    from awq import AutoAWQForCausalLM
    from awq.modules.linear.gemm import WQLinear_GEMM
    from awq.utils.packing_utils import reverse_awq_order, unpack_awq
    # On a CPU it would want a library of kernels that nothing here uses.
    awq.models.base.get_best_device = lambda: "cuda:0"
    model = AutoAWQForCausalLM.from_quantized(folder, fuse_layers=False, device_map={"": "cpu"})
    weights = {}
    for name, module in model.model.named_modules():
        if isinstance(module, WQLinear_GEMM):
            codes, zeros = reverse_awq_order(*unpack_awq(module.qweight, module.qzeros, 4), 4)
            codes, zeros = codes.int() & 15, zeros.int() & 15
            size = module.group_size
            steps = codes - zeros.repeat_interleave(size, 0)
            weights[name + ".weight"] = (steps.float() * module.scales.float().repeat_interleave(size, 0)).T
        elif isinstance(module, torch.nn.Linear):
            weights[name + ".weight"] = module.weight
    return weights


def read_mlx(folder):
    import mlx.core as mx
    import mlx.nn as nn
    from mlx_lm.utils import load_model
    from pathlib import Path
    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(folder), strict=True)
    weights = {}
    for name, module in model.named_modules():
        if isinstance(module, (nn.QuantizedLinear, nn.QuantizedEmbedding)):
            affine = module.mode == "affine"
            biases = module.biases.astype(mx.float32) if affine else None
            scales = module.scales.astype(mx.float32) if affine else module.scales
            full = mx.dequantize(module.weight, scales, biases, group_size=module.group_size, bits=module.bits, mode=module.mode)
            weights[name + ".weight"] = np.array(full.astype(mx.float32))
        elif isinstance(module, (nn.Linear, nn.Embedding)):
            weights[name + ".weight"] = np.array(module.weight.astype(mx.float32))
    return weights


PACKAGES = {"compressed-tensors": ["compressed-tensors", "transformers"], "gptqmodel": ["gptqmodel"], "autoawq": ["autoawq"],
            "mlx": ["mlx", "mlx-lm"]}


def read(tool, folder, out, names):
    reader = {"compressed-tensors": read_compressed_tensors, "gptqmodel": read_gptqmodel, "autoawq": read_autoawq, "mlx": read_mlx}[tool]
    fixture = {}
    if os.path.exists(out):
        with open(out) as file:
            fixture = json.load(file)
    own = [name for name in CASES if name.startswith(READERS[tool])]
    others = ["llmcompressor-" + preset.lower() for preset in PRESETS] if tool == "compressed-tensors" else []
    failed = []
    for name in names or own + others:
        path = os.path.join(folder, name)
        if not os.path.isdir(path):
            continue
        try:
            found = reader(path)
            weights = {k: np.ascontiguousarray(np.asarray(w.detach().float() if hasattr(w, "detach") else w), dtype="<f4")
                       for k, w in found.items()}
        except Exception as error:
            import traceback
            traceback.print_exc()
            failed.append(name)
            continue
        entry = {"reader": ", ".join(f"{p} {importlib.metadata.version(p)}" for p in PACKAGES[tool])}
        if any(str(getattr(w, "dtype", "")) == "torch.bfloat16" for k, w in found.items() if ".v_proj." in k):
            entry["rounded"] = "BF16"
        files = tensors(path)
        if name in CASES:
            own_names = [key for key in files if "norm" not in key]
            entry |= {"format": CASES[name][0], "options": CASES[name][1], "stored": {key: digest(files[key][2]) for key in own_names}}
        else:
            with open(os.path.join(path, "config.json")) as file:
                entry["quantization_config"] = json.load(file)["quantization_config"]
            weights = {key: values for key, values in weights.items() if ".k_proj." in key or ".v_proj." in key}
            entry["tensors"] = {
                key: {"dtype": dtype, "shape": shape, "bytes": data.hex()} for key, (dtype, shape, data) in files.items()
                if ".k_proj." in key or ".v_proj." in key}
        entry["weights"] = {key: digest((values + np.float32(0)).tobytes()) for key, values in sorted(weights.items())}
        entry["first"] = {key: [float(x) for x in values.flat[:4]] for key, values in sorted(weights.items()) if ".v_proj." in key}
        fixture[name] = entry
        print(name, len(weights), flush=True)
    with open(out, "w") as file:
        lines = [json.dumps(name) + ": " + json.dumps(entry, separators=(",", ":")) for name, entry in sorted(fixture.items())]
        file.write("{\n" + ",\n".join(lines) + "\n}\n")
    if failed:
        sys.exit(f"{tool} could not read {', '.join(failed)}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["write", compress, folder]: write(os.path.abspath(compress), os.path.abspath(folder))
        case ["llmcompressor", folder]: llmcompressor(folder)
        case ["read", tool, folder, out, *names]: read(tool, folder, out, names)
        case _: sys.exit(__doc__)
