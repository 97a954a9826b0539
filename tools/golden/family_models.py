"""Write tiny models of every supported family as checkpoints, beside tokens to calibrate and score them with.

  family_models.py OUT_DIR [CASE...]

Needs what families.py needs. `tools/identical OLD NEW --models OUT_DIR` runs two builds of compress on them.
"""
import argparse
import json
import os
import sys

sys.path.append(sys.path.pop(0))  # this folder has a tokenizers.py of its own, which must not be found first

import numpy as np
import transformers

from families import CASES, build


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all when none is named")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in arguments.cases or CASES:
        folder = os.path.join(arguments.out, name)
        os.makedirs(folder, exist_ok=True)
        build(CASES[name], folder)
    generator = np.random.default_rng(7)
    for name, count in [("calibration", 48 * 32), ("evaluation", 8 * 32)]:
        np.save(os.path.join(arguments.out, name + ".npy"), generator.integers(0, 60, count, dtype=np.int32))
    print(json.dumps({"models": len(arguments.cases or CASES), "folder": arguments.out}))


if __name__ == "__main__":
    main()
