"""Loads a KerasHub preset that `compress convert --to keras` made and compares its logits with those of transformers on the original.

    KERAS_BACKEND=torch python -P tools/golden/keras_reads.py PRESET MODEL
"""
import sys
import keras_hub, numpy as np, torch, transformers

preset, model = sys.argv[1:]
backbone = keras_hub.models.Backbone.from_preset(preset, dtype="float32")
tokens = np.array([[1, 17, 300, 42, 7, 99, 5, 1000]])
hidden = backbone({"token_ids": tokens, "padding_mask": np.ones_like(tokens)})
ours = backbone.token_embedding(hidden, reverse=True).detach().cpu().numpy()
reference = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)(torch.tensor(tokens)).logits.detach().numpy()
print(f"largest difference of {ours.size} logits: {np.abs(ours - reference).max():.2e}, of a size up to {np.abs(reference).max():.2f}")
