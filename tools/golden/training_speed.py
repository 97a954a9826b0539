"""Speed of training: forward, backward and AdamW of a Llama-like model of 160 million weights, PyTorch and compress on the same tokens, in turn.

  training_speed.py COMPRESS [OUT.json]

Steps of 8 x 512 tokens on the next token's cross-entropy, all weights of the blocks and their norms moving, in single precision. compress says
in its report how long its steps took; PyTorch, through transformers' model, is asked for the same number of steps in a process of its own, so
that the peak memory of both is that of whole processes. The share of the machine's product rate counts 6 operations a weight and token (2 on
the way there, 4 on the way back; the embedding's table is not multiplied with and the head's not moved), nothing for attention's products.
"""
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import numpy as np
import torch

BATCH, LENGTH, STEPS = 8, 512, 3
SHAPE = dict(model_type="llama", architectures=["LlamaForCausalLM"], vocab_size=32000, hidden_size=768, intermediate_size=2048,
             num_hidden_layers=12, num_attention_heads=12, num_key_value_heads=4, max_position_embeddings=2048, tie_word_embeddings=False,
             rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
BLOCK = 768 * (768 + 256 + 256 + 768) + 3 * 768 * 2048
RECIPE = """
calibration: {{ tokens: {tokens}, sequences: {sequences}, length: {length} }}
passes:
  - distill: {{ moves: [weights, norms], loss: cross_entropy, epochs: {steps}, batch: {batch}, rate: 0.0001, validate_every: 1000, kept_out: 0.125 }}
output: {{ format: safetensors }}
"""


def theirs(folder, tokens):
    """In a process of its own: seconds of the steps after the first, and peak memory."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "embed_tokens" not in name and "lm_head" not in name
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, betas=(0.9, 0.95), weight_decay=0)
    ids = torch.from_numpy(np.load(tokens).astype(np.int64))[:BATCH * LENGTH].reshape(BATCH, LENGTH)
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"tokens_per_second": BATCH * LENGTH * STEPS / sum(times), "peak": peak}))


def ours(program, folder, tokens, out):
    recipe = os.path.join(folder, "recipe.yaml")
    with open(recipe, "w") as file:
        # One sequence in eight is kept out, so that nine make one batch of eight.
        file.write(RECIPE.format(tokens=tokens, sequences=BATCH + 1, length=LENGTH, steps=STEPS, batch=BATCH))
    subprocess.run([program, "--recipe", recipe, "--model", folder, "--output", out, "--overwrite", "--progress", "none"], check=True,
                   capture_output=True)
    with open(os.path.join(out, "report.json")) as file:
        report = json.load(file)
    training = report["training"][0]
    return {"tokens_per_second": training["curve"][-1]["tokens"] / training["seconds"], "peak": report["peak_memory_bytes"]}


def product_rate():
    """Operations a second of large products in single precision, with all threads: the best of five."""
    a, b = torch.rand(2048, 2048), torch.rand(2048, 2048)
    best = min(timed(lambda: a @ b) for _ in range(5))
    return 2 * 2048 ** 3 / best


def timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main():
    if sys.argv[1] == "--theirs":
        return theirs(sys.argv[2], sys.argv[3])
    program = os.path.abspath(sys.argv[1])
    from transformers import AutoConfig, AutoModelForCausalLM

    rounds = []
    with tempfile.TemporaryDirectory() as place:
        folder = os.path.join(place, "model")
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(**SHAPE), dtype=torch.bfloat16).save_pretrained(folder)
        tokens = os.path.join(place, "tokens.npy")
        np.save(tokens, np.random.default_rng(2).integers(3, 32000, (BATCH + 1) * LENGTH).astype(np.int32))
        for _ in range(3):
            rate = product_rate()
            own = ours(program, folder, tokens, os.path.join(place, "out"))
            other = subprocess.run([sys.executable, os.path.abspath(__file__), "--theirs", folder, tokens], check=True, capture_output=True,
                                   text=True).stdout
            rounds.append((rate, own, json.loads(re.search(r"\{.*\}", other).group())))
    operations = 6 * (12 * BLOCK) + 4 * 768 * 32000
    median = statistics.median
    result = {
        "machine": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "product_rate_gflops": median(r / 1e9 for r, _, _ in rounds),
        "compress_tokens_per_second": median(o["tokens_per_second"] for _, o, _ in rounds),
        "torch_tokens_per_second": median(t["tokens_per_second"] for _, _, t in rounds),
        "ratio": median(o["tokens_per_second"] / t["tokens_per_second"] for _, o, t in rounds),
        "memory_ratio": median(o["peak"] / t["peak"] for _, o, t in rounds),
        "share_of_products": median(o["tokens_per_second"] * operations / r for r, o, _ in rounds),
        "rounds": rounds,
    }
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
