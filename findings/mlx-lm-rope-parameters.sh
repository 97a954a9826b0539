#!/usr/bin/env bash
# mlx-lm 0.32.2 computes another model of what transformers 5 saves, without a word.
#
# transformers 5 writes the rotation of a Llama, Mistral, Qwen2, OLMo 2, SmolLM3 or Gemma only as `rope_parameters` in config.json. mlx-lm's
# classes for these families read `rope_theta` and `rope_scaling` beside the other keys (only its Qwen3 has learned the new spelling), find
# neither, and take a base of their own and no scaling. A Llama 3 that was fine-tuned and saved loads, and its logits are wrong at every position
# but the first. Seen with transformers 5.17.0 and mlx 0.32.4 on a CPU: base 10000 instead of 500000, and logits of the tiny model below that
# differ by more than their size. Fails once mlx-lm reads the key.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" -q install "mlx[cpu]==0.32.4" mlx-lm==0.32.2 transformers==5.17.0
"$place/env/bin/python" - "$place" <<'PYTHON'
import json, pathlib, sys
import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import llama
from mlx_lm.utils import load_model
from transformers import LlamaConfig

mx.set_default_device(mx.cpu)
place = pathlib.Path(sys.argv[1]) / "model"
LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, tie_word_embeddings=False,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0}).save_pretrained(place)
config = json.loads((place / "config.json").read_text())
print("transformers writes", json.dumps(config["rope_parameters"]), "and rope_theta" if "rope_theta" in config else "and no rope_theta")
mx.random.seed(0)
weights = {n: mx.random.normal(w.shape) * 0.3 if w.ndim == 2 else mx.ones(w.shape)
           for n, w in tree_flatten(llama.Model(llama.ModelArgs.from_dict(config)).parameters())}
mx.save_safetensors(str(place / "model.safetensors"), weights, metadata={"format": "mlx"})
tokens = (mx.arange(100) * 7 % 128)[None]
as_saved = load_model(place)[0]
(place / "config.json").write_text(json.dumps({**config, "rope_theta": 500000.0}))
spelled_out = load_model(place)[0]
first, second = as_saved(tokens)[0], spelled_out(tokens)[0]
difference, size = mx.abs(first - second).max().item(), mx.abs(second).max().item()
print(f"mlx-lm takes base {as_saved.args.rope_theta}; with rope_theta written beside the other keys {spelled_out.args.rope_theta}")
print(f"their logits differ by up to {difference:.3f}, the largest being {size:.3f}")
assert "rope_theta" not in config and as_saved.args.rope_theta == 10000 and difference > 0.01 * size, "this has changed"
PYTHON
