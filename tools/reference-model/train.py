"""Train pocket-llama, the reference model of this project, on plain text.

  train.py OUT_DIR --text FILE... --init DIR [--tokens 25e6] [--batch 16] [--lr 1.5e-3]

Needs torch, transformers and tokenizers. `--init` names a model directory: its config.json and tokenizer.json are used, and its
weights where it has any. The learning rate warms up, stays, and falls linearly to zero over the last fifth of the tokens, so a run
can be stopped at any time and finished early: it resumes from OUT_DIR/state.pt, and a smaller `--tokens` brings the fall forward.
OUT_DIR becomes an ordinary Hugging Face directory in BF16. Two CPU cores reach 2,000 to 3,000 tokens a second.
"""
import argparse
import json
import os
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning at barriers is ten times slower when the cores are shared

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out")
parser.add_argument("--text", nargs="+", required=True)
parser.add_argument("--init", required=True)
parser.add_argument("--tokens", type=float, default=25e6)
parser.add_argument("--sequence", type=int, default=256)
parser.add_argument("--batch", type=int, default=16)
parser.add_argument("--lr", type=float, default=1.5e-3)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(arguments.seed)
os.makedirs(arguments.out, exist_ok=True)
tokenizer = Tokenizer.from_file(os.path.join(arguments.init, "tokenizer.json"))
ids = []
for path in arguments.text:
    text = open(path, encoding="utf-8", errors="replace").read()
    for start in range(0, len(text), 20_000):
        ids += tokenizer.encode(text[start : start + 20_000], add_special_tokens=False).ids
ids = np.array(ids, dtype=np.int64)
print(f"{len(ids)} corpus tokens on {device}", flush=True)

config = LlamaConfig.from_pretrained(arguments.init)
if os.path.exists(os.path.join(arguments.init, "model.safetensors")):
    model = LlamaForCausalLM.from_pretrained(arguments.init, dtype=torch.float32)
else:
    model = LlamaForCausalLM(config)
model.to(device).train()
matrices = [p for p in model.parameters() if p.dim() > 1]
vectors = [p for p in model.parameters() if p.dim() <= 1]
optimizer = torch.optim.AdamW(
    [dict(params=matrices, weight_decay=0.1), dict(params=vectors, weight_decay=0.0)],
    lr=arguments.lr, betas=(0.9, 0.95), fused=True)

seen, state = 0, os.path.join(arguments.out, "state.pt")
if os.path.exists(state):
    saved = torch.load(state, map_location=device, weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    seen = saved["seen"]
rng = np.random.default_rng(arguments.seed + seen)


def save():
    torch.save(dict(model=model.state_dict(), optimizer=optimizer.state_dict(), seen=seen), state + ".tmp")
    os.replace(state + ".tmp", state)
    copy = LlamaForCausalLM(config)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.bfloat16).save_pretrained(arguments.out)
    tokenizer.save(os.path.join(arguments.out, "tokenizer.json"))
    names = dict(tokenizer_class="PreTrainedTokenizerFast", bos_token="<|begin_of_text|>",
                 eos_token="<|end_of_text|>", model_max_length=config.max_position_embeddings)
    with open(os.path.join(arguments.out, "tokenizer_config.json"), "w") as file:
        json.dump(names, file)


average, began, first, last_save = None, time.time(), seen, time.time()
step_tokens = arguments.batch * arguments.sequence
while seen < arguments.tokens:
    warmup = min(1, (seen - first + 1) / 3e5)
    fall = min(1, (arguments.tokens - seen) / (0.2 * arguments.tokens))
    rate = arguments.lr * warmup * fall
    for group in optimizer.param_groups:
        group["lr"] = rate
    starts = rng.integers(0, len(ids) - arguments.sequence - 1, arguments.batch)
    batch = torch.from_numpy(np.stack([ids[s : s + arguments.sequence] for s in starts])).to(device)
    with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
        loss = model(input_ids=batch, labels=batch).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    seen += step_tokens
    value = loss.item()
    average = value if average is None else 0.98 * average + 0.02 * value
    if seen // step_tokens % 50 == 0:
        speed = (seen - first) / (time.time() - began)
        print(f"{seen / 1e6:.2f}M tokens, loss {average:.3f}, rate {rate:.1e}, {speed:.0f} tokens/s", flush=True)
    if time.time() - last_save > 300:
        save()
        last_save = time.time()
save()
print(f"done, loss {average:.3f}", flush=True)
