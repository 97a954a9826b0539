"""Files of Keras 3 and KerasHub for the readers of CheckpointIO; adds to `containers.json`.

    KERAS_BACKEND=torch python -P tools/golden/keras.py Tests/CheckpointIOTests/Fixtures

Needs keras, keras-hub and torch; -P because scripts beside it are named like modules. Run after containers.py and hdf5.py. Writes a `.keras` archive, a Keras 3 `.weights.h5`, a `.h5` of the
form of Keras 2, and a KerasHub preset with the logits of its model.
"""
import json, pathlib, shutil, sys
import h5py, keras, keras_hub, numpy as np

out = pathlib.Path(sys.argv[1])
expected = json.loads((out / "containers.json").read_text())
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="first"), keras.layers.BatchNormalization(name="norm"),
                          keras.layers.Dense(2, name="second")])
model.compile("adam", "mse")
model.fit(np.ones((4, 4)), np.ones((4, 2)), verbose=0)
model.save(out / "whole.keras")
model.save_weights(out / "three.weights.h5")
model.save(out / "two.h5")


def listed(path, skip, strip=""):
    names = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and not name.startswith(skip) else None)
        return [[n.removeprefix(strip), "F32", list(file[n].shape), file[n][()].tobytes().hex()] for n in names]


expected["three.weights.h5"] = listed(out / "three.weights.h5", "optimizer")
expected["whole.keras"] = expected["three.weights.h5"]
with h5py.File(out / "two.h5") as file:
    group = file["model_weights"]
    order = [f"{layer.decode() if isinstance(layer, bytes) else layer}/{weight.decode() if isinstance(weight, bytes) else weight}"
             for layer in group.attrs["layer_names"] for weight in group[layer].attrs["weight_names"]]
found = {entry[0]: entry for entry in listed(out / "two.h5", "optimizer", "model_weights/")}
expected["two.h5"] = [found[name] for name in order]

for name, backbone in [
    ("llama3", keras_hub.models.Llama3Backbone(vocabulary_size=32, num_layers=2, num_query_heads=4, hidden_dim=16, intermediate_dim=24,
                                               num_key_value_heads=2)),
    ("gemma", keras_hub.models.GemmaBackbone(vocabulary_size=32, num_layers=1, num_query_heads=2, num_key_value_heads=1, hidden_dim=16,
                                             intermediate_dim=48, head_dim=6)),
]:
    preset = out / f"kerashub-{name}"
    shutil.rmtree(preset, ignore_errors=True)
    for weight in backbone.weights: weight.assign(np.random.default_rng(weight.shape[0]).standard_normal(weight.shape).astype("f4") * 0.3)
    backbone.save_to_preset(preset)
    tokens = np.array([[1, 5, 9, 2, 30, 7]])
    hidden = backbone({"token_ids": tokens, "padding_mask": np.ones_like(tokens)})
    logits = backbone.token_embedding(hidden, reverse=True)
    (preset / "logits.json").write_text(json.dumps({"tokens": tokens[0].tolist(), "logits": np.array(logits.detach().cpu())[0].tolist()}))

(out / "containers.json").write_text(json.dumps(expected, indent=1) + "\n")
