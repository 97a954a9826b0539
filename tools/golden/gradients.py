"""Write gradients of tiny models of every supported family, computed by PyTorch through transformers' models, as one JSON fixture.

  gradients.py OUT_FILE [CASE...]

Needs torch, transformers and safetensors. The models are those of families.py, in float64. The loss is the mean cross-entropy of every next
token of the same ids; gradients are put in the place of the weights and saved, so that they have the names and shapes that weights have on
disk. Of every tensor two numbers are kept: its norm, and its product with cos(0), cos(1), cos(2), … in the order of its elements.
"""
import argparse
import json
import os
import sys
import tempfile

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

from families import CASES, IDS, alone, as_released, build, doubled, is_encoder


def gradients(config):
    with tempfile.TemporaryDirectory() as folder:
        model, _ = build(config, folder)
        shapes = {name: tensor.shape for name, tensor in load_file(os.path.join(folder, "model.safetensors")).items()}
        model = doubled(model)
        # PyTorch leaves the padding token's row out.
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                module.padding_idx = None
        ids = torch.tensor([IDS])
        logits = model(input_ids=ids, use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    buffer.zero_()
        # Saved in single precision: far below what a test asks for.
        model.float().save_pretrained(folder)
        tensors = load_file(os.path.join(folder, "model.safetensors"))
        # A model that was loaded in another form than the one it is saved in is put back into the form it had.
        if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
            tensors = as_released(tensors, config["model_type"])
        assert {name: tensor.shape for name, tensor in tensors.items()} == shapes, config["model_type"]
    found = {}
    for name, tensor in sorted(tensors.items()):
        name = alone(name, config["model_type"])
        if name is None:
            continue
        values = tensor.double().numpy().reshape(-1)
        found[name] = [float(np.linalg.norm(values)), float(values @ np.cos(np.arange(values.size)))]
    return loss.item(), found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all when none is named")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    cases = {}
    for name in arguments.cases or CASES:
        if is_encoder(CASES[name]):
            continue
        loss, found = gradients(CASES[name])
        cases[name] = {"loss": loss, "tensors": found}
        print(f"{name}: {len(found)} tensors, loss {loss:.4f}")
    lines = [f'  "{name}": ' + json.dumps(case) for name, case in cases.items()]
    with open(arguments.out, "w") as file:
        file.write(
            "{\n" + f'  "tool": "PyTorch, float64, CPU; transformers {transformers.__version__}, torch {torch.__version__}",\n'
            + '  "command": "tools/golden/gradients.py Tests/TrainingTests/Fixtures/gradients.json",\n' + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
