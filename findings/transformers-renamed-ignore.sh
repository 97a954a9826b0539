#!/usr/bin/env bash
# transformers 5.24.0 with compressed-tensors 0.20.1, a family whose tensors have one name in files and another in memory.
#
# Expected: the modules that quantization_config.ignore names are those of the checkpoint that carries it, so that a Nemotron-H file, whose tensors
# are backbone.layers.…, ignores backbone.layers.0.mixer.out_proj by that name.
# Seen: tensors are renamed to model.layers.… while they are loaded, the list of ignored modules is not: it is compared with the names in memory,
# matches nothing, and the dense weights in the file are passed over in favour of packed ones that are missing (only a report of missing keys says
# so; the modules keep fresh random weights). Under model.layers.0.mixer.out_proj the same list is obeyed.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install --no-deps torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu
"$place/venv/bin/pip" -q install transformers==5.24.0 compressed-tensors==0.20.1 accelerate filelock typing-extensions sympy networkx jinja2 fsspec
"$place/venv/bin/python" - <<'PYTHON'
import json
import os
import tempfile

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM
from safetensors import safe_open

transformers.logging.set_verbosity_error()
config = dict(
    model_type="nemotron_h", vocab_size=64, hidden_size=32, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=8,
    mamba_num_heads=8, mamba_head_dim=8, n_groups=2, ssm_state_size=16, layers_block_type=["linear_attention", "mlp"])
with tempfile.TemporaryDirectory() as folder:
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(config, file)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).save_pretrained(folder)
    with safe_open(os.path.join(folder, "model.safetensors"), "pt") as file:
        linears = sorted(name[:-7] for name in file.keys() if name.endswith(("proj.weight", "lm_head.weight")))

    def missing(names):
        weights = dict(num_bits=4, type="int", symmetric=True, strategy="group", group_size=32)
        quantization = dict(
            quant_method="compressed-tensors", format="pack-quantized", quantization_status="compressed", ignore=names,
            config_groups={"group_0": dict(targets=["Linear"], weights=weights, format="pack-quantized")})
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(dict(config, quantization_config=quantization), file)
        _, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        return sorted(info["missing_keys"])

    ours = missing(linears)
    theirs = missing([name.replace("backbone.", "model.") for name in linears])
    print("linears in the file:", linears)
    print("ignored by the file's names, missing:", ours)
    print("ignored by the names in memory, missing:", theirs)
    assert "model.layers.0.mixer.out_proj.weight_packed" in ours and not theirs
PYTHON
