"""Write what transformers makes of weights as vendors release them, as a JSON fixture: MXFP4 experts of gpt-oss, and E4M3 in tiles.

  originals.py Tests/FormatsTests/Fixtures/originals.json

Needs torch and transformers.
"""
import json
import os
import sys

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import torch
import transformers
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors


def main():
    generator = torch.Generator().manual_seed(5)
    experts, outputs, groups = 2, 6, 2
    blocks = torch.randint(0, 256, (experts, outputs, groups, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(110, 140, (experts, outputs, groups), dtype=torch.uint8, generator=generator)
    # [experts × inputs × outputs]
    dense = convert_moe_packed_tensors(blocks.clone(), scales.clone(), dtype=torch.float32)
    codes = torch.randint(0, 127, (8, 12), dtype=torch.uint8, generator=generator)
    tiles = torch.rand((2, 3), generator=generator) + 0.25
    fp8 = Fp8Dequantize(None)._dequantize_one(codes.view(torch.float8_e4m3fn), tiles, torch.float32)
    fixture = {
        "tool": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "command": "tools/golden/originals.py Tests/FormatsTests/Fixtures/originals.json",
        "mxfp4": {"shape": [experts, outputs, groups], "blocks": bytes(blocks.flatten().tolist()).hex(),
                  "scales": bytes(scales.flatten().tolist()).hex(), "dense": dense.flatten().tolist()},
        "fp8": {"shape": [8, 12], "tile": [4, 4], "codes": bytes(codes.flatten().tolist()).hex(), "scales": tiles.flatten().tolist(),
                "dense": fp8.flatten().tolist()},
    }
    os.makedirs(os.path.dirname(sys.argv[1]), exist_ok=True)
    with open(sys.argv[1], "w") as file:
        file.write("{\n" + ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in fixture.items()) + "\n}\n")


if __name__ == "__main__":
    main()
