"""Writes Tests/TokenizersTests/GoldenFixture.swift: small tokenizers and what the Hugging Face library makes of awkward texts.

Run with `pip install tokenizers==0.23.3 sentencepiece==0.2.3`, then `python tools/golden/tokenizers.py`. Nothing is random: a second run writes the same file.
"""

import base64
import contextlib
import io
import json
import pathlib
import sys
import tempfile

# The folder of this script stands first on the path, and the script has the library's name.
sys.path.pop(0)
import sentencepiece  # noqa: E402
import tokenizers  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # noqa: E402

VERSION = "0.23.3"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
LETTERS = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+SUFFIX|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*SUFFIX"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = LETTERS.replace("SUFFIX", "") + r"|\p{N}" + REST
O200K = LETTERS.replace("SUFFIX", r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?") + r"|\p{N}{1,3}" + REST

TEXTS = [
    "",
    " ",
    "Hello world  I'm 12345 years\n\n old!! d\u00e9j\u00e0  ",
    "I'LL it's THEY'RE a'lL x'\u017f y",
    "x=1+2;\r\n\tfoo_bar  \n",
    "\u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8 \U0001f600\U0001f44d\U0001f3fd 3.14",
    "   leading",
    "a\u00a0b \ufb01 e\u0301 \u00c5 A\u030a \u212b",
    "a\u000bb\u000b c a\u0085b \u0085! a\u3000\u3000b a\u2028 b a\u180eb",
    "\u200b\u200bx \u00bd\u2177\u0663 \u0e01\u0e34\u0e19 HTTPServer camelCase \u01c5a",
    "the the they then there THE\x00\x7f\u00ad",
    "<s>ab</s> <pad>  <pad>x <pad> ab<mask>word <mask> wordword word \u00c9t\u00c9 <s><s>",
    "-a--b---ab-",
    "a  b",
    "\u2581a \u2581\u2581 b\u2581",
    "\u0391\u03a3 \u0130I \u1e9e \u01c4",
]
# For what looks at single characters only.
SHORT = ["", "-a--b---ab-", "aabba bb", " \u00e9-e\u0301 ", "b\u4e00\u4e01\u4e02b", "\u00e9\u4e00\u00e9\u4e01ae\u00e9e\u4e00"]
SPACES = [
    "", " ", "   leading", "\u00e9<s>ab</s> ab<s><s> ", "a  b", "ab ab\n", "\u2581a \u2581\u2581 b\u2581", "\U0001f600 a\x00b",
    "</s> ab",
]
UNICODE = TEXTS[7:8] + TEXTS[15:] + ["\u0301a \uac00\u1100\u1161 \u0344 \u2460\u00b2"]

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
TO_BYTES = dict(BYTE_LEVEL, use_regex=False)


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(key, *steps):
    return {"type": "Sequence", key: list(steps)}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def metaspace(scheme, splits):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": splits}


def added(id, content, **flags):
    token = {"id": id, "content": content, "single_word": False, "lstrip": False, "rstrip": False}
    return token | {"normalized": False, "special": True} | flags


def template(*names):
    pieces = [
        {"Sequence": {"id": "A", "type_id": 0}} if name == "A" else {"SpecialToken": {"id": name[0], "type_id": 0}}
        for name in names
    ]
    special = {name[0]: {"id": name[0], "ids": [name[1]], "tokens": [name[0]]} for name in names if name != "A"}
    pair = pieces + [{"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": pieces, "pair": pair, "special_tokens": special}


def byte_model():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    return json.loads(tokenizer.to_str())["model"]


def piece_model():
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    tokens += ["\u2581", "a", "b", "\u2581a", "ab", "\u2581ab"]
    return {
        "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
        "vocab": {token: id for id, token in enumerate(tokens)},
        "merges": [["\u2581", "a"], ["a", "b"], ["\u2581a", "b"]],
    }


def letter_model(**options):
    """Every pair of these characters merges, so ids show where pieces end."""
    single = list("ab-et \u2581\u00e9")
    vocab = {token: id for id, token in enumerate(single)}
    merges = []
    for left in single:
        for right in single:
            vocab[left + right] = len(vocab)
            merges.append([left, right])
    return {"type": "BPE", "vocab": vocab, "merges": merges} | options


def word_model():
    tokens = ["[UNK]", "[CLS]", "[SEP]", "the", "th", "##e", "##y", "##re", "hello", "world", "a", "##b", "##a", "d", "##ej", "i", "'", "!", "x",
              "12", "##3", "\u65e5", "\u672c", "e", "##\u0301", "leading", "foo", "_", "bar", "=", "1", "\u00e9"]
    return {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 20,
            "vocab": {token: id for id, token in enumerate(tokens)}}


def score_model(**options):
    """Scores of four decimals, so that no two ways are equal but where they are the same."""
    pieces = ["<unk>", "\u2581", "\u2581a", "a", "b", "ab", "ba", "aab", "-", "--", "e", "\u00e9", "ae", "\u2581the", "th", "t", "h", "l", "ll", "o"]
    scores = [0, -2.5, -3.25, -2.125, -3.5, -4.75, -5.0625, -6.5, -4.25, -6.125, -3.75, -5.25, -6.875, -4.5, -5.5, -4.125, -4.375, -4.625, -6.25, -3.875]
    return {"type": "Unigram", "unk_id": 0, "vocab": [[piece, score] for piece, score in zip(pieces, scores)]} | options


def byte_pieces():
    model = score_model(byte_fallback=True)
    model["vocab"] += [[f"<0x{byte:02X}>", -9.5] for byte in range(256)]
    return model


MODELS = {
    "words": word_model(),
    "scores": score_model(),
    "scores and bytes": byte_pieces(),
    "whole": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "a": 1, "ab": 2, "the": 3}},
    "bytes": byte_model(),
    "pieces": piece_model(),
    "letters": letter_model(),
    "unknown": letter_model(unk_token="-"),
    "fused": letter_model(unk_token="-", fuse_unk=True),
    "partial": {
        "type": "BPE", "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
        "vocab": {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, "a": 3, "e": 4, "ae": 5}, "merges": ["a e"],
    },
}

SENTENCEPIECE_DECODER = sequence(
    "decoders", replace("\u2581", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
)
LEGACY = sequence("normalizers", {"type": "Prepend", "prepend": "\u2581"}, replace(" ", "\u2581"))
SPECIAL = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
FLAGS = [
    added(400, "<pad>", lstrip=True, rstrip=True),
    added(401, "<mask>", lstrip=True, special=False),
    added(402, "word", single_word=True, normalized=True, special=False),
    added(403, "\u00c9T\u00c9", normalized=True, special=False),
    added(404, "<s>"),
    added(405, "<s><s>"),
    added(406, "  ", normalized=True, special=False),
]


def case(name, model, texts=TEXTS, **parts):
    return {"name": name, "model": model, "texts": texts, "parts": parts}


def byte_case(name, *steps, **parts):
    return case(name, "bytes", pre_tokenizer=sequence("pretokenizers", *steps), decoder=BYTE_LEVEL, **parts)


CASES = [
    byte_case("gpt-2", BYTE_LEVEL, post_processor=BYTE_LEVEL),
    byte_case(
        "roberta", dict(BYTE_LEVEL, add_prefix_space=True),
        post_processor={
            "type": "RobertaProcessing", "cls": ["x", 7], "sep": ["y", 8], "trim_offsets": True, "add_prefix_space": True,
        },
    ),
    byte_case(
        "llama-3", split(LLAMA3), TO_BYTES, added_tokens=[added(500, "<s>"), added(501, "</s>")],
        post_processor=sequence("processors", BYTE_LEVEL, template(("<s>", 500), "A", ("</s>", 501))),
    ),
    byte_case("qwen", split(QWEN), TO_BYTES, normalizer={"type": "NFC"}),
    byte_case("tekken", split(TEKKEN), TO_BYTES),
    byte_case("o200k", split(O200K), TO_BYTES),
    byte_case("smollm", {"type": "Digits", "individual_digits": True}, BYTE_LEVEL),
    byte_case("digit runs", {"type": "Digits", "individual_digits": False}, BYTE_LEVEL),
    byte_case("bytes before a split", TO_BYTES, split("\u0120", "MergedWithNext", kind="String")),
    byte_case("words", split(r"\b\w+\b|[^\w\s]", "Removed", True), TO_BYTES),
    byte_case("added tokens", BYTE_LEVEL, normalizer={"type": "Lowercase"}, added_tokens=FLAGS),
    case("llama-2", "pieces", SPACES, normalizer=LEGACY, added_tokens=SPECIAL, decoder=SENTENCEPIECE_DECODER,
         post_processor=template(("<s>", 1), "A")),
    case("llama-2 resaved", "pieces", SPACES, pre_tokenizer=metaspace("first", False), added_tokens=SPECIAL,
         decoder=SENTENCEPIECE_DECODER, post_processor=template(("<s>", 1), "A")),
    case("metaspace always", "pieces", SPACES, pre_tokenizer=metaspace("always", True), decoder=metaspace("always", True)),
    case("metaspace never", "pieces", SPACES, pre_tokenizer=metaspace("never", True), decoder=metaspace("never", True)),
    case("metaspace after strip", "pieces", SPACES, normalizer={"type": "Strip", "strip_left": True, "strip_right": True},
         pre_tokenizer=metaspace("first", True)),
    case("space collapse", "pieces", SPACES, normalizer=sequence(
        "normalizers", replace(" {2,}", " ", "Regex"), replace(r"\A +| +\z", "", "Regex"), *LEGACY["normalizers"])),
    case("no unknown token", "letters", SHORT),
    case("unknown token", "unknown", SHORT),
    case("fused unknown token", "fused", SHORT),
    case("partial byte fallback", "partial", SHORT),
]
BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
WORD_DECODER = {"type": "WordPiece", "prefix": "##", "cleanup": True}
CASES += [
    case("bert", "words", normalizer=BERT, pre_tokenizer={"type": "BertPreTokenizer"}, decoder=WORD_DECODER,
         post_processor={"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}),
    case("bert cased", "words", normalizer=dict(BERT, lowercase=False), pre_tokenizer={"type": "BertPreTokenizer"}, decoder=WORD_DECODER),
    case("words of letters", "words", pre_tokenizer={"type": "Whitespace"}, decoder=dict(WORD_DECODER, cleanup=False)),
    case("punctuation", "words", pre_tokenizer=sequence(
        "pretokenizers", {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Contiguous"})),
    case("word level", "whole", SPACES, pre_tokenizer={"type": "CharDelimiterSplit", "delimiter": " "}),
    case("unigram", "scores", SPACES + SHORT, pre_tokenizer=metaspace("always", True), decoder=metaspace("always", True)),
    case("unigram, whole text", "scores", SPACES + SHORT, normalizer=LEGACY, decoder=SENTENCEPIECE_DECODER),
    case("unigram and bytes", "scores and bytes", SPACES + SHORT, normalizer=LEGACY, decoder=SENTENCEPIECE_DECODER),
    case("nmt", "scores", TEXTS, normalizer=sequence("normalizers", {"type": "Nmt"}, {"type": "NFKC"}), pre_tokenizer=metaspace("first", True)),
    case("bytes in the normalizer", "bytes", SPACES, normalizer={"type": "ByteLevel"}, decoder=BYTE_LEVEL),
]
for form in ["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents"]:
    CASES.append(byte_case(form, BYTE_LEVEL, texts=UNICODE, normalizer={"type": form}))
for behavior in ["Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"]:
    for invert in [False, True]:
        name = f"{behavior}{' inverted' if invert else ''}"
        CASES.append(case(name, "letters", SHORT, pre_tokenizer=split("-", behavior, invert, "String")))
        CASES.append(case(name + ", with empty matches", "letters", SHORT, pre_tokenizer=split("b*", behavior, invert)))


def run(case):
    document = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": MODELS[case["model"]]}
    document |= case["parts"]
    tokenizer = Tokenizer.from_str(json.dumps(document))
    # Only what the library numbers as the file says: it renumbers added tokens that leave a gap after the vocabulary.
    numbers = {token["content"]: tokenizer.token_to_id(token["content"]) for token in document["added_tokens"]}
    for token in case["parts"].get("added_tokens", []):
        token["id"] = numbers[token["content"]]
    processor = case["parts"].get("post_processor")
    if processor and processor["type"] == "Sequence":
        for name, token in processor["processors"][1]["special_tokens"].items():
            token["ids"] = [numbers[name]]
        tokenizer = Tokenizer.from_str(json.dumps(document))
    ids = [tokenizer.encode(text).ids for text in case["texts"]]
    texts = [tokenizer.decode(sample, skip_special_tokens=False) for sample in ids]
    # Text that comes back unchanged is the rule and not worth the space.
    decoded = [None if text == decoded else decoded for text, decoded in zip(case["texts"], texts)]
    if case["texts"] is TEXTS:
        case = case | {"texts": None}
    return case | {"ids": ids, "decoded": decoded}


def trained():
    """SentencePiece models of every kind that is read, with a small character map, and what SentencePiece makes of the texts."""
    rules = "41 30A\tC5\nFB01\t66 69\n2460\t31\nA0\t20\n3000\t20\n"
    texts = [text for text in TEXTS + SPACES if not any(mark in text for mark in ["<s>", "</s>", "<unk>"])]
    cases = []
    for kind in ["unigram", "bpe"]:
        for name, options in {
            "map, collapsed spaces": {"normalization_rule_tsv": "rules.tsv", "user_defined_symbols": ["<tool>", "3.14"]},
            "bytes, all spaces": {
                "normalization_rule_name": "identity", "byte_fallback": True, "remove_extra_whitespaces": False,
                "allow_whitespace_only_pieces": True},
            "no space before": {"normalization_rule_name": "identity", "add_dummy_prefix": False, "bos_id": -1},
        }.items():
            # The model keeps the file's name, so it has to be the same in every run.
            with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
                pathlib.Path("rules.tsv").write_text(rules, encoding="utf8")
                model = io.BytesIO()
                size = 360 if options.get("byte_fallback") else 110
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter([text for text in TEXTS * 3 if "\0" not in text]), model_writer=model, vocab_size=size,
                    model_type=kind, num_threads=1, minloglevel=2, character_coverage=0.98, hard_vocab_limit=False, **options)
            processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
            cases.append({
                "name": f"{kind}, {name}", "model": base64.b64encode(model.getvalue()).decode(), "texts": texts,
                "ids": [processor.encode(text) for text in texts],
            })
    return cases


def wrap(value, width=132):
    """JSON as lines of a Swift raw string, joined by its line continuation."""
    text = json.dumps(value, separators=(",", ":"))
    return "\\#\n".join("    " + text[start:start + width] for start in range(0, len(text), width))


def main():
    if tokenizers.__version__ != VERSION:
        sys.exit(f"tokenizers {VERSION} is needed, not {tokenizers.__version__}: pip install tokenizers=={VERSION}")
    root = pathlib.Path(__file__).resolve().parents[2]
    fixture = {"texts": TEXTS, "models": MODELS, "cases": [run(case) for case in CASES]}
    comment = (
        "/// `ids` are those of `encode`, special tokens included, for each of the case's `texts` or else of all; `decoded` is\n"
        "/// the text they give back, null where that is the text itself.\n")
    write(root, "GoldenFixture", f"tokenizers {VERSION}", comment, fixture)
    comment = "/// `model` is a `tokenizer.model` in base64, `ids` are those of the texts without tokens around them.\n"
    write(root, "SentencePieceFixture", f"sentencepiece {sentencepiece.__version__}", comment, {"cases": trained()})


def write(root, name, library, comment, fixture):
    (root / "Tests" / "TokenizersTests" / f"{name}.swift").write_text(
        f"/// Written by tools/golden/tokenizers.py with {library}; change that script, not this file.\n"
        f"///\n{comment}enum {name} {{\n"
        '  static let json = #"""\n' + wrap(fixture) + '\n    """#\n}\n',
        encoding="utf8",
    )


if __name__ == "__main__":
    main()
