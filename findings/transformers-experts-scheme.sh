#!/usr/bin/env bash
# transformers 5.24.0 with compressed-tensors 0.20.1, a mixture of experts in a checkpoint of two config groups.
#
# Expected: an expert's weights are read by the config group that matches them, as compressed-tensors matches every other module: exact names
# before the class "Linear".
# Seen: experts are fused into one parameter while they are loaded, and all experts of all layers are read by one group, chosen by the look of
# its targets: the first with a target that begins with "re:" and contains "experts", else the first with any target that does not begin with
# "re:". With the attention's projections listed by name at 8 bits and the class "Linear" at 4 bits, experts packed at 4 bits are read as 8.
# A target "re:.*\.experts\..*" in the experts' own group makes it the chosen one.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install --no-deps torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu
"$place/venv/bin/pip" -q install transformers==5.24.0 compressed-tensors==0.20.1 accelerate filelock typing-extensions sympy networkx jinja2 fsspec
"$place/venv/bin/python" - <<'PYTHON'
from compressed_tensors.quantization import QuantizationConfig
from transformers.integrations.compressed_tensors import get_experts_scheme


def group(bits, *targets):
    weights = dict(num_bits=bits, type="int", symmetric=True, strategy="group", group_size=32)
    return dict(targets=list(targets), weights=weights, format="pack-quantized")


def chosen(*experts):
    config = QuantizationConfig(
        config_groups={"group_0": group(8, "model.layers.0.self_attn.q_proj"), "group_1": group(4, "Linear", *experts)},
        format="pack-quantized", quantization_status="compressed", ignore=["lm_head"])
    return get_experts_scheme(config).weights.num_bits


print("experts at 4 bits by the class:", chosen(), "bits; with a pattern:", chosen(r"re:.*\.experts\..*"), "bits")
assert chosen() == 8
assert chosen(r"re:.*\.experts\..*") == 4
PYTHON
