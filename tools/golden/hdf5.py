"""HDF5 files of h5py for the readers of CheckpointIO, and files that must be refused; adds to `containers.json`.

    python tools/golden/hdf5.py Tests/CheckpointIOTests/Fixtures

Needs h5py, numpy and ml_dtypes. Run after containers.py.
"""
import json, pathlib, sys
import h5py, ml_dtypes, numpy as np

out = pathlib.Path(sys.argv[1])
expected = json.loads((out / "containers.json").read_text())
rng = np.random.default_rng(0)
arrays = {
    "a/f4": rng.standard_normal((5, 7)).astype("<f4"), "a/big": rng.standard_normal(6).astype(">f4"), "a/b/half": rng.standard_normal(9).astype("<f2"),
    "double": np.array(2.5), "i2": np.arange(-3, 3, dtype=">i2").reshape(2, 3), "u8": np.arange(4, dtype="u1"),
    "flag": np.array([True, False, True]), "none": np.zeros((0, 3), "<i8"), "bf16": rng.standard_normal((3, 2)).astype(ml_dtypes.bfloat16),
    "e4m3": np.array([1, -2], ml_dtypes.float8_e4m3fn), "long": rng.integers(0, 9, (40, 30)).astype("<i4"),
}
types = {"a/f4": "F32", "a/big": "F32", "a/b/half": "F16", "double": "F64", "i2": "I16", "u8": "U8", "flag": "BOOL", "none": "I64",
         "bf16": "BF16", "e4m3": "F8_E4M3", "long": "I32"}


def fill(file, **options):
    for name, value in arrays.items():
        chosen = options if value.ndim and value.size else {}
        dataset = file.create_dataset(name, data=value, track_times=False, **chosen)
        if value.dtype.kind == "V":
            dataset.attrs["dtype"] = value.dtype.name


def little(value):
    return (value.byteswap() if value.dtype.byteorder == ">" else value).tobytes().hex()


for name, version, options in [("plain.h5", "earliest", {}), ("packed.h5", "earliest", dict(compression="gzip", shuffle=True, fletcher32=True)),
                               ("latest.h5", ("v108", "v110"), dict(compression="gzip"))]:
    with h5py.File(out / name, "w", libver=version) as file:
        fill(file, **options)
    names = []
    with h5py.File(out / name) as file:
        file.visititems(lambda path, item: names.append(path) if isinstance(item, h5py.Dataset) else None)
    expected[name] = [[n, types[n], list(arrays[n].shape), little(arrays[n])] for n in names]

with h5py.File(out / "external_link.h5", "w") as f: f["a"] = h5py.ExternalLink("plain.h5", "/double")
with h5py.File(out / "soft_link.h5", "w") as f: f["a"] = h5py.SoftLink("/b")
with h5py.File(out / "external_data.h5", "w") as f: f.create_dataset("a", (4,), "f4", external=[("other.raw", 0, 16)])
with h5py.File(out / "virtual.h5", "w", libver=("v110", "v110")) as f:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("plain.h5", "x", (4,))
    f.create_virtual_dataset("a", layout)
with h5py.File(out / "lzf.h5", "w") as f: f.create_dataset("a", data=np.zeros(600, "f4"), compression="lzf")
with h5py.File(out / "strings.h5", "w") as f: f["a"] = ["x", "y"]
with h5py.File(out / "cycle.h5", "w") as f:
    group = f.create_group("g")
    group["again"] = group
with h5py.File(out / "bomb.h5", "w") as f: f.create_dataset("a", (1 << 33,), "f4", chunks=(1024,), compression="gzip")

(out / "containers.json").write_text(json.dumps(expected, indent=1) + "\n")
