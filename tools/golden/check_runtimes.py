"""Let transformers run what `allocate` makes of mixtures, and what `rtn` makes of a model with a vision tower in each of its spellings.

  check_runtimes.py COMPRESS

Every written checkpoint is loaded by transformers beside the same numbers written dense by `compress convert`, all in float32. Their logits must
agree, and the mixtures' perplexities must be those of `compress eval`. Fails where they do not.
"""
import json
import os
import subprocess
import sys
import tempfile

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma3Config, Gemma3ForConditionalGeneration, MixtralConfig, Qwen3MoeConfig

VOCABULARY, WINDOW = 128, 64
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
    tie_word_embeddings=False)
MIXTURES = {
    "mixtral": MixtralConfig(intermediate_size=96, num_local_experts=4, num_experts_per_tok=2, sliding_window=None, **SHAPE),
    "qwen3_moe": Qwen3MoeConfig(
        intermediate_size=96, moe_intermediate_size=64, num_experts=4, num_experts_per_tok=2, head_dim=32, norm_topk_prob=True, **SHAPE),
}
ALLOCATE = """calibration: { tokens: calibration.npy, sequences: 16, length: 64 }
passes:
  - allocate: { target: 5bpw, probes: 4, candidates: [ { bits: 3, group_size: 32 }, { bits: 4, group_size: 32 }, { bits: 8, group_size: 32 } ] }
"""
IMAGE = 120
GEMMA = Gemma3Config(
    text_config=dict(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, sliding_window=16, max_position_embeddings=128),
    vision_config=dict(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        vision_use_head=False),
    mm_tokens_per_image=4, image_token_index=IMAGE, boi_token_index=121, eoi_token_index=122)
# How the hub, transformers of today and transformers of yesterday name the same tensors.
SPELLINGS = {
    "hub": lambda name: name,
    "today": lambda name: (
        name.replace("language_model.model.", "model.language_model.", 1) if name.startswith("language_model.model.")
        else name.removeprefix("language_model.") if name.startswith("language_model.") else "model." + name),
    "yesterday": lambda name: name.replace("vision_tower.", "vision_tower.vision_model.", 1),
}
ROUNDINGS = [
    "bits: 4, group_size: 32", "bits: 4, group_size: 32, layers: { exclude: [layers.1.*] }",
    "bits: 4, group_size: 32, overrides: [ { layers: down_proj, bits: 8 } ]",
]


def save(model, folder):
    """Weights four times as large as they begin, so that logits are not all alike."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)


def compress(*arguments):
    done = subprocess.run([sys.argv[1], *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def make(recipe, model):
    """The compressed checkpoint, and its dense twin."""
    with open("recipe.yaml", "w") as file:
        file.write(recipe)
    compress("--recipe", "recipe.yaml", "--model", model, "--output", "packed", "--overwrite")
    compress("convert", "packed", "--to", "safetensors", "--output", "dense", "--overwrite")
    return "packed", "dense"


def logits(kind, folder, **inputs):
    model = kind.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(**inputs).logits.double()


def hold(name, found, expected, bound):
    difference = float((found - expected).abs().max() / expected.abs().max())
    print(f"{name}: {difference:.2e} (at most {bound})")
    if not difference <= bound:
        sys.exit(f"{name}: transformers computes something else")


def mixtures():
    random = np.random.default_rng(0)
    for name, count in [("calibration", 16), ("evaluation", 8)]:
        np.save(name + ".npy", random.integers(0, VOCABULARY, count * WINDOW).astype(np.int32))
    ids = torch.tensor(np.load("evaluation.npy").reshape(-1, WINDOW)).long()
    for name, config in MIXTURES.items():
        save(AutoModelForCausalLM.from_config(config), name)
        packed, dense = make(ALLOCATE, name)
        with open(f"{packed}/config.json") as file:
            if len(json.load(file)["quantization_config"]["config_groups"]) < 2:
                sys.exit(f"{name}: one format for all shows nothing")
        found, expected = (logits(AutoModelForCausalLM, folder, input_ids=ids) for folder in (packed, dense))
        hold(f"{name}, logits", found, expected, 1e-5)
        loss = torch.nn.functional.cross_entropy(found[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).exp()
        ours = json.loads(compress("eval", packed, "--tokens", "evaluation.npy", "--window", str(WINDOW), "--json"))
        hold(f"{name}, perplexity", torch.tensor(ours["perplexity"]).double(), loss, 1e-4)


def pictures():
    model = Gemma3ForConditionalGeneration(GEMMA)
    save(model, "hub")
    tensors = load_file("hub/model.safetensors")
    ids = torch.randint(0, IMAGE, (1, 24))
    ids[0, 4:8] = IMAGE
    inputs = dict(input_ids=ids, pixel_values=torch.randn(1, 3, 32, 32), token_type_ids=(ids == IMAGE).long())
    for spelling, name in SPELLINGS.items():
        os.makedirs(spelling, exist_ok=True)
        save_file({name(key): value for key, value in tensors.items()}, f"{spelling}/model.safetensors", metadata={"format": "pt"})
        if spelling != "hub":
            with open("hub/config.json") as config, open(f"{spelling}/config.json", "w") as copy:
                copy.write(config.read())
        for rounding in ROUNDINGS:
            packed, dense = make(f"passes:\n  - rtn: {{ {rounding} }}\n", spelling)
            found, expected = (logits(Gemma3ForConditionalGeneration, folder, **inputs) for folder in (packed, dense))
            hold(f"gemma3, {spelling}, {rounding}", found, expected, 1e-5)


torch.manual_seed(0)
sys.argv[1] = os.path.abspath(sys.argv[1])
with tempfile.TemporaryDirectory() as place:
    os.chdir(place)
    mixtures()
    pictures()
