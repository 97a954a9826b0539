#!/usr/bin/env bash
# bitsandbytes 0.50.2, weights of 4 bits on a CPU. Beside every weight a checkpoint stores `quant_map`, the number behind each of the 16 codes, and
# loading puts it into the weight's QuantState as `code`.
#
# Expected: codes are looked up in that map, so that weights quantized with another one (levels fitted to the weights) mean what they meant.
# Seen: the map is loaded and not read. `quant_type` alone decides: a map of twice the numbers gives the same weights, without a word.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install --no-deps torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu
"$place/venv/bin/pip" -q install numpy packaging filelock typing-extensions sympy networkx jinja2 fsspec
"$place/venv/bin/pip" -q install --no-deps bitsandbytes==0.50.2
"$place/venv/bin/python" - <<'PYTHON'
import bitsandbytes
import torch


def numbers(state):
    """What is multiplied by, of a weight whose map is this."""
    prefix = "weight."
    parts = {name[len(prefix):]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    weight = bitsandbytes.nn.Params4bit.from_prequantized(state["weight"], parts, requires_grad=False, device="cpu")
    assert torch.equal(weight.quant_state.code, state["weight.quant_map"])
    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)


print("bitsandbytes", bitsandbytes.__version__)
for kind in ("nf4", "fp4"):
    layer = bitsandbytes.nn.Linear4bit(64, 4, bias=False, quant_type=kind, compress_statistics=False)
    layer.weight = bitsandbytes.nn.Params4bit(torch.randn(4, 64), requires_grad=False, quant_type=kind, compress_statistics=False)
    state = layer.to("cpu").state_dict()
    before = numbers(dict(state))
    after = numbers(dict(state) | {"weight.quant_map": state["weight.quant_map"] * 2})
    print(kind, "largest weight", before.abs().max().item(), "with a map of twice the numbers", after.abs().max().item())
    assert torch.equal(before, after)
PYTHON
