"""Compares `compress tokenize` with the `tokenizers` wheel on every code point: what each normalizer makes of it, and how each pre-tokenizer cuts
around it.

    pip install tokenizers==0.23.3
    python -P tools/tokenizer-fuzz/code_points.py --compress .build/release/compress [NAME...]

Without names all of them, which takes minutes each. Exit status 1 and the first differing texts where there are any.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import unicodedata

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

SCALARS = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
NORMALIZERS = {
    "nfc": normalizers.NFC(), "nfd": normalizers.NFD(), "nfkc": normalizers.NFKC(), "nfkd": normalizers.NFKD(),
    "lowercase": normalizers.Lowercase(), "strip-accents": normalizers.StripAccents(), "nmt": normalizers.Nmt(), "strip": normalizers.Strip(),
    "bert": normalizers.BertNormalizer(), "bert-cased": normalizers.BertNormalizer(lowercase=False),
    "bert-accents": normalizers.BertNormalizer(lowercase=False, strip_accents=True),
    "bert-lowercase": normalizers.BertNormalizer(lowercase=True, strip_accents=False),
}
EXPRESSIONS = json.load(open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "expressions.json"), encoding="utf8"))
PRE_TOKENIZERS = {
    "whitespace": pre_tokenizers.Whitespace(), "whitespace-split": pre_tokenizers.WhitespaceSplit(), "punctuation": pre_tokenizers.Punctuation(),
    "bert-pieces": pre_tokenizers.BertPreTokenizer(), "digits": pre_tokenizers.Digits(individual_digits=True),
    **{name: pre_tokenizers.Split(Regex(expression), "isolated") for name, expression in EXPRESSIONS.items()},
}


def ours(command, tokenizer, texts):
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(folder + "/tokenizer.json")
        with open(folder + "/texts.jsonl", "w", encoding="utf8") as file:
            file.writelines(json.dumps(text) + "\n" for text in texts)
        output = subprocess.run(
            [*command, "tokenize", folder + "/tokenizer.json", folder + "/texts.jsonl", "--decode", "--json"], check=True, stdout=subprocess.PIPE)
    answers = [json.loads(line) for line in output.stdout.decode("utf8").split("\n")[:-1]]
    assert len(answers) == len(texts), f"{len(answers)} answers to {len(texts)} texts"
    return answers


def normalizes(command, normalizer):
    """Bytes as tokens, so that what is decoded is what was normalized. Every mark is tried beside one of each combining class."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: id for id, character in enumerate(alphabet)}, []))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = SCALARS + ["a" + scalar + "\u0323" for scalar in SCALARS] + [scalar + "\u0301" for scalar in SCALARS]
    classes = {unicodedata.combining(scalar): scalar for scalar in reversed(SCALARS)}
    del classes[0]
    for scalar in SCALARS:
        texts.append(scalar + "\u0334")
        if normalizer.normalize_str(texts[-1]) != normalizer.normalize_str(scalar) + normalizer.normalize_str("\u0334"):
            for mark in classes.values():
                texts += [scalar + mark, mark + scalar]
    answers = ours(command, tokenizer, texts)
    return [(text, normalizer.normalize_str(text), answer["text"]) for text, answer in zip(texts, answers)]


def cuts(command, step):
    """A vocabulary of what stands around a code point, so that ids tell where the cuts are."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2, "ab": 3, " ": 4, "1": 5, "2": 6}, "[UNK]"))
    tokenizer.pre_tokenizer = step
    texts = [before + scalar + after for before, after in [("", ""), ("a", "b"), ("1", "2"), (" ", "b")] for scalar in SCALARS]
    answers = ours(command, tokenizer, texts)
    return [(text, encoding.ids, answer["ids"]) for text, encoding, answer in zip(texts, tokenizer.encode_batch_fast(texts), answers)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join([*NORMALIZERS, *PRE_TOKENIZERS]))
    parser.add_argument("--compress", default=".build/release/compress", type=lambda text: text.split())
    arguments = parser.parse_args()
    failed = False
    for name in arguments.names or [*NORMALIZERS, *PRE_TOKENIZERS]:
        rows = normalizes(arguments.compress, NORMALIZERS[name]) if name in NORMALIZERS else cuts(arguments.compress, PRE_TOKENIZERS[name])
        wrong = [row for row in rows if row[1] != row[2]]
        print(f"{name}: {len(rows)} texts, {len(wrong)} differences", flush=True)
        for text, reference, here in wrong[:5]:
            print(f"  {ascii(text)}: reference {reference!r}, here {here!r}")
        failed = failed or bool(wrong)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
