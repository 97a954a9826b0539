"""Let transformers load what the recipes of this repository make, and score it as `compress eval` does.

  recipe_reads.py COMPRESS MODEL [RECIPE...]

Every recipe (by default all but those that train) runs on MODEL, such as Checkpoints/pocket-llama, with little calibration; what it writes is scored on the same
windows by both, and compared with the original. A line says whether transformers loads it and how far the perplexities are apart; of MLX's files,
which it does not read, that it does not. Fails where one that loads is scored otherwise: by more than a thousandth where everything is computed in
single precision, by more than a fiftieth where inputs are quantized at run time, or where compressed-tensors computes in bfloat16 whatever is asked.
Factors of `low_rank` are expected not to be read. Caches are not looked at: `findings/compressed-tensors-kv-cache.sh` does. Needs torch, transformers, compressed-tensors, accelerate and gguf.
"""
import contextlib
import glob
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import tempfile

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
RECIPES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "Recipes")
WINDOW, WINDOWS = 64, 8


def perplexity(folder, windows, **options):
    model = AutoModelForCausalLM.from_pretrained(folder, **options).eval()
    with torch.no_grad():
        logits = model(windows).logits[:, :-1].float()
    return math.exp(torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()).item())


def main():
    compress, model, *names = sys.argv[1:]
    found = sorted(os.path.basename(path)[:-5] for path in glob.glob(os.path.join(RECIPES, "*.yaml")))
    names = names or [n for n in found if not any(word in n for word in ("tuned", "distill", "dwq", "qad"))]
    text = open(os.path.join(model, "evaluation.txt")).read()[:20_000]
    ids = PreTrainedTokenizerFast(tokenizer_file=os.path.join(model, "tokenizer.json"))(text)["input_ids"][:WINDOW * WINDOWS]
    windows = torch.tensor(ids).reshape(WINDOWS, WINDOW)
    print(*(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "compressed-tensors", "torch", "gguf")))
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        tokens = os.path.join(folder, "tokens.npy")
        np.save(tokens, np.array(ids, "<i4"))
        for name in names:
            out = os.path.join(folder, name)
            recipe = open(os.path.join(RECIPES, name + ".yaml")).read()
            short = ["--set", "evaluation.limit=200"]
            if "\ncalibration:" in recipe or recipe.startswith("calibration:"):
                short += ["--set", "calibration.sequences=4", "--set", "calibration.length=64"]
            subprocess.run([compress, "--recipe", os.path.join(RECIPES, name + ".yaml"), "--model", model, "--output", out, "--progress", "none",
                            *short], check=True, stdout=subprocess.DEVNULL)
            config = json.load(open(os.path.join(out, "config.json")))
            quantization = config.get("quantization_config", {})
            form = "gguf" if os.path.exists(os.path.join(out, "model.gguf")) else "mlx" if "quantization" in config else \
                quantization.get("quant_method", "dense")
            if form == "mlx":
                print(f"{name} ({form}): not read by transformers")
                continue
            evaluated = subprocess.run([compress, "eval", out, "--tokens", tokens, "--window", str(WINDOW), "--bos", "never", "--json", "--progress",
                                        "none"], check=True, capture_output=True, text=True)
            ours = json.loads(evaluated.stdout)["perplexity"]
            options = dict(gguf_file="model.gguf") if form == "gguf" else {}
            # What inputs become at run time turns on the last bit of what came before; so do BF16's.
            tolerance = 0.02 if "a8" in name or name.startswith(("fp8", "nvfp4", "mxfp4")) else 0.001
            halves = "nvfp4" in str(quantization) or "mxfp" in str(quantization)
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                try:
                    theirs = perplexity(out, windows, dtype=torch.bfloat16 if halves else torch.float32, **options)
                except Exception as error:
                    print(f"{name} ({form}): {type(error).__name__}: {str(error).splitlines()[0][:160]}")
                    continue
            difference = theirs / ours - 1
            print(f"{name} ({form}): {theirs:.6f} in transformers{' (bfloat16)' if halves else ''}, {ours:.6f} here, {difference:+.1e}")
            # A policy for the cache is obeyed here alone, and so are factors: transformers fills those linears with random numbers.
            if form == "low_rank":
                failed += [] if abs(difference) > 1 else [name]
            elif not name.startswith("kv-") and not abs(difference) < tolerance:
                failed.append(name)
    sys.exit(f"scored otherwise: {', '.join(failed)}" if failed else 0)


main()
