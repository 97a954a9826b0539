"""Compress tiny models of every family and let transformers read the results.

  check_families.py COMPRESS OUT.json [CASE...]

For every case of families.py: the model is saved in float32, text is sampled from it, `compress eval` and transformers score half of it, and
RTN and GPTQ make four-bit checkpoints of it that transformers loads and scores. Encoders, which predict nothing, read random tokens, and the
cosines of their hidden states to the original's take the place of perplexity. Writes one JSON object a case and prints a table.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import numpy as np
import torch
import transformers
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText

from families import CASES, NESTED, build, is_encoder

LENGTH = 32
# transformers has no packed kind of these families' own linear modules: GPT-2's Conv1D keeps random weights, FalconLinear has none. What is
# rounded to four bits is stored dense for them.
DENSE = ("gpt2", "falcon")
# Of these it reads experts in stacks only, so what is packed is attention; everything rounded is stored dense in a run of its own.
STACKED = ("gpt-oss", "granite-moe", "granite-moe-shared", "granite-hybrid-moe", "qwen3-vl-moe", "mistral4", "gemma4-moe")
RECIPE = """calibration: {{ tokens: {folder}/calibration.npy, sequences: 48, length: 32 }}
passes:
  - {method}: {{ bits: 4, group_size: 32{more} }}
evaluation: {{ tokens: {folder}/evaluation.npy, window: 32 }}
output: {{ format: {format} }}
"""


def sample(model, vocabulary, count, seed):
    """Sequences drawn from the model itself, so that its perplexity means something."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (count, 1), generator=generator)
    with torch.no_grad():
        for _ in range(LENGTH - 1):
            logits = model(input_ids=ids, use_cache=False).logits[:, -1]
            ids = torch.cat([ids, torch.multinomial(logits.softmax(-1), 1, generator=generator)], 1)
    return ids


def perplexity(model, ids):
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits.double()
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).exp().item()


def hidden(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).last_hidden_state.double()


def cosines(states, reference):
    """Of every sequence: the cosine of its mean hidden state, and the mean of its tokens' cosines."""
    compare = torch.nn.functional.cosine_similarity
    return compare(states.mean(1), reference.mean(1), dim=-1), compare(states, reference, dim=-1).mean(1)


def compress(*arguments):
    done = subprocess.run(arguments, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-600:])
    return done.stdout


def check(name, program):
    result = {"case": name}
    with tempfile.TemporaryDirectory() as folder:
        source = os.path.join(folder, "model")
        os.makedirs(source)
        encodes = is_encoder(CASES[name])
        kind = AutoModel if encodes else AutoModelForCausalLM
        if CASES[name]["model_type"] in NESTED:
            kind = AutoModelForImageTextToText
        model, _ = build(CASES[name], source, pooler=True)
        if encodes:
            ids = torch.randint(0, model.config.get_text_config().vocab_size, (112, LENGTH), generator=torch.Generator().manual_seed(7))
        else:
            ids = sample(model, model.config.get_text_config().vocab_size, 112, seed=7)
        np.save(os.path.join(folder, "calibration.npy"), ids[:48].flatten().numpy().astype(np.int32))
        held = ids[48:]
        np.save(os.path.join(folder, "evaluation.npy"), held.flatten().numpy().astype(np.int32))
        if not encodes:
            result["perplexity"] = perplexity(model, held)
            result["eval"] = json.loads(
                compress(program, "eval", source, "--tokens", os.path.join(folder, "evaluation.npy"), "--window", "32", "--json"))
        form = "safetensors" if name.startswith(DENSE) or name in STACKED else "compressed-tensors"
        runs = [("rtn", "rtn", ""), ("gptq", "gptq", ", scales: full_range"), ("gptq-drift", "gptq", ", drift_correction: 0.5")]
        if name in STACKED:
            runs.append(("gptq-attention", "gptq", ", layers: [\"*self_attn*\"]"))
        for label, method, more in runs:
            form = "compressed-tensors" if label.endswith("attention") else form
            recipe, out = os.path.join(folder, label + ".yaml"), os.path.join(folder, label)
            with open(recipe, "w") as file:
                file.write(RECIPE.format(folder=folder, method=method, more=more, format=form))
            entry = result[label] = {}
            try:
                compress(program, "--recipe", recipe, "--model", source, "--output", out, "--progress", "none")
                figures = json.load(open(os.path.join(out, "report.json")))
                if encodes:
                    entry["cosine"] = figures["similarity"]["cosine"]
                else:
                    entry["before"] = figures["evaluation"]["perplexity_before"]
                    entry["after"] = figures["evaluation"]["perplexity_after"]
                entry["fallbacks"] = figures["fallback_count"]
                entry["carried"] = figures["carried_tensors"]
                entry["remarks"] = figures["remarks"]
            except RuntimeError as error:
                entry["error"] = str(error)
                continue
            try:
                loaded, info = kind.from_pretrained(
                    out, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
                entry["missing"] = sorted(info["missing_keys"])
                entry["unexpected"] = sorted(info["unexpected_keys"])
                if encodes:
                    pooled, tokens = cosines(hidden(loaded.eval(), held), hidden(model, held))
                    entry["transformers"] = {
                        kind: {"mean": values.mean().item(), "minimum": values.min().item(), "fifth_percentile": values.quantile(0.05).item()}
                        for kind, values in [("pooled", pooled), ("tokenwise", tokens)]}
                else:
                    entry["transformers"] = perplexity(loaded.eval(), held)
            except Exception as error:  # whatever transformers raises is the result
                entry["loading"] = f"{type(error).__name__}: {error}"[:600]
    return result


def row(result):
    """A line of the table: perplexity here over transformers', four bits over none, and transformers' share of our figure; of encoders, the
    mean cosine of the embeddings and how far transformers' six figures are from ours at most."""
    def ratio(label):
        entry = result[label]
        if "error" in entry:
            return f"{entry['error'][:80]} | –"
        if "cosine" in entry:
            theirs = entry.get("transformers", {})
            worst = max(
                (abs(theirs[kind][figure] - entry["cosine"][kind][figure]) for kind in theirs for figure in theirs[kind]),
                default=float("nan"))
            return f"cosine {entry['cosine']['pooled']['mean']:.5f} | {worst:.1e}"
        agreement = entry.get("transformers", float("nan")) / entry["after"] - 1
        return f"{entry['after'] / entry['before']:.4f} | {agreement:+.1e}"

    if "error" in result:
        return f"| {result['case']} | {result['error']} |"
    own = f"{result['eval']['perplexity'] / result['perplexity'] - 1:+.1e}" if "eval" in result else "–"
    return f"| {result['case']} | {own} | {' | '.join(ratio(label) for label in ('rtn', 'gptq', 'gptq-drift', 'gptq-attention') if label in result)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("out")
    parser.add_argument("cases", nargs="*")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    results = []
    for name in arguments.cases or CASES:
        try:
            results.append(check(name, os.path.abspath(arguments.program)))
        except Exception as error:
            results.append({"case": name, "error": f"{type(error).__name__}: {error}"[:800]})
        print(row(results[-1]), flush=True)
        with open(arguments.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
