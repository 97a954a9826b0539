"""Files of torch and h5py that hold sound tensors beside what no reader of weights needs; adds to `containers.json`.

    python tools/golden/odd_containers.py Tests/CheckpointIOTests/Fixtures

Needs torch, h5py and numpy. Run after containers.py and hdf5.py. `meta-llama/` is a model in Meta's own layout: its queries and keys are
those of `containers.json` put into Meta's order by the inverse of the permutation of transformers' convert_llama_weights_to_hf.py.
"""
import json, pathlib, sys
import h5py, numpy as np, torch

out = pathlib.Path(sys.argv[1])
expected = json.loads((out / "containers.json").read_text())
rng = np.random.default_rng(5)
names = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.complex64: "C64", torch.float8_e8m0fnu: "F8_E8M0",
         torch.float8_e4m3fnuz: "F8_E4M3FNUZ", torch.float8_e5m2fnuz: "F8_E5M2FNUZ", torch.float4_e2m1fn_x2: "F4"}


def described(tensors):
    rows = []
    for name, tensor in tensors.items():
        # A negative that only a mark makes one.
        tensor = tensor.detach().resolve_neg().contiguous()
        shape = list(tensor.shape)
        if tensor.dtype == torch.float4_e2m1fn_x2:
            shape[-1] *= 2
        rows.append([name, names[tensor.dtype], shape, bytes(tensor.reshape(-1).view(torch.uint8).tolist()).hex()])
    return rows


codes = torch.arange(8, dtype=torch.uint8).view(4, 2)
tensors = {
    "plain": torch.arange(6, dtype=torch.float32).view(2, 3), "scales": codes.view(torch.float8_e8m0fnu),
    "packed": codes.view(torch.float4_e2m1fn_x2), "fnuz": codes.view(torch.float8_e4m3fnuz), "e5m2fnuz": codes.view(torch.float8_e5m2fnuz),
    "negative": torch._neg_view(torch.arange(6, dtype=torch.float32).view(2, 3).t()),
    "imaginary": torch.tensor([1 + 2j, 3 - 4j]).conj().imag, "half": torch._neg_view(torch.tensor([0.5, -2]).half()),
}
assert tensors["imaginary"].is_neg()
others = {"double": torch.tensor([1 + 2j], dtype=torch.complex128), "conjugate": torch.tensor([1 + 2j]).conj()}
torch.save({**tensors, **others}, out / "odd.bin")
expected["odd.bin"] = described(tensors)


def little(value):
    return value.tobytes().hex()


weight, bias = rng.standard_normal((3, 4)).astype("<f4"), rng.standard_normal(4).astype("<f4")
with h5py.File(out / "links.h5", "w") as f:
    f.create_dataset("a", data=weight, track_times=False)
    f.create_group("g").create_dataset("b", data=bias, track_times=False)
    f["c"] = h5py.SoftLink("/g/b")
    f["g/up"] = h5py.SoftLink("/c")
    f["g/beside"] = h5py.SoftLink("b")
    f["dangling"] = h5py.SoftLink("/nowhere")
    f["round"] = h5py.SoftLink("/round")
    f["elsewhere"] = h5py.ExternalLink("plain.h5", "/double")
    f["through"] = h5py.SoftLink("/elsewhere")
    f["group"] = h5py.SoftLink("/g")
    f.create_dataset("null", data=h5py.Empty("f4"), track_times=False)
    f.create_dataset("words", data=["x", "y"], track_times=False)
    f.create_dataset("lzf", data=np.zeros(600, "f4"), compression="lzf", track_times=False)
expected["links.h5"] = [[n, "F32", list(v.shape), little(v)] for n, v in
                        [("a", weight), ("c", bias), ("g/b", bias), ("g/beside", bias), ("g/up", bias)]]
with h5py.File(out / "userblock.h5", "w", userblock_size=1024) as f:
    f.create_dataset("a", data=weight, track_times=False)
    f.create_dataset("long", data=np.tile(bias, 300), track_times=False, compression="gzip")
with open(out / "userblock.h5", "r+b") as f: f.write(b"#!/bin/sh\n")
expected["userblock.h5"] = [["a", "F32", [3, 4], little(weight)], ["long", "F32", [1200], little(np.tile(bias, 300))]]

heads, pairs, size, hidden, wide, vocabulary = 2, 1, 4, 8, 12, 6
order = torch.Generator().manual_seed(3)


def drawn(*shape):
    return torch.randn(shape, generator=order).bfloat16()


def meta(weight, heads):
    """The inverse of view(heads, d/2, 2, columns) from view(heads, 2, d/2, columns)."""
    rows, columns = weight.shape
    return weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns)


place = out / "meta-llama"
place.mkdir(exist_ok=True)
hf = {
    "model.embed_tokens.weight": drawn(vocabulary, hidden), "model.norm.weight": drawn(hidden), "lm_head.weight": drawn(vocabulary, hidden),
    "model.layers.0.self_attn.q_proj.weight": drawn(heads * size, hidden), "model.layers.0.self_attn.k_proj.weight": drawn(pairs * size, hidden),
    "model.layers.0.self_attn.v_proj.weight": drawn(pairs * size, hidden), "model.layers.0.self_attn.o_proj.weight": drawn(hidden, heads * size),
    "model.layers.0.mlp.gate_proj.weight": drawn(wide, hidden), "model.layers.0.mlp.down_proj.weight": drawn(hidden, wide),
    "model.layers.0.mlp.up_proj.weight": drawn(wide, hidden), "model.layers.0.input_layernorm.weight": drawn(hidden),
    "model.layers.0.post_attention_layernorm.weight": drawn(hidden),
}
own = ["tok_embeddings", "norm", "output", "layers.0.attention.wq", "layers.0.attention.wk", "layers.0.attention.wv", "layers.0.attention.wo",
       "layers.0.feed_forward.w1", "layers.0.feed_forward.w2", "layers.0.feed_forward.w3", "layers.0.attention_norm", "layers.0.ffn_norm"]
state = {}
for name, (theirs, weight) in zip(own, hf.items()):
    count = heads if "q_proj" in theirs else pairs if "k_proj" in theirs else None
    state[name + ".weight"] = meta(weight, count) if count else weight
state["rope.freqs"] = torch.ones(size // 2)
torch.save(state, place / "consolidated.00.pth")
(place / "params.json").write_text(json.dumps({"dim": hidden, "n_layers": 1, "n_heads": heads, "n_kv_heads": pairs, "multiple_of": 4,
                                               "norm_eps": 1e-05, "rope_theta": 500000.0, "vocab_size": -1}) + "\n")
expected["meta-llama"] = described(hf)
(out / "containers.json").write_text(json.dumps(expected, indent=1) + "\n")
