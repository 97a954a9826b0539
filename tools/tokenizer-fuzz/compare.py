"""Compares `compress tokenize` with the libraries it is held to, on random Unicode text: ids with special tokens, and what they decode to.

    pip install tokenizers==0.23.3 sentencepiece==0.2.3
    python tools/tokenizer-fuzz/compare.py --compress .build/release/compress [--count 100000] [--seed 1] TOKENIZER...

A TOKENIZER is a tokenizer.json, a model directory, or a SentencePiece tokenizer.model, which is then held to sentencepiece itself. `--trained TEXT`
adds tokenizers of every kind, trained on the spot: WordPiece with BERT's steps, Unigram, SentencePiece models with its character map, and the
five regular expressions. Exit status 1 and the first differing texts where there are any. The same seed gives the same texts.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

RANGES = [
    (0x20, 0x7E), (0x00, 0x1F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0xE00, 0xEFF),
    (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3),
    (0xE000, 0xE0FF), (0xF900, 0xFAFF), (0xFE00, 0xFFFF), (0x10000, 0x11FFF), (0x1D400, 0x1D7FF), (0x1F000, 0x1FAFF),
    (0x20000, 0x323AF), (0xE0000, 0xE01EF), (0x80, 0x10FFFF),
]
SNIPPETS = [
    " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", "'s", "'S", "'ll", "'RE", "'\u017f", "don't", "I'm", "12345", "3.14", "HTTPServer", "camelCase",
    "\u00e9", "e\u0301", "\u2581", " \u2581", "<s>", "</s>", "<unk>", "<|endoftext|>", "<0x41>", "the", "The", " and", "ing", "##ing", "[CLS]",
    "[UNK]", "\u4f60\u597d", "\U0001f600\U0001f44d\U0001f3fd", "a/b/", "//\n", "...", "--", "==", "aaaa", "aaaaaaa", "\u00a0", "\u3000", "\u200b", "\ufeff",
    "\u00ad", "\ufb01", "\u2460", "\u0130", "\u1e9e", "\u01c5", "\uac00\u11a8", "foo_bar()", "    return x;\n", "https://example.com/a?b=c&d=1",
]


def texts(count, seed, words):
    draw = random.Random(seed)

    def character():
        low, high = draw.choice(RANGES)
        while True:
            code = draw.randint(low, high)
            if not 0xD800 <= code < 0xE000:
                return chr(code)

    for _ in range(count):
        parts = []
        for _ in range(draw.choice([1, 2, 4, 8, 16, 32])):
            kind = draw.random()
            if kind < 0.35:
                parts.append(draw.choice(words))
            elif kind < 0.6:
                parts.append(draw.choice(SNIPPETS))
            elif kind < 0.7:
                parts.append(chr(draw.randint(0x20, 0x7E)) * draw.randint(1, 9))
            else:
                parts += [character() for _ in range(draw.randint(1, 4))]
            if draw.random() < 0.4:
                parts.append(" ")
        yield "".join(parts)


class Reference:
    """What a tokenizer is held to: ids, and text of ids."""

    def __init__(self, path):
        self.path = path
        if path.endswith(".model"):
            import sentencepiece

            self.model = sentencepiece.SentencePieceProcessor(model_file=path)
            # Control tokens are cut out of text here, and not there; the texts leave them out.
            self.left_out = [self.model.id_to_piece(i) for i in range(len(self.model)) if self.model.is_control(i) or self.model.is_unknown(i)]
        else:
            from tokenizers import Tokenizer

            file = os.path.join(path, "tokenizer.json") if os.path.isdir(path) else path
            self.model = Tokenizer.from_file(file)
            self.model.no_truncation()
            self.model.no_padding()
            self.left_out = []

    def accepts(self, text):
        return not any(token in text for token in self.left_out)

    def encode(self, text):
        return self.model.encode(text).ids if not self.left_out else self.model.encode(text, out_type=int)

    def decode(self, ids):
        return None if self.left_out else self.model.decode(ids, skip_special_tokens=False)


def train(folder, corpus):
    """Tokenizers of the kinds for which no file is at hand."""
    import sentencepiece
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    found = []

    def save(name, tokenizer):
        path = os.path.join(folder, name + ".json")
        tokenizer.save(path)
        found.append(path)

    bert = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    bert.normalizer = normalizers.BertNormalizer()
    bert.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    bert.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    bert.train([corpus], trainers.WordPieceTrainer(vocab_size=4000, special_tokens=special, show_progress=False))
    bert.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    save("wordpiece-bert", bert)
    bert.normalizer = normalizers.BertNormalizer(lowercase=False)
    bert.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    save("wordpiece-cased", bert)

    unigram = Tokenizer(models.Unigram())
    unigram.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=4000, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False)
    unigram.train([corpus], trainer)
    save("unigram", unigram)

    for kind in ["unigram", "bpe"]:
        for name, options in {
            "nmt_nfkc": {"user_defined_symbols": ["<tool>", "\u2581\u2581\u2581"]},
            "identity": {"byte_fallback": True, "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True},
        }.items():
            prefix = os.path.join(folder, f"sentencepiece-{kind}-{name}")
            sentencepiece.SentencePieceTrainer.train(
                input=corpus, model_prefix=prefix, vocab_size=3000, model_type=kind, normalization_rule_name=name, minloglevel=2,
                character_coverage=0.999, num_threads=1, **options)
            found.append(prefix + ".model")

    expressions = json.load(open(os.path.join(os.path.dirname(__file__), "expressions.json"), encoding="utf8"))
    for name, expression in expressions.items():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        tokenizer.train([corpus], trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False))
        save("pattern-" + name, tokenizer)
    for form in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]:
        tokenizer.normalizer = getattr(normalizers, form)()
        save("form-" + form, tokenizer)
    return found


def compare(path, arguments, words):
    reference = Reference(path)
    samples = [text for text in texts(arguments.count, arguments.seed, words) if reference.accepts(text)]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf8") as file:
        for text in samples:
            file.write(json.dumps(text) + "\n")
        file.flush()
        command = [*arguments.compress, "tokenize", path, file.name, "--decode", "--json"]
        command += ["--no-special-tokens"] if reference.left_out else []
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.decode("utf8")
    answers = [json.loads(line) for line in output.split("\n")[:-1]]
    assert len(answers) == len(samples), f"{len(answers)} answers to {len(samples)} texts"
    wrong = 0
    for text, answer in zip(samples, answers):
        ids = list(reference.encode(text))
        decoded = reference.decode(ids)
        if ids != answer["ids"] or (decoded is not None and decoded != answer["text"]):
            wrong += 1
            if wrong <= arguments.show:
                print(f"  {text!r}\n    reference {ids}\n    here      {answer['ids']}")
                if decoded is not None and decoded != answer["text"]:
                    print(f"    reference {decoded!r}\n    here      {answer['text']!r}")
    print(f"{os.path.basename(os.path.normpath(path))}: {len(samples)} texts, {wrong} differences", flush=True)
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizers", nargs="*")
    parser.add_argument("--compress", default=".build/release/compress", type=lambda text: text.split())
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=5)
    parser.add_argument("--trained", metavar="TEXT", help="also train tokenizers on this text")
    parser.add_argument("--words", metavar="TEXT", help="words of this text are mixed in")
    arguments = parser.parse_args()
    source = arguments.words or arguments.trained
    words = sorted(set(open(source, encoding="utf8").read(400_000).split())) if source else ["word", "words"]
    with tempfile.TemporaryDirectory() as folder:
        paths = arguments.tokenizers + (train(folder, arguments.trained) if arguments.trained else [])
        print(f"Unicode {unicodedata.unidata_version} in Python, seed {arguments.seed}", flush=True)
        sys.exit(1 if sum([compare(path, arguments, words) for path in paths]) else 0)


if __name__ == "__main__":
    main()
