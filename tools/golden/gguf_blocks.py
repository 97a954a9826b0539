"""Blocks of the numpy quantizers and dequantizers in the `gguf` package, as a Swift fixture for Tests/TensorsTests.

    python tools/golden/gguf_blocks.py > Tests/TensorsTests/NumpyBlocksFixture.swift

Needs `pip install gguf==0.19.0`. Weights are x = ((s >> 8) - 2**23) / 2**23 over s = 1664525 * s + 1013904223 mod 2**32 from 2024, in three
rows of 96, the second scaled by 1/1024 and the third all zero but for its last element.
"""

import sys

import gguf
import numpy as np

QUANTIZERS = ["Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"]
DEQUANTIZERS = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"]


def states(seed, count):
    for _ in range(count):
        seed = (1664525 * seed + 1013904223) & 0xFFFFFFFF
        yield seed


def weights():
    x = np.array([((s >> 8) - 8388608) / 8388608 for s in states(2024, 3 * 96)], dtype=np.float32).reshape(3, 96)
    x[1] /= 1024
    x[2, :-1] = 0
    return x


def bytes_of(name):
    """A block of arbitrary bytes with moderate scales: every half in it lies between 2**-7 and 2**-3."""
    kind = gguf.GGMLQuantizationType[name]
    _, size = gguf.GGML_QUANT_SIZES[kind]
    block = np.array([s >> 24 for s in states(77, size)], dtype=np.uint8)
    halves = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}
    for at in halves.get(name, []):
        block[at + 1] = 0x20 | (block[at + 1] & 0x0F)
    if name == "MXFP4":
        block[0] = 120
    return block


def lines(text, width=112):
    return '"\n      + "'.join(text[i : i + width] for i in range(0, len(text), width))


def main():
    out = sys.stdout.write
    out("/// Blocks that the numpy quantizers of gguf 0.19.0 write for the rows tools/golden/gguf_blocks.py describes.\n")
    out("let numpyBlocks: [(type: String, bytes: String)] = [\n")
    for name in QUANTIZERS:
        blocks = gguf.quants.quantize(weights(), gguf.GGMLQuantizationType[name])
        out(f'  (\n    "{name}",\n    "{lines(blocks.tobytes().hex())}"\n  ),\n')
    out("]\n\n/// Blocks of arbitrary bytes, and the bit patterns of what gguf 0.19.0 reads in them at every 32nd element and the last.\n")
    out("let numpyValues: [(type: String, block: String, values: [UInt32])] = [\n")
    for name in DEQUANTIZERS:
        block = bytes_of(name)
        values = gguf.quants.dequantize(block.reshape(1, -1), gguf.GGMLQuantizationType[name]).reshape(-1)
        picked = list(values[::32]) + [values[-1]]
        bits = ", ".join(f"0x{np.float32(v).view(np.uint32):08X}" for v in picked)
        out(f'  (\n    "{name}",\n    "{lines(block.tobytes().hex())}",\n    [{bits}]\n  ),\n')
    out("]\n")


main()
