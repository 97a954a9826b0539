"""Prefill speed of recurrent mixers: transformers and compress on the same weights, in turn, on the same processors.

  mixer_speed.py COMPRESS [OUT.json]

Models of four layers whose only mixers are the gated delta rule, or Mamba-2, with heads as large as the published models' and generated weights.
transformers reads windows of 4,096 tokens one after the other with all threads; `compress eval` reads two and then six windows, and the difference
of the two processes' times is that of four, so that starting and loading do not count. Each figure is the median of three rounds.
"""
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import numpy as np
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

WINDOW = 4096
BASE = dict(vocab_size=512, hidden_size=512, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=8, num_key_value_heads=2,
            max_position_embeddings=8192, tie_word_embeddings=False, bos_token_id=1, eos_token_id=2, pad_token_id=0)
CASES = {
    "gated delta rule": dict(
        BASE, model_type="qwen3_5_text", head_dim=64, linear_num_key_heads=4, linear_num_value_heads=8, linear_key_head_dim=128,
        linear_value_head_dim=128, layer_types=["linear_attention"] * 4),
    "Mamba-2": dict(
        BASE, model_type="granitemoehybrid", num_local_experts=0, num_experts_per_tok=0, shared_intermediate_size=1024, mamba_n_heads=16,
        mamba_d_head=64, mamba_d_state=128, mamba_n_groups=1, mamba_expand=2, layer_types=["linear_attention"] * 4),
}


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    program = os.path.abspath(sys.argv[1])
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    results = {"machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(),
               "versions": f"transformers {transformers.__version__}, torch {torch.__version__}"}
    for name, config in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(1)
            with open(os.path.join(folder, "config.json"), "w") as file:
                json.dump(config, file)
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32).eval()
            model.save_pretrained(folder)
            with open(os.path.join(folder, "config.json"), "w") as file:
                json.dump(config, file)
            ids = torch.randint(0, 512, (6, WINDOW), generator=torch.Generator().manual_seed(2))
            paths = []
            for count in (2, 6):
                paths.append(os.path.join(folder, f"{count}.npy"))
                np.save(paths[-1], ids[:count].flatten().numpy().astype(np.int32))

            def theirs():
                with torch.no_grad():
                    for row in ids[:4]:
                        model(input_ids=row[None], use_cache=False)

            def ours(path):
                subprocess.run([program, "eval", folder, "--tokens", path, "--window", str(WINDOW), "--json"], check=True, capture_output=True)

            rounds = []
            for _ in range(3):
                short, long = seconds(lambda: ours(paths[0])), seconds(lambda: ours(paths[1]))
                rounds.append((4 * WINDOW / (long - short), 4 * WINDOW / seconds(theirs)))
            own, other = (statistics.median(column) for column in zip(*rounds))
            results[name] = {"compress": own, "transformers": other, "ratio": own / other, "rounds": rounds}
            print(f"{name}: compress {own:.0f}, transformers {other:.0f} tokens/s, {own / other:.2f} x")
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
