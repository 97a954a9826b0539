"""What llama.cpp's own converter makes of tiny models: names, shapes and a digest of every tensor, and the metadata.

  gguf_converted.py LLAMA_CPP OUT.json [CASE...]

LLAMA_CPP is a source tree of llama.cpp, such as the one inside the sdist of llama-cpp-python 0.3.36. The models are those of families.py, changed
as `CHANGES` says where llama.cpp has no word for something of theirs, or its converter asks for a key that others do without. A digest is FNV-1a
with 64 bits over the tensor's F32 bytes. Needs torch, transformers 5.24.0, and what the converter imports.
"""
import json
import pathlib
import sys
import tempfile

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first
sys.path[0:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]

import gguf
import numpy as np
import torch
from conversion import ModelBase, get_model_class
from families import CASES, build
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

FULL = ["full_attention"] * 2
CHANGES = {
    "arcee": {}, "bloom": {}, "cohere": {"tie_word_embeddings": True}, "cohere2": {"rotary_pct": 1.0},
    "exaone4": {"sliding_window": None, "layer_types": FULL}, "falcon-40b": {}, "falcon-7b": {"num_kv_heads": 1}, "gemma": {}, "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3": {}, "glm4": {}, "gpt-neox": {}, "gpt-neox-serial": {"attention_bias": True}, "gpt-oss": {}, "gpt2": {"n_ctx": 32}, "granite": {},
    "granite-moe": {}, "llama-yarn": {}, "ministral3": {}, "mixtral": {}, "mpt": {"attn_config": {"alibi": True, "alibi_bias_max": 8, "clip_qkv": None}},
    "nemotron": {}, "olmo2": {}, "olmo3": {}, "olmoe": {"num_key_value_heads": 4}, "phi3": {"sliding_window": None, "original_max_position_embeddings": 64},
    "phi3-longrope": {}, "phi3-partial": {"original_max_position_embeddings": 64}, "qwen2-moe": {}, "qwen3-moe": {"mlp_only_layers": []},
    "seed-oss": {}, "smollm3": {"no_rope_layers": [1, 1]}, "stablelm": {}, "stablelm-parallel": {}, "starcoder2": {"sliding_window": None},
}
# What llama.cpp calls classes that transformers calls otherwise.
CLASSES = {"mpt": "MPTForCausalLM"}


def digest(array):
    value = 0xCBF29CE484222325
    for byte in np.ascontiguousarray(array, dtype="<f4").tobytes():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def convert(name, place):
    config = CASES[name] | CHANGES[name]
    copy = place / name
    copy.mkdir()
    build(config, str(copy))
    kind = config["model_type"]
    whole = config | {"architectures": [CLASSES.get(kind) or MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]]}
    (copy / "config.json").write_text(json.dumps(whole))
    # One converter counts the tokens and takes no more of the embedding.
    vocabulary = {"model": {"vocab": {str(i): i for i in range(config["vocab_size"])}}, "added_tokens": []}
    (copy / "tokenizer.json").write_text(json.dumps(vocabulary))
    kind = get_model_class(whole["architectures"][0])
    kind.set_vocab = lambda self: self.gguf_writer.add_tokenizer_model("none")
    output = place / "out.gguf"
    with torch.inference_mode():
        kind(copy, gguf.LlamaFileType.ALL_F32, output).write()
    reader = gguf.GGUFReader(output)
    architecture = reader.get_field("general.architecture").contents()
    tensors = {t.name: [[int(n) for n in reversed(t.shape)], digest(t.data)] for t in reader.tensors}
    keys = {name: field.contents() for name, field in reader.fields.items() if name.startswith(architecture + ".")}
    return {"config": config, "keys": keys, "tensors": tensors}


def main():
    out, cases = pathlib.Path(sys.argv[2]), sys.argv[3:] or list(CHANGES)
    load = ModelBase.load_hparams
    # transformers renames keys that converters still ask for.
    ModelBase.load_hparams = staticmethod(lambda place, *a, **k: json.loads((place / "config.json").read_text()) | load(place, *a, **k))
    lines = []
    for name in cases:
        with tempfile.TemporaryDirectory() as place:
            lines.append(f"{json.dumps(name)}: {json.dumps(convert(name, pathlib.Path(place)), separators=(',', ':'))}")
    command = "gguf_converted.py LLAMA_CPP Tests/FormatsTests/Fixtures/gguf-converted.json"
    head = {"tool": "convert_hf_to_gguf.py in llama-cpp-python 0.3.36", "command": command}
    out.write_text(json.dumps(head)[:-1] + ', "models": {\n' + ",\n".join(lines) + "\n}}\n")


main()
