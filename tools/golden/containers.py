"""Files of other tools for the readers of CheckpointIO: torch's .pt and .bin, numpy's .npz, and what must be refused.

    python tools/golden/containers.py Tests/CheckpointIOTests/Fixtures

Needs torch and numpy. `containers.json` lists for every file its tensors: name, type as safetensors spells it, shape, and the bytes of the
contiguous tensor, little-endian, in hexadecimal.
"""
import io, json, os, pathlib, pickle, sys, zipfile
import numpy, torch

out = pathlib.Path(sys.argv[1])
expected = {}
names = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.int32: "I32",
         torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL", torch.float8_e4m3fn: "F8_E4M3",
         torch.float8_e5m2: "F8_E5M2", torch.uint16: "U16", torch.complex64: "C64"}


def described(tensors):
    return [[name, names[t.dtype], list(t.shape), bytes(t.detach().contiguous().reshape(-1).view(torch.uint8).tolist()).hex()]
            for name, t in tensors.items()]


def repacked(source, target, method):
    """The same archive with every entry packed by another method."""
    with zipfile.ZipFile(out / source) as a, zipfile.ZipFile(out / target, "w", method) as b:
        for name in a.namelist():
            b.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), a.read(name), method)


torch.manual_seed(0)
base = torch.arange(24, dtype=torch.float32).view(4, 6)
tensors = {
    "plain": base, "transposed": base.t(), "sliced": base[1:3, 1:5:2], "row": base[2], "expanded": torch.tensor([[1.5], [-2.0]]).expand(2, 5),
    "permuted": torch.arange(24, dtype=torch.int16).view(2, 3, 4).permute(2, 0, 1), "scalar": torch.tensor(7, dtype=torch.int64),
    "empty": torch.zeros(0, 3), "bf16": torch.randn(3, 3).bfloat16(), "f16": torch.randn(5).half(), "f64": torch.randn(2).double(),
    "bool": torch.tensor([True, False, True]), "i8": torch.tensor([-1, 2], dtype=torch.int8), "u8": torch.tensor([3, 255], dtype=torch.uint8),
    "i32": torch.tensor([1 << 30], dtype=torch.int32), "e4m3": torch.randn(4).to(torch.float8_e4m3fn), "e5m2": torch.randn(4).to(torch.float8_e5m2),
    "u16": torch.tensor([65535, 1], dtype=torch.uint16), "c64": torch.tensor([1 + 2j]), "parameter": torch.nn.Parameter(torch.randn(2, 2)),
}
torch.save(tensors, out / "views.pt")
expected["views.pt"] = described(tensors)
repacked("views.pt", "deflated.pt", zipfile.ZIP_DEFLATED)
expected["deflated.pt"] = expected["views.pt"]

module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
state = {"_orig_mod.module." + k: v for k, v in module.state_dict().items()}
optimizer = torch.optim.AdamW(module.parameters())
torch.save({"iteration": 12, "loss": 0.25, "model_args": {"layers": [1, 2], "name": "é", "none": None, "big": 1 << 40}, "model": state,
            "optimizer": optimizer.state_dict(), "device": torch.device("cpu"), "size": torch.Size([2, 3])}, out / "training.pt")
expected["training.pt"] = described(module.state_dict())
torch.save(module.state_dict(), out / "state.bin")
expected["state.bin"] = expected["training.pt"]

torch.save({"a": base[:2].clone()}, out / "legacy.pt", _use_new_zipfile_serialization=False)
torch.jit.save(torch.jit.trace(torch.nn.Linear(1, 1), torch.zeros(1, 1)), out / "script.pt")


class Execute:
    def __reduce__(self):
        return os.system, ("touch /tmp/executed",)


def archive(target, payload, entries={}):
    with zipfile.ZipFile(out / target, "w") as a:
        for name, data in {"archive/data.pkl": payload, "archive/byteorder": b"little", **entries}.items():
            a.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


archive("executes.pt", pickle.dumps({"a": Execute()}, 2))
archive("numpy_inside.pt", pickle.dumps({"a": numpy.float32(1)}, 2))

arrays = {"f4": numpy.arange(6, dtype="<f4").reshape(2, 3), "big": numpy.arange(4, dtype=">f8"), "half": numpy.ones((1, 2, 3), "<f2"),
          "fortran": numpy.asfortranarray(numpy.arange(12, dtype="<i4").reshape(3, 4)), "flag": numpy.array([True, False]),
          "scalar": numpy.array(5, dtype="<u8"), "none": numpy.zeros((0, 4), "<i2"), "raw": numpy.array([0x3F80, 0xC000], "<u2").view("V2"),
          "complex": numpy.array([1 - 2j], "<c8")}
types = {"f4": "F32", "big": "F64", "half": "F16", "fortran": "I32", "flag": "BOOL", "scalar": "U64", "none": "I16", "raw": "BF16",
         "complex": "C64"}
for target, save in {"arrays.npz": numpy.savez, "compressed.npz": numpy.savez_compressed}.items():
    save(out / target, **arrays)
    little = {k: numpy.ascontiguousarray(v) for k, v in arrays.items()}
    expected[target] = [[k, types[k], list(arrays[k].shape), (v.byteswap() if v.dtype.byteorder == ">" else v).tobytes().hex()]
                        for k, v in little.items()]
numpy.savez(out / "objects.npz", a=numpy.array([{}], dtype=object))

(out / "containers.json").write_text(json.dumps(expected, indent=1) + "\n")
