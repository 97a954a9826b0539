"""Models whose config.json leaves out what it may are converted by `compress convert --to mlx`, loaded by mlx-lm, and scored by both.

    python -P tools/golden/mlx_reads.py COMPRESS

Needs mlx and mlx-lm (they run on an ordinary CPU). Prints perplexities over a few hundred random tokens, in single precision, and fails where
one is not the other.
"""
import json, math, pathlib, subprocess, sys, tempfile
import mlx.core as mx, mlx.nn as nn, numpy as np
from mlx_lm.utils import load_model

mx.set_default_device(mx.cpu)
compress = sys.argv[1]
sizes = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}
llama3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
cases = {
    "llama, untied, nothing said": {"model_type": "llama", **sizes},
    "llama, tied": {"model_type": "llama", **sizes, "tie_word_embeddings": True},
    "llama, tied is said beside another head": {"model_type": "llama", **sizes, "tie_word_embeddings": True, "_head": True},
    "llama, rope_parameters alone": {"model_type": "llama", **sizes, "num_key_value_heads": 2, "max_position_embeddings": 64,
                                     "rope_parameters": {**llama3, "original_max_position_embeddings": 16}},
    "llama, original positions elsewhere": {"model_type": "llama", **sizes, "max_position_embeddings": 64, "rope_parameters": llama3},
    "llama, linear": {"model_type": "llama", **sizes, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 2000.0}},
    "mistral, no window": {"model_type": "mistral", **sizes, "num_key_value_heads": 2, "sliding_window": None},
    "qwen2, no rope_theta": {"model_type": "qwen2", **sizes, "num_key_value_heads": 2},
    "qwen3": {"model_type": "qwen3", **sizes, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 3000.0}},
    "gemma": {"model_type": "gemma", **sizes, "num_key_value_heads": 2, "head_dim": 16},
    "gemma2": {"model_type": "gemma2", **sizes, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 512},
    "gemma3, layer_types": {"model_type": "gemma3_text", **sizes, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 8,
                            "layer_types": ["sliding_attention", "full_attention"] * 2,
                            "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
                                                "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}}},
    "phi3": {"model_type": "phi3", **sizes, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}},
    "olmo2": {"model_type": "olmo2", **sizes, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    "granite": {"model_type": "granite", **sizes},
    "smollm3": {"model_type": "smollm3", **sizes, "num_key_value_heads": 2},
}


def shapes(config):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kind = config["model_type"]
    default = 128 if kind == "qwen3" else 256 if kind.startswith("gemma") else hidden // heads
    size, pairs, wide = config.get("head_dim", default), config.get("num_key_value_heads", heads), config["intermediate_size"]
    yield "model.embed_tokens", (config["vocab_size"], hidden)
    yield "model.norm", (hidden,)
    is_tied = config.get("tie_word_embeddings", kind.startswith("gemma") or kind == "smollm3")
    if not is_tied or config.get("_head"):
        yield "lm_head", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        if kind == "phi3":
            yield p + "self_attn.qkv_proj", ((heads + 2 * pairs) * size, hidden)
            yield p + "mlp.gate_up_proj", (2 * wide, hidden)
        else:
            for name, count in [("q", heads), ("k", pairs), ("v", pairs)]:
                yield p + f"self_attn.{name}_proj", (count * size, hidden)
                if kind == "qwen2":
                    yield p + f"self_attn.{name}_proj.bias", (count * size,)
            yield p + "mlp.gate_proj", (wide, hidden)
            yield p + "mlp.up_proj", (wide, hidden)
        yield p + "self_attn.o_proj", (hidden, heads * size)
        yield p + "mlp.down_proj", (hidden, wide)
        norms = ["post_attention_layernorm"]
        norms += ["post_feedforward_layernorm"] if kind == "olmo2" else ["input_layernorm"]
        if kind in ("gemma2", "gemma3_text"):
            norms += ["pre_feedforward_layernorm", "post_feedforward_layernorm"]
        for name in norms:
            yield p + name, (hidden,)
        if kind in ("qwen3", "gemma3_text", "olmo2"):
            whole = kind == "olmo2"
            yield p + "self_attn.q_norm", (heads * size if whole else size,)
            yield p + "self_attn.k_norm", (pairs * size if whole else size,)


failed = False
tokens = np.random.default_rng(1).integers(0, 128, 256).astype(np.int32)
for name, config in cases.items():
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        (place / "model").mkdir()
        key, weights = mx.random.key(0), {}
        for tensor, shape in shapes(config):
            key, own = mx.random.split(key)
            is_norm = "norm" in tensor
            value = mx.random.normal(shape, key=own) * (0.1 if is_norm else 2 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.5)
            if is_norm and not config["model_type"].startswith("gemma"):
                value = value + 1
            weights[tensor if tensor.endswith(".bias") else tensor + ".weight"] = value
        mx.save_safetensors(str(place / "model/model.safetensors"), weights, metadata={"format": "pt"})
        (place / "model/config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "_head"}))
        np.save(place / "tokens.npy", tokens)
        subprocess.run([compress, "convert", str(place / "model"), "--to", "mlx", "--output", str(place / "mlx"), "--progress", "none"],
                       check=True, stdout=subprocess.DEVNULL)
        scored = subprocess.run([compress, "eval", str(place / "model"), "--tokens", str(place / "tokens.npy"), "--window", "256", "--bos",
                                 "never", "--json", "--progress", "none"], check=True, capture_output=True, text=True)
        ours = json.loads(scored.stdout)["perplexity"]
        try:
            model = load_model(place / "mlx")[0]
            logits = model(mx.array(tokens[None])).astype(mx.float32)[0, :-1]
            theirs = math.exp(nn.losses.cross_entropy(logits, mx.array(tokens[1:])).mean().item())
        except Exception as error:
            theirs, failed = float("nan"), True
            print(f"  {type(error).__name__}: {error}")
        agrees = abs(theirs / ours - 1) < 2e-4
        failed = failed or not agrees
        print(f"{'' if agrees else 'NOT '}equal  ours {ours:.4f}  mlx-lm {theirs:.4f}  {name}", flush=True)
sys.exit(failed)
