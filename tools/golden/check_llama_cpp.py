"""Let llama.cpp run what `compress convert --to gguf` makes of tiny models of many families.

  check_llama_cpp.py COMPRESS MODELS

MODELS holds a directory for each model, as `family_models.py` writes them, and `evaluation.npy`. Every model that a GGUF file can hold is converted
in F32 and read again by `compress eval`, which must give the perplexity of the original, and by llama.cpp, whose GELU comes from a table of halves.
Prints a line for each model, with the reason where it is refused, and fails where a perplexity is another one. Needs
`pip install llama-cpp-python==0.3.36`, which builds llama.cpp.
"""
import ctypes
import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import llama_cpp
import numpy as np

WINDOW = 32
# Models of which llama.cpp knows no such thing as their fixtures have, without it.
CHANGES = {
    "gemma2": {"query_pre_attn_scalar": 16}, "phi3": {"sliding_window": None}, "starcoder2": {"sliding_window": None},
    "exaone4": {"sliding_window": None, "layer_types": ["full_attention"] * 4}, "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
}
OURS, THEIRS = 1e-6, 2e-3


def compress(*arguments):
    return subprocess.run([sys.argv[1], *map(str, arguments)], capture_output=True, text=True)


def perplexity(model, tokens):
    done = compress("eval", model, "--tokens", tokens, "--window", WINDOW, "--bos", "never", "--json")
    if done.returncode != 0:
        sys.exit(f"{model}: {done.stderr}")
    found = json.loads(done.stdout)
    return found["perplexity"] if "perplexity" in found else found["evaluation"]["perplexity"]


def score(logits, tokens):
    """The sum of what each token but the first costs."""
    logits = np.asarray(logits, dtype=np.float64)
    costs = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    return sum(costs[i] - logits[i, tokens[i + 1]] for i in range(len(tokens) - 1))


def by_llama_cpp(path, windows):
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), llama_cpp.llama_model_default_params())
    if not model:
        return None
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx, parameters.n_batch, parameters.n_ubatch, parameters.n_threads = 256, 256, 256, 1
    parameters.type_k = parameters.type_v = 0  # F32
    parameters.flash_attn_type = 0
    total = 0
    count = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    for window in windows:
        context = llama_cpp.llama_init_from_model(model, parameters)
        batch = llama_cpp.llama_batch_init(len(window), 0, 1)
        batch.n_tokens = len(window)
        for index, token in enumerate(window):
            batch.token[index], batch.pos[index], batch.n_seq_id[index] = int(token), index, 1
            batch.seq_id[index][0], batch.logits[index] = 0, True
        if llama_cpp.llama_decode(context, batch) != 0:
            return None
        logits = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (count,)).copy() for i in range(len(window))]
        total += score(logits, window)
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return math.exp(total / sum(len(window) - 1 for window in windows))


def changed(folder, place):
    """A copy of a model whose configuration says something else of the same tensors."""
    copy = place / folder.name
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    for key, value in CHANGES[folder.name].items():
        config[key] = value[:config["num_hidden_layers"]] if isinstance(value, list) else value
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def main():
    models = pathlib.Path(sys.argv[2])
    tokens = models / "evaluation.npy"
    ids = np.load(tokens)
    windows = [ids[i:i + WINDOW] for i in range(0, len(ids), WINDOW)]
    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    wrong = 0
    for folder in sorted(p for p in models.iterdir() if (p / "config.json").exists()):
        with tempfile.TemporaryDirectory() as place:
            output = pathlib.Path(place) / "out"
            if folder.name in CHANGES:
                folder = changed(folder, pathlib.Path(place))
            done = compress("convert", folder, "--to", "gguf", "--output", output)
            if done.returncode != 0:
                print(f"{folder.name:24} refused: {done.stderr.strip().splitlines()[-1]}", flush=True)
                continue
            original, read = perplexity(folder, tokens), perplexity(output, tokens)
            line, bad = f"{folder.name:24} {original:.6f} read {read:.6f}", abs(read / original - 1) > OURS
            found = by_llama_cpp(output / "model.gguf", windows)
            line += f" llama.cpp {found:.6f}" if found else " llama.cpp refuses"
            bad |= found is None or abs(found / original - 1) > THEIRS
            print(line + (" WRONG" if bad else ""), flush=True)
            wrong += bad
    sys.exit(1 if wrong else 0)


main()
