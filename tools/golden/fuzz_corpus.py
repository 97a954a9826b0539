"""Small files that the fuzz tests begin with.

    python -P tools/golden/fuzz_corpus.py Tests/FuzzTests/Corpus Tests/CheckpointIOTests/Fixtures

Needs gguf and numpy; run after containers.py.
"""
import pathlib, sys, zipfile
import gguf, numpy as np

out, fixtures = map(pathlib.Path, sys.argv[1:])
for name in ("state.bin", "views.pt", "training.pt"):
    with zipfile.ZipFile(fixtures / name) as archive:
        pickle = next(entry for entry in archive.namelist() if entry.endswith("/data.pkl"))
        (out / f"{pathlib.Path(name).stem}.pkl").write_bytes(archive.read(pickle))
w = gguf.GGUFWriter(out / "gguf-golden.gguf", "llama")
w.add_bool("x.flag", True)
w.add_uint64("x.long", 1 << 40)
w.add_float64("x.double", 0.5)
w.add_array("x.names", ["a", "<s>"])
w.add_array("x.numbers", [1, 3])
w.add_tensor("t", np.arange(6, dtype="f4").reshape(2, 3))
for kind in (gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q5_1):
    w.add_tensor(kind.name, gguf.quants.quantize(np.arange(64, dtype="f4").reshape(2, 32), kind), raw_dtype=kind)
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()

w = gguf.GGUFWriter(out / "gguf-llama.gguf", "llama")
w.add_block_count(1); w.add_context_length(8); w.add_embedding_length(8); w.add_feed_forward_length(12); w.add_head_count(2)
w.add_head_count_kv(1); w.add_layer_norm_rms_eps(1e-5); w.add_rope_freq_base(10000.0)
w.add_tokenizer_model("llama"); w.add_token_list(["<unk>", "<s>", "</s>", "a"]); w.add_token_scores([0.0, 0.0, 0.0, -1.0])
w.add_token_types([2, 3, 3, 1])
rng = np.random.default_rng(0)
for name, shape in {"token_embd": (4, 8), "output_norm": (8,), "blk.0.attn_norm": (8,), "blk.0.ffn_norm": (8,), "blk.0.attn_q": (8, 8),
                    "blk.0.attn_k": (4, 8), "blk.0.attn_v": (4, 8), "blk.0.attn_output": (8, 8), "blk.0.ffn_gate": (12, 8),
                    "blk.0.ffn_up": (12, 8), "blk.0.ffn_down": (8, 12)}.items():
    w.add_tensor(name + ".weight", rng.standard_normal(shape).astype("f4"))
w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
