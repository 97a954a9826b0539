"""Writes GGUF files with the gguf package, and what llama.cpp makes of the vocabulary in one of them.

Run with `pip install gguf==0.19.0 numpy llama-cpp-python==0.3.36`, then `python tools/golden/gguf_files.py` from the root of the repository. The
last of these builds llama.cpp; without it the ids of the vocabulary are left as they are. Nothing is random: a second run writes the same files.

`Tests/CheckpointIOTests/Fixtures/split`: a Llama of one block in three parts. Element i of a tensor is i / 64.
`Tests/FormatsTests/Fixtures/vocabulary.gguf`: a SentencePiece vocabulary with byte, user-defined, control and unused tokens.
`Tests/FormatsTests/Fixtures/vocabulary.json`: texts, and the ids llama.cpp gives them with and without the space before.
"""

import json
import pathlib

import gguf
import numpy

CHECKPOINTS = pathlib.Path("Tests/CheckpointIOTests/Fixtures/split")
FORMATS = pathlib.Path("Tests/FormatsTests/Fixtures")

TEXTS = [
    "", " ", "ab", " ab", "ab  ab", "a<tool>b", "a <tool> b", "<tool>", "<tool>ab", "<tool> ab", "ab<tool>", "<tool><tool>a", "a deep b",
    "a deep", " deep a", "deep a", "a<s>b", "<s>ab", "a</s> b", "<unk>a", "[PAD275]", "a[PAD275]b", "\u2581a", "a\u2581b", "x", "a\u00e9\u4e2d",
    "a\nb", "ab<tool> <tool>ab </s><s>ab", "<too", "abab",
]


def keys(writer, blocks=1):
    writer.add_context_length(64)
    writer.add_embedding_length(8)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(12)


def split():
    CHECKPOINTS.mkdir(parents=True, exist_ok=True)
    for old in CHECKPOINTS.glob("*.gguf"):
        old.unlink()
    writer = gguf.GGUFWriter(CHECKPOINTS / "tiny.gguf", "llama", split_max_tensors=4)
    keys(writer)
    writer.add_tokenizer_model("none")
    shapes = {
        "token_embd": (12, 8), "output_norm": (8,), "output": (12, 8), "blk.0.attn_norm": (8,), "blk.0.attn_q": (8, 8), "blk.0.attn_k": (4, 8),
        "blk.0.attn_v": (4, 8), "blk.0.attn_output": (8, 8), "blk.0.ffn_norm": (8,), "blk.0.ffn_gate": (16, 8), "blk.0.ffn_up": (16, 8),
        "blk.0.ffn_down": (8, 16),
    }
    for name, shape in shapes.items():
        count = int(numpy.prod(shape))
        writer.add_tensor(name + ".weight", (numpy.arange(count, dtype=numpy.float32) / 64).reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def vocabulary(path, adds_space):
    tokens = [("<unk>", 2, 0), ("<s>", 3, 0), ("</s>", 3, 0)] + [(f"<0x{b:02X}>", 6, 0) for b in range(256)]
    pieces = ["\u2581a", "ab", "\u2581ab", "\u2581\u2581", "\u2581", "a", "b", "d", "e", "p", "<", "t", "o"]
    tokens += [(piece, 1, -float(i)) for i, piece in enumerate(pieces)]
    tokens += [("<tool>", 4, -1000), (" deep", 4, -1000)]
    while len(tokens) < 280:
        tokens.append((f"[PAD{len(tokens)}]", 5, -10000))
    writer = gguf.GGUFWriter(path, "llama")
    keys(writer)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([t for t, _, _ in tokens])
    writer.add_token_scores([float(s) for _, _, s in tokens])
    writer.add_token_types([k for _, k, _ in tokens])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(adds_space)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ids(path):
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return [model.tokenize(text.encode(), add_bos=False, special=True) for text in TEXTS]


if __name__ == "__main__":
    split()
    found = {}
    for key, adds_space in [("without", False), ("with", True)]:
        vocabulary(FORMATS / "vocabulary.gguf", adds_space)
        try:
            found[key] = ids(FORMATS / "vocabulary.gguf")
        except ImportError:
            raise SystemExit("llama-cpp-python is not installed: the ids stay as they are")
    lines = ",\n".join(json.dumps({"text": text, "with": a, "without": b}) for text, a, b in zip(TEXTS, found["with"], found["without"]))
    (FORMATS / "vocabulary.json").write_text("[\n" + lines + "\n]\n")
