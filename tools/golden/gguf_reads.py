"""Let gguf, llama.cpp's own reader in Python, and transformers read GGUF files that compress wrote.

  gguf_reads.py COMPRESS MODEL

MODEL is a Llama in safetensors whose rows hold whole blocks of 256, such as Checkpoints/pocket-llama. It is written as GGUF dense and in several of
ggml's types. gguf must find every tensor under llama.cpp's name and make the numbers of it that `compress convert --to safetensors` makes of the
same file, to the last bit; transformers must score each file as it scores those numbers. Fails where either does not. Needs gguf, safetensors, torch and
transformers.
"""
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
TYPES = ("q8_0", "q4_0", "q5_1", "q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "iq4_nl", "iq4_xs")


def run(*arguments, recipe=None):
    subprocess.run([*arguments, "--progress", "none"], input=recipe, text=True, check=True, stdout=subprocess.DEVNULL)


def rotated(rows, heads):
    """Rows of queries or keys as safetensors has them: llama.cpp puts the two halves of a head beside each other, pair by pair."""
    return rows.reshape(heads, rows.shape[0] // heads // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def numbers(path, config):
    """Every tensor of a file by the name that safetensors has for it."""
    reader = gguf.GGUFReader(path)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    stored = {tensor.name: tensor for tensor in reader.tensors}
    result = {}
    for block in range(config["num_hidden_layers"]):
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
                     "mlp.down_proj", "input_layernorm", "post_attention_layernorm"):
            name = f"model.layers.{block}.{part}"
            tensor = stored.pop(names.get_name(name) + ".weight")
            rows = gguf.dequantize(tensor.data, tensor.tensor_type)
            result[name + ".weight"] = rotated(rows, heads[part[-6:]]) if part[-6:] in heads else rows
    for name in ("model.embed_tokens", "model.norm", "lm_head"):
        tensor = stored.pop(names.get_name(name) + ".weight", None)
        if tensor is not None:
            result[name + ".weight"] = gguf.dequantize(tensor.data, tensor.tensor_type)
    if stored.keys() - {"rope_freqs.weight"}:
        sys.exit(f"{path}: nobody knows {sorted(stored)}")
    return result


def logits(folder, tokens, **options):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    with torch.no_grad():
        return model(tokens).logits


def main():
    compress, source = sys.argv[1:]
    config = json.load(open(os.path.join(source, "config.json")))
    tokens = torch.tensor([[1 + (37 * i) % (config["vocab_size"] - 1) for i in range(64)]])
    print(f"gguf {importlib.metadata.version('gguf')}, transformers {transformers.__version__}")
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("dense", *TYPES):
            packed, plain = os.path.join(folder, kind), os.path.join(folder, kind + "-plain")
            if kind == "dense":
                run(compress, "convert", source, "--to", "gguf", "--output", packed)
            else:
                recipe = f"passes: [ {{ ggml: {{ type: {kind} }} }} ]\noutput: {{ format: gguf }}\n"
                run(compress, "--recipe", "-", "--model", source, "--output", packed, recipe=recipe)
            run(compress, "convert", packed, "--to", "safetensors", "--output", plain)
            ours = {name: tensor.float().numpy() for name, tensor in load_file(os.path.join(plain, "model.safetensors")).items()}
            theirs = numbers(os.path.join(packed, "model.gguf"), config)
            same = [name for name in ours if name in theirs and np.array_equal(ours[name], theirs[name].reshape(ours[name].shape))]
            difference = (logits(packed, tokens, gguf_file="model.gguf") - logits(plain, tokens)).abs().max().item()
            print(f"{kind}: {len(same)} of {len(ours)} tensors the same in gguf, logits in transformers within {difference:.1e}")
            failed |= len(same) != len(ours) or not difference < 1e-4
    sys.exit(failed)


main()
