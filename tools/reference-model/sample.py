"""Sample calibration and evaluation text from a causal language model, with its own tokenizer.

  sample.py MODEL_DIR OUT_DIR --seed S [--tokens 65536 32768] [--length 512] [--batch 36] [--start TEXT] [--threads 1]

Writes OUT_DIR/calibration.txt and OUT_DIR/evaluation.txt: at least the given numbers of tokens once the file is tokenized again
without special tokens (sampled text is often spelled with fewer tokens than it was drawn with, so the count is taken from the file).
Every document is one ancestral sample at temperature 1 in float32: no truncation of the distribution, the special tokens excluded,
`--length` tokens long. Documents are separated by a blank line and are valid UTF-8: bytes that form no character are dropped, and so are
control characters other than newline and tab (a small model draws one now and then, and a carriage return does not survive every reader).

A document starts from `--start`, a newline unless told otherwise, which is not part of it. pocket-llama is trained on windows cut
anywhere from plain text and never sees its BOS token, so BOS would be an untrained input; a newline is a common one and leaves the
model to choose what comes next. `--start '<|begin_of_text|>'` starts a model that was trained with that token.

The two files come from different random streams. One thread gives the same files for the same seed and library versions.
"""
import argparse
import os
import re
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

DROPPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffd]")


@torch.inference_mode()
def draw(model, start, length, batch, banned, generator):
    """`batch` sequences of `length` token ids after `start`."""
    ids = torch.tensor([start] * batch)
    cache, drawn = None, []
    for _ in range(length):
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        logits = output.logits[:, -1].float()
        logits[:, banned] = -torch.inf
        ids = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        drawn.append(ids)
    return torch.cat(drawn, 1).tolist()


def write(path, wanted, sample, tokenizer):
    """Documents from `sample()` until the file's own tokens are enough. Returns the counts of documents, drawn and file tokens."""
    documents, drawn, count = [], 0, 0
    while count < wanted:
        for ids in sample():
            document = DROPPED.sub("", tokenizer.decode(ids)).strip()
            drawn += len(ids)
            if document:
                documents.append(document)
                count += len(tokenizer.encode(document, add_special_tokens=False).ids)
            if count >= wanted:  # by the documents, about; now by the file
                text = "\n\n".join(documents) + "\n"
                count = len(tokenizer.encode(text, add_special_tokens=False).ids)
                if count >= wanted:
                    break
    with open(path, "wb") as file:
        file.write(text.encode())
    return len(documents), drawn, count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--tokens", type=int, nargs=2, default=[65_536, 32_768], metavar=("CALIBRATION", "EVALUATION"))
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=36)
    parser.add_argument("--start", default="\n")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    tokenizer = Tokenizer.from_file(os.path.join(arguments.model, "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    start = tokenizer.encode(arguments.start, add_special_tokens=False).ids
    banned = [id for id, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    banned += range(tokenizer.get_vocab_size(), model.config.vocab_size)
    os.makedirs(arguments.out, exist_ok=True)
    for stream, (name, wanted) in enumerate(zip(("calibration", "evaluation"), arguments.tokens)):
        generator = torch.Generator().manual_seed(2 * arguments.seed + stream)
        began, path = time.time(), os.path.join(arguments.out, name + ".txt")
        documents, drawn, count = write(
            path, wanted, lambda: draw(model, start, arguments.length, arguments.batch, banned, generator), tokenizer)
        print(f"{path}: {count} tokens, {documents} documents, {os.path.getsize(path)} bytes,"
              f" from {drawn} drawn tokens in {time.time() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
