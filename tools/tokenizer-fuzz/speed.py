"""Times `compress tokenize` and the `tokenizers` wheel, one thread each, on one text of 10 MB and on 1 MB without a place to cut.

    python tools/tokenizer-fuzz/speed.py --compress .build/release/compress --text FILE [--text FILE …] TOKENIZER.json...

The texts are repeated to 10 MB. Ours is a whole process less the same process on an empty text; the wheel's is `encode` alone.
"""

import argparse
import os
import subprocess
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from tokenizers import Tokenizer  # noqa: E402


def ours(command, tokenizer, text):
    def run(text):
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf8") as file:
            file.write(text)
            file.flush()
            start = time.perf_counter()
            subprocess.run([*command, "tokenize", tokenizer, file.name, "--count", "--no-special-tokens"], check=True, stdout=subprocess.PIPE)
            return time.perf_counter() - start

    return min(run(text) for _ in range(2)) - min(run("") for _ in range(2))


def reference(tokenizer, text):
    model = Tokenizer.from_file(tokenizer)
    start = time.perf_counter()
    model.encode(text, add_special_tokens=False)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--compress", default=".build/release/compress", type=lambda text: text.split())
    parser.add_argument("--text", action="append", required=True)
    arguments = parser.parse_args()
    whole = "".join(open(file, encoding="utf8", errors="ignore").read() for file in arguments.text)
    whole = whole * (1 + 10_000_000 // len(whole.encode()))
    text = whole.encode()[:10_000_000].decode("utf8", errors="ignore")
    print("tokenizer | 10 MB: here, s | wheel, s | ratio | 1 MB of \"ab\": here, s | wheel, s | a quarter of it: here, s")
    for tokenizer in arguments.tokenizers:
        here, there = ours(arguments.compress, tokenizer, text), reference(tokenizer, text)
        long = "ab" * 500_000
        hostile, quarter, other = ours(arguments.compress, tokenizer, long), ours(arguments.compress, tokenizer, long[:250_000]), reference(tokenizer, long)
        name = "/".join(tokenizer.split("/")[-2:])
        print(f"{name} | {here:.2f} | {there:.2f} | {there / here:.1f} | {hostile:.2f} | {other:.2f} | {quarter:.2f}", flush=True)


if __name__ == "__main__":
    main()
