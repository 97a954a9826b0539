#!/usr/bin/env bash
# transformers 5.24.0, a checkpoint of quant_method "fp8" with weight_block_size [128, 128], loaded where there is no GPU, so that its weights are
# turned into numbers while they are loaded.
#
# Expected: a weight of 192 rows has two rows of tiles, the first of 128 rows and the second of the 64 that are left, as in DeepSeek's own kernels.
# Seen: the height of a tile is taken to be the weight's rows over the scales' rows, 96 here, so rows 96 to 127 are multiplied by the scale of the
# second tile, without a word. Where the division leaves a rest (576 rows and five scales, DeepSeek's kv_a_proj_with_mqa), loading raises an error.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install --no-deps torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu
"$place/venv/bin/pip" -q install transformers==5.24.0 accelerate safetensors filelock typing-extensions sympy networkx jinja2 fsspec
"$place/venv/bin/python" - "$place" <<'PYTHON'
import json
import os
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM


def model(folder, rows):
    """A Llama of one layer whose gate_proj has so many rows of ones, and a scale of its own for every tile."""
    os.makedirs(folder)
    config = dict(model_type="llama", vocab_size=64, hidden_size=128, intermediate_size=rows, num_hidden_layers=1, num_attention_heads=2,
                  quantization_config=dict(quant_method="fp8", fmt="e4m3", activation_scheme="dynamic", weight_block_size=[128, 128],
                                           modules_to_not_convert=["lm_head"]))
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    tensors = {}
    for name, tensor in AutoModelForCausalLM.from_config(AutoConfig.for_model(**plain)).state_dict().items():
        tensors[name] = tensor.to(torch.bfloat16)
        if name.endswith("_proj.weight"):
            tensors[name] = torch.ones_like(tensor).to(torch.float8_e4m3fn)
            tiles = [-(-side // 128) for side in tensor.shape]
            scales = torch.arange(1, tiles[0] + 1, dtype=torch.float32)[:, None].expand(*tiles)
            tensors[name + "_scale_inv"] = scales.contiguous()
    save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    json.dump(config, open(os.path.join(folder, "config.json"), "w"))
    return folder


found = AutoModelForCausalLM.from_pretrained(model(sys.argv[1] + "/even", 192))
column = found.model.layers[0].mlp.gate_proj.weight[:, 0].float()
print("192 rows of ones, scales 1 and 2: row 95 is", column[95].item(), "row 96", column[96].item(), "row 127", column[127].item(),
      "row 128", column[128].item())
assert column[95] == 1 and column[96] == 2 and column[127] == 2 and column[128] == 2
try:
    AutoModelForCausalLM.from_pretrained(model(sys.argv[1] + "/odd", 576))
    raise SystemExit("576 rows were loaded")
except (ValueError, RuntimeError) as error:
    print("576 rows:", str(error).splitlines()[-1][:160])
PYTHON
