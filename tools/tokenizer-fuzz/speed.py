"""Times `compress tokenize` and the libraries it is held to, one thread each, on 10 MB of text and on text without a place to cut.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python -P tools/tokenizer-fuzz/speed.py --compress .build/release/compress --text FILE [--text FILE …] TOKENIZER...

The texts are repeated to 10 MB. A TOKENIZER is a tokenizer.json, held to the wheel, or a SentencePiece tokenizer.model, held to sentencepiece; another
tokenizer.model is timed alone. Ours is a whole process less the same process on an empty text. The libraries' time is that of the call alone, on the
whole text at once and line by line, which is faster for the wheel. Text without a place to cut is given four times, as four lines, and the time is
that of one. Medians of three.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def median(run, times=3):
    def timed():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return statistics.median(timed() for _ in range(times))


def ours(command, tokenizer, text, times=1):
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf8", newline="") as file:

        def run():
            command_line = [*command, "tokenize", tokenizer, file.name, "--count", "--no-special-tokens", *options]
            subprocess.run(command_line, check=True, stdout=subprocess.PIPE)

        options = ["--lines"] if times > 1 else []
        run()
        empty = median(run)
        file.write("\n".join([text] * times))
        file.flush()
        return (median(run) - empty) / times


def library(path):
    """Encodes one text, and a list of lines; `None` where no library reads the file."""
    if path.endswith(".json"):
        from tokenizers import Tokenizer

        model = Tokenizer.from_file(path)
        return (lambda text: model.encode(text, add_special_tokens=False), lambda lines: model.encode_batch_fast(lines, add_special_tokens=False))
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_file=path)
    except RuntimeError:
        return None
    return (lambda text: model.encode(text), lambda lines: model.encode(lines, num_threads=1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--compress", default=".build/release/compress", type=lambda text: text.split())
    parser.add_argument("--text", action="append", required=True)
    parser.add_argument("--bytes", type=int, default=10_000_000)
    parser.add_argument("--library-runs", type=int, default=3, help="of the whole text at once, which takes the wheel long")
    parser.add_argument("--hostile", action="append", help="what text without a place to cut repeats; by default ab and a", default=None)
    arguments = parser.parse_args()
    whole = "".join(open(file, encoding="utf8", errors="ignore", newline="").read() for file in arguments.text)
    whole = whole * (1 + arguments.bytes // len(whole.encode()))
    text = whole.encode()[: arguments.bytes].decode("utf8", errors="ignore")
    lines = text.splitlines(keepends=True)
    sizes = [250_000, 500_000, 1_000_000]
    hostile = arguments.hostile or ["ab", "a"]
    print(f"tokenizer | {len(text.encode())} bytes: here, s | library, whole | by lines | ratio | " + " | ".join(f"{h!r} × {sizes}" for h in hostile))
    for tokenizer in arguments.tokenizers:
        here = ours(arguments.compress, tokenizer, text)
        other = library(tokenizer)
        there = [median(lambda: other[0](text), arguments.library_runs), median(lambda: other[1](lines))] if other else []
        ratio = f"{there[0] / here:.1f}, {there[1] / here:.1f}" if there else "–"
        row = [f"{here:.2f}", *[f"{seconds:.2f}" for seconds in there or [0, 0]], ratio]
        for unit in hostile:
            row.append(" ".join(f"{ours(arguments.compress, tokenizer, unit * (size // len(unit.encode())), 4):.3f}" for size in sizes))
        print("/".join(tokenizer.split("/")[-2:]) + " | " + " | ".join(row), flush=True)


if __name__ == "__main__":
    main()
