"""What mlx-lm takes where a key of config.json is absent, for every family that both it and this package know.

    python tools/golden/mlx_defaults.py Tests/ModelsTests/Fixtures/mlx-lm-defaults.json

Needs mlx and mlx-lm. For a model type: the keys its class cannot do without, and the defaults of the others (null for None).
"""
import dataclasses, importlib, json, sys
import mlx_lm
from mlx_lm.utils import MODEL_REMAPPING

types = ["llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "olmo2", "olmoe", "gemma", "gemma2", "gemma3_text", "phi3",
         "granite", "smollm3", "stablelm", "gpt2", "gpt_neox"]
result = {"source": f"mlx-lm {mlx_lm.__version__}", "types": {}}
for name in types:
    args = importlib.import_module("mlx_lm.models." + MODEL_REMAPPING.get(name, name)).ModelArgs
    required, defaults = [], {}
    for field in dataclasses.fields(args):
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        else:
            defaults[field.name] = field.default
    result["types"][name] = {"required": required, "defaults": defaults}
with open(sys.argv[1], "w") as file: file.write(json.dumps(result, indent=1) + "\n")
