"""Write logits of tiny models with generated weights, computed by transformers, as JSON fixtures.

  logits.py OUT_DIR [CASE...]

Needs torch and transformers. Models run in float32, eager attention, no cache, on one thread of the CPU. Weights come from the tensor's
name and the element's index alone (see `weight`), so a test builds the same model without any weight file. Before anything is
written, the script reproduces logits recorded earlier for four model types and the first values of three tensors.
"""
import argparse
import json
import os
import tempfile

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

TOLERANCE = 2e-5


def weight(name, shape):
    """Values of the tensor called `name` on disk: an FNV-1a hash of the name and the row-major index, mixed, as u in [-0.5, 0.5).

    Norm weights are 1 + u/2, everything else (biases too) is u/2; computed in float64 and rounded once to float32.
    """
    h = 2166136261
    for byte in name.encode():
        h = (h ^ byte) * 16777619 % 2**32
    count = int(np.prod(shape))
    x = (np.uint64(h) + np.uint64(2654435761) * np.arange(count, dtype=np.uint64)).astype(np.uint32)
    x ^= x >> np.uint32(15)
    x *= np.uint32(2246822519)
    x ^= x >> np.uint32(13)
    u = x.astype(np.float64) / 2**32 - 0.5
    is_norm = name.endswith(".weight") and ("norm" in name.lower() or ".ln_" in name)
    return torch.from_numpy((0.5 * u + is_norm).astype(np.float32).reshape(shape))


def run(config, ids):
    """Logits [position, vocabulary] in float32, and their largest distance to the same model with float64 matrices."""
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config, file)
        loaded = AutoConfig.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(loaded, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # a tied output matrix appears once, as the embedding
            parameter.copy_(weight(name, parameter.shape))
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
        exact = model.double()(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    return logits.numpy(), (exact - logits).abs().max().item()


BASE = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
LLAMA = dict(
    architectures=["LlamaForCausalLM"], model_type="llama", **BASE, hidden_act="silu", max_position_embeddings=64, bos_token_id=1,
    eos_token_id=2)
MISTRAL = dict(
    architectures=["MistralForCausalLM"], model_type="mistral", **BASE, num_key_value_heads=2, hidden_act="silu",
    max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2)
QWEN2 = dict(
    architectures=["Qwen2ForCausalLM"], model_type="qwen2", **BASE, num_key_value_heads=2, hidden_act="silu",
    max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=1000000.0, bos_token_id=1, eos_token_id=2)
QWEN3 = dict(
    architectures=["Qwen3ForCausalLM"], model_type="qwen3", **BASE, num_key_value_heads=2, head_dim=16, hidden_act="silu",
    attention_bias=False, max_position_embeddings=64, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2)

CASES = {
    "llama-plain": dict(LLAMA, num_key_value_heads=4, rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False),
    # rope in the spelling of transformers 5
    "llama-gqa-llama3-rope": dict(
        LLAMA, num_key_value_heads=2, rms_norm_eps=1e-5, attention_bias=False, mlp_bias=False, tie_word_embeddings=False,
        dtype="float32", rope_parameters=dict(
            rope_type="llama3", rope_theta=10000.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=16)),
    # rope in the older spelling of transformers 4
    "llama-linear-rope-biases": dict(
        LLAMA, num_key_value_heads=2, rms_norm_eps=1e-6, attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
        torch_dtype="float32", rope_theta=10000.0, rope_scaling=dict(type="linear", factor=2.0)),
    "llama-tied-head-dim": dict(
        LLAMA, num_key_value_heads=1, head_dim=12, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True),
    "mistral-window": dict(MISTRAL, sliding_window=3),
    "mistral-no-window": dict(MISTRAL, sliding_window=None),
    "qwen2-tied": dict(QWEN2, use_sliding_window=False, sliding_window=3, max_window_layers=1, tie_word_embeddings=True),
    "qwen2-window": dict(QWEN2, use_sliding_window=True, sliding_window=3, max_window_layers=1, tie_word_embeddings=False),
    "qwen3": dict(QWEN3, rope_theta=1000000.0, use_sliding_window=False, sliding_window=None, tie_word_embeddings=False),
    # explicit layer types win over max_window_layers, which alone would give no window at all
    "qwen3-tied-window": dict(
        QWEN3, rope_parameters=dict(rope_type="default", rope_theta=1000000.0), use_sliding_window=True, sliding_window=4,
        max_window_layers=28, layer_types=["sliding_attention", "full_attention"], tie_word_embeddings=True),
}
IDS = [3, 5, 9, 2, 7, 31, 11, 4, 63, 0, 17, 42, 5, 9, 58, 23, 36, 1, 29, 50]

# Recorded with transformers 5.17.0 and torch 2.13.0: config keys, logits of the last position (entries 0 to 3), their argmax.
RECORDED_IDS = [3, 5, 9, 2, 7, 31, 11, 4]
RECORDED = [
    (dict(model_type="llama", num_key_value_heads=2, rms_norm_eps=1e-5, rope_theta=10000.0, max_position_embeddings=64,
          tie_word_embeddings=False, rope_scaling=dict(
              rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)),
     [-0.6523254, -0.7765908, 0.5164347, 0.4596963], 17),
    (dict(model_type="mistral", num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-5, rope_theta=10000.0, sliding_window=3,
          tie_word_embeddings=False),
     [-0.4835677, 0.0738189, 1.0704874, -0.0516963], 59),
    (dict(model_type="qwen2", num_key_value_heads=2, rms_norm_eps=1e-6, rope_theta=1000000.0, max_position_embeddings=64,
          tie_word_embeddings=True, rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=16)),
     [0.5517636, -0.0077797, 0.6541757, 1.5567408], 3),
    (dict(model_type="qwen3", num_key_value_heads=2, head_dim=16, rms_norm_eps=1e-6, rope_theta=1000000.0,
          use_sliding_window=True, sliding_window=3, max_window_layers=1, tie_word_embeddings=False),
     [-0.1209184, 0.0444033, -0.2951120, -1.5398746], 54),
]
RECORDED_WEIGHTS = {
    "model.norm.weight": [0.771886766, 1.1283983, 0.944177091],
    "lm_head.weight": [-0.0421748832, 0.128552675, -0.244055778],
    "model.embed_tokens.weight": [0.13494283, -0.171116129, 0.178210244],
}


def check():
    for name, expected in RECORDED_WEIGHTS.items():
        assert np.allclose(weight(name, [3]), expected, rtol=0, atol=1e-9 + 6e-8), name
    for config, expected, argmax in RECORDED:
        last = run(dict(BASE, **config), RECORDED_IDS)[0][-1]
        difference = np.abs(last[:4] - expected).max()
        assert difference <= TOLERANCE and last.argmax() == argmax, (config, last[:4])
        print(f"recorded {config['model_type']}: within {difference:.1e}, argmax {argmax}")


def rows(matrix):
    return "[\n    " + ",\n    ".join("[" + ", ".join(f"{value:.9g}" for value in row) + "]" for row in matrix) + "\n  ]"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all when none is named")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    check()
    os.makedirs(arguments.out, exist_ok=True)
    for name in arguments.cases or CASES:
        config = CASES[name]
        logits, rounding = run(config, IDS)
        assert rounding < TOLERANCE / 4, (name, rounding)
        head = {
            "tool": "transformers, float32, eager attention, CPU",
            "version": f"transformers {transformers.__version__}, torch {torch.__version__}",
            "command": f"tools/golden/logits.py Tests/ModelsTests/Fixtures {name}",
            "weights": "generated: see `weight` in tools/golden/logits.py",
            "tolerance": {
                "absolute": TOLERANCE,
                "reason": f"float32 sums in another order: matrices in float64 move transformers' own logits by {rounding:.1e}",
            },
            "config": config,
            "input_ids": IDS,
        }
        body = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
        path = os.path.join(arguments.out, name + ".json")
        with open(path, "w") as file:
            file.write("{\n" + body + ',\n  "logits": ' + rows(logits) + "\n}\n")
        print(f"{path}: {os.path.getsize(path)} bytes, {rounding:.1e} from float64 matrices, |logit| up to {np.abs(logits).max():.2f}")


if __name__ == "__main__":
    main()
