#!/usr/bin/env bash
# transformers 5.24.0, a checkpoint whose quantization_config names a method that it does not know.
#
# Expected: loading is refused, as it is where a known method's package is missing: tensors in a form that nobody can read cannot be computed with.
# Seen: the quantization is "skipped" with a warning; weights that the method stores under other names count as missing and are filled with fresh
# random numbers, so that two loads of one file give two models, and from_pretrained returns as if all were well.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install --no-deps torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu
"$place/venv/bin/pip" -q install transformers==5.24.0 filelock typing-extensions sympy networkx jinja2 fsspec
"$place/venv/bin/python" - <<'PYTHON'
import json
import os
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

transformers.logging.set_verbosity_error()
module = "model.layers.0.mlp.down_proj"
with tempfile.TemporaryDirectory() as folder:
    LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2)).save_pretrained(folder)
    weights = os.path.join(folder, "model.safetensors")
    tensors = load_file(weights)
    del tensors[module + ".weight"]
    tensors |= {module + ".A.weight": torch.randn(4, 48), module + ".B.weight": torch.randn(32, 4)}
    save_file(tensors, weights, metadata={"format": "pt"})
    with open(os.path.join(folder, "config.json")) as file:
        config = json.load(file)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(dict(config, quantization_config=dict(quant_method="two_factors")), file)
    loads = [AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True) for _ in range(2)]
    first, second = (model.model.layers[0].mlp.down_proj.weight for model, _ in loads)
    print("missing:", loads[0][1]["missing_keys"])
    print("largest difference between two loads of one file:", (first - second).abs().max().item())
    assert loads[0][1]["missing_keys"] == {module + ".weight"} and not torch.equal(first, second)
PYTHON
