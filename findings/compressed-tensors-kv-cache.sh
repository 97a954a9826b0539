#!/usr/bin/env bash
# compressed-tensors 0.20.1 under transformers 5.24.0 leaves the key-value cache as it is, although the checkpoint has scales for it.
#
# `kv_cache_scheme` in quantization_config asks for keys and values of 8 bits, and k_scale and v_scale are stored for every attention module.
# compressed-tensors looks for attention modules by a parameter `past_key_values` of their forward function; transformers 5.24 calls it `cache`.
# No module is found, nothing is said of it, the scales are listed among unexpected tensors, and what is measured is the model without a
# quantized cache: logits equal to the last bit. Seen on a CPU with a scale so large that everything should become zero. Fails once the scheme
# is applied (then the logits differ).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" -q install --no-deps torch==2.13.0+cpu --extra-index-url https://download.pytorch.org/whl/cpu
"$place/env/bin/pip" -q install transformers==5.24.0 compressed-tensors==0.20.1 accelerate filelock typing-extensions sympy networkx jinja2 fsspec
"$place/env/bin/python" - "$place" 2> "$place/errors" <<'PYTHON' || { cat "$place/errors"; exit 1; }
import json, pathlib, sys
import torch, transformers
from safetensors.torch import load_file, save_file

place = pathlib.Path(sys.argv[1]) / "model"
torch.manual_seed(0)
config = transformers.LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
plain = transformers.LlamaForCausalLM(config).float()
plain.save_pretrained(place)
tokens = torch.arange(50)[None]
with torch.no_grad(): expected = plain(tokens).logits
weights = load_file(place / "model.safetensors")
weights |= {f"model.layers.{i}.self_attn.{n}_scale": torch.tensor([1e6]) for i in range(2) for n in "kv"}
save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
saved = json.loads((place / "config.json").read_text())
saved["quantization_config"] = {
    "quant_method": "compressed-tensors", "format": "dense", "quantization_status": "compressed", "config_groups": {}, "ignore": [],
    "kv_cache_scheme": {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "tensor", "dynamic": False}}
(place / "config.json").write_text(json.dumps(saved))
model = transformers.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
with torch.no_grad(): found = model(tokens).logits
scales = [name for name, _ in model.named_parameters() if name.endswith("k_scale")]
print(f"modules with a scale for keys: {len(scales)} of 2; largest difference to the model without kv_cache_scheme: {(found - expected).abs().max():.3g}")
assert not scales and torch.equal(found, expected), "this has changed"
PYTHON
