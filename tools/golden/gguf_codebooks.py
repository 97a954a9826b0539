"""The codebooks of ggml's IQ types as a C header, and golden values of the types that are only read.

    python -P tools/golden/gguf_codebooks.py header > Sources/CKernels/ggml_codebooks.h
    python -P tools/golden/gguf_codebooks.py values > Tests/TensorsTests/CodebookBlocksFixture.swift

Needs gguf 0.19.0 and numpy. A golden row is two blocks of arbitrary bytes whose scales lie between 2**-7 and 2**-3; its sum is over
value · (index mod 7 + 1), in double precision.
"""
import sys
import numpy as np
import gguf
from gguf import quants

TYPES = ["IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "TQ1_0", "TQ2_0"]


def header():
    print("// The codebooks of ggml's IQ types: every entry is eight (or four) numbers, each told by two (or three) bits, the first one lowest.")
    print("// The numbers themselves are in ggml_codebook.c. Made by tools/golden/gguf_codebooks.py.")
    print("#ifndef COMPRESS_GGML_CODEBOOKS_H\n#define COMPRESS_GGML_CODEBOOKS_H\n\n#include <stdint.h>\n")
    for name in TYPES[:6]:
        kind = getattr(quants, name)
        kind.init_grid()
        grid = np.array(kind.grid).squeeze()
        numbers, bits = sorted(set(grid.reshape(-1).tolist())), 2 if grid.shape[1] == 8 else 3
        codes = [sum(numbers.index(v) << (bits * j) for j, v in enumerate(row)) for row in grid.tolist()]
        print(f"static const uint16_t {name.lower()}_grid[{len(codes)}] = {{")
        for i in range(0, len(codes), 20):
            print("  " + ", ".join(map(str, codes[i : i + 20])) + ",")
        print("};\n")
    print("#endif")


def values():
    print("/// Blocks of arbitrary bytes, what gguf 0.19.0 reads in them at every 32nd element, and a weighted sum of all.")
    print("let codebookBlocks: [(type: String, blocks: String, values: [UInt32], sum: Double)] = [")
    for name in TYPES:
        kind = gguf.GGMLQuantizationType[name]
        length, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = np.random.default_rng(len(name)).integers(0, 256, (2, size), dtype=np.uint8)
        at = {"TQ1_0": 52, "TQ2_0": 64}.get(name, 0)
        if name == "IQ1_M":
            blocks[:, 55] = 0x20 | (blocks[:, 55] & 0x0F)
        else:
            blocks[:, at + 1] = 0x20 | (blocks[:, at + 1] & 0x0F)
        # The four high nibbles of IQ1_M's scales are one half; its top one is the last.
        found = quants.dequantize(blocks.reshape(1, -1), kind).reshape(-1)
        bits = ", ".join(str(int(v)) for v in found[::32].view(np.uint32))
        total = float(sum(float(v) * (i % 7 + 1) for i, v in enumerate(found)))
        text = blocks.tobytes().hex()
        lines = '"\n      + "'.join(text[i : i + 112] for i in range(0, len(text), 112))
        print(f'  (\n    "{name}",\n    "{lines}",\n    [{bits}], {total!r}\n  ),')
    print("]")


{"header": header, "values": values}[sys.argv[1]]()
