#!/usr/bin/env bash
# transformers reads the GGUF file of a Llama 3.1 or later without its stretched rotary frequencies.
#
# Seen with transformers 5.24.0, gguf 0.19.0 and torch 2.13.0: `from_pretrained(…, gguf_file=…)` passes over the tensor `rope_freqs.weight`, in
# which llama.cpp's converter stores what every frequency is divided by (rope_type llama3). No warning is given, config.rope_parameters says
# "default", and logits differ from the first tokens on. With the frequencies put in by hand the logits are the original's.
# Exits with 0 while that is so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --extra-index-url https://download.pytorch.org/whl/cpu \
  torch==2.13.0+cpu transformers==5.24.0 gguf==0.19.0 accelerate==1.15.0
cat >"$place/check.py" <<'PYTHON'
import importlib.metadata
import pathlib
import sys

import gguf
import numpy
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

for name in ["transformers", "gguf", "torch"]:
    print(name, importlib.metadata.version(name))
torch.manual_seed(0)
rope = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
config = LlamaConfig(
    vocab_size=300, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=512, rope_parameters=rope, tie_word_embeddings=False,
)
model = LlamaForCausalLM(config).eval()
for weight in model.parameters():
    if weight.ndim == 2:
        torch.nn.init.normal_(weight, std=0.2)

# The file, as llama.cpp's converter makes it: rows of queries and keys in its order, the factors as a tensor of their own.
plain = 10000.0 ** (-torch.arange(0, 16, 2).double() / 16)
factors = (plain / model.model.rotary_emb.inv_freq.double()).float().numpy()
place = pathlib.Path(sys.argv[1])
writer = gguf.GGUFWriter(place / "model.gguf", "llama")
writer.add_context_length(512)
writer.add_embedding_length(64)
writer.add_block_count(2)
writer.add_feed_forward_length(128)
writer.add_head_count(4)
writer.add_head_count_kv(2)
writer.add_layer_norm_rms_eps(config.rms_norm_eps)
writer.add_rope_freq_base(10000.0)
writer.add_rope_dimension_count(16)
writer.add_vocab_size(300)
writer.add_tokenizer_model("llama")
writer.add_token_list(["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + [f"t{i}" for i in range(41)])
writer.add_token_scores([0.0] * 300)
writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * 41)
writer.add_tensor("rope_freqs.weight", factors)
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
for name, tensor in model.state_dict().items():
    value = tensor.float().numpy()
    for part, heads in [("q_proj", 4), ("k_proj", 2)]:
        if part in name:
            value = value.reshape(heads, 2, value.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(value.shape)
    writer.add_tensor(names.get_name(name, (".weight", ".bias")), numpy.ascontiguousarray(value))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

read = AutoModelForCausalLM.from_pretrained(place, gguf_file="model.gguf", dtype=torch.float32).eval()
ids = torch.arange(256)[None] % 299
with torch.no_grad():
    original, found = model(ids).logits, read(ids).logits
    read.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq.clone()
    mended = read(ids).logits
error, rest = float((original - found).abs().max()), float((original - mended).abs().max())
kind = read.config.rope_parameters.get("rope_type", "default")
print("rope_freqs.weight:", factors.round(3).tolist())
print("rope_type as read:", kind)
print(f"largest difference of logits: {error:.3f}; with the file's frequencies put in by hand: {rest:.6f}")
sys.exit(0 if kind == "default" and error > 0.1 and rest < 1e-3 else 1)
PYTHON
cd "$place"
venv/bin/python check.py "$place"
