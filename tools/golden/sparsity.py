"""Write the fixture for SparseGPT and Wanda, as JSON.

  python -P sparsity.py OUT_FILE [--seed S]     (-P: the folder has a tokenizers.py of its own)

One small layer, pruned by the functions of llm-compressor that its SparseGPTModifier and WandaPruningModifier call: weights and inputs go
in, the pruned weights come out. Weights are multiples of 1/1024 and inputs of 1/16, so that the fixture is short and exact, and no two weights of a column are alike.
Needs numpy, torch and llmcompressor.
"""
import argparse
import json
import os
import sys
from importlib.metadata import version

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import numpy as np
import torch
from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify
from llmcompressor.modifiers.pruning.wanda import wanda_sparsify

ROWS, COLUMNS, SAMPLES, DAMPING = 12, 32, 96, 0.01


def problem(seed):
    """Inputs share directions and differ in size, as activations do."""
    rng = np.random.default_rng(seed)
    weights = np.rint(rng.normal(size=(ROWS, COLUMNS)) * 320) / 1024
    mixing = rng.normal(size=(COLUMNS, 10))
    inputs = mixing @ rng.normal(size=(10, SAMPLES)) / 3 + 0.6 * rng.normal(size=(COLUMNS, SAMPLES))
    inputs *= np.exp(0.6 * rng.normal(size=(COLUMNS, 1)))
    return weights, np.rint(inputs * 16) / 16


def run(weights, inputs, method, sparsity, kept, group, block):
    module = torch.nn.Linear(COLUMNS, ROWS, bias=False)
    module.weight.data = torch.tensor(weights, dtype=torch.float32)
    x = torch.tensor(inputs.T, dtype=torch.float32)
    if method == "sparsegpt":
        hessian, _ = sgpt_sparsify.accumulate_hessian(x, module, sgpt_sparsify.make_empty_hessian(module), 0)
        _, pruned = sgpt_sparsify.sparsify_weight(
            module, {module: hessian}, sparsity, group - kept, group, block, DAMPING, False
        )
    else:
        norms, _ = wanda_sparsify.accumulate_row_scalars(x, module, wanda_sparsify.make_empty_row_scalars(module), 0)
        pruned = wanda_sparsify.sparsify_weight(module, {module: norms}, sparsity, group - kept, group)
    return pruned.detach().double().numpy()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=6)
    arguments = parser.parse_args()
    weights, inputs = problem(arguments.seed)
    cases = []
    for method in ("sparsegpt", "wanda"):
        for sparsity, kept, group, block in (
            (0.5, 0, 0, 32), (0.5, 0, 0, 8), (0.7, 0, 0, 16), (0.5, 2, 4, 32), (0.5, 4, 8, 16), (0.75, 1, 4, 8)
        ):
            if method == "wanda" and block != 32 and group == 0 and sparsity == 0.5:
                continue
            pruned = run(weights, inputs, method, sparsity, kept, group, block)
            case = dict(method=method, sparsity=sparsity, kept=kept, group=group, block_size=block)
            case["pruned"] = [[round(float(value), 6) for value in row] for row in pruned]
            cases.append(case)
    fixture = {
        "tool": "llmcompressor", "version": version("llmcompressor"), "torch": version("torch").split("+")[0],
        "command": "python -P tools/golden/sparsity.py Tests/PruningTests/Fixtures/sparsity.json",
        "tolerance": "zeros exact; 2e-4 of the largest weight, because the peer factors and inverts in single precision",
        "note": "the peer removes one weight more per block than the share says where no pattern is given",
        "damping": DAMPING,
        "weights": weights.tolist(),
        "inputs": inputs.tolist(),
        "cases": cases,
    }
    with open(arguments.out, "w") as file:
        json.dump(fixture, file)
        file.write("\n")


if __name__ == "__main__":
    sys.exit(main())
