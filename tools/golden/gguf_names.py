"""What the gguf package calls the tensors of every architecture that this package writes.

  gguf_names.py SOURCES OUT.json

SOURCES is `Sources/CheckpointIO/GGUF`, where the names of the architectures are looked up. OUT has, for each of them, the tensors that llama.cpp
knows, and what becomes of modules of Hugging Face's checkpoints, as far as SOURCES mentions them; block 0 stands for all, and the number of an
expert is left out. Needs `pip install gguf==0.19.0`.
"""
import json
import pathlib
import re
import sys

from gguf import MODEL_ARCH_NAMES, MODEL_TENSORS, TENSOR_NAMES, get_tensor_name_map

STRING = re.compile(r'"([\w.*-]+)"')
BLOCK = re.compile(r"^(model\.layers|transformer\.h|h|transformer\.blocks|gpt_neox\.layers)\.0\.")


def main(sources, out):
    text = "".join(path.read_text() for path in sorted(pathlib.Path(sources).glob("*.swift")))
    mentioned = {string.replace("*.", "") for string in STRING.findall(text)}
    # Before BLOOM's names the converters leave the outermost module out.
    mentioned |= {string.removeprefix("transformer.") for string in mentioned}
    # The linears of experts are put together from two strings.
    for prefix in re.findall(r'prefix: "([\w.]+)", linears', text):
        mentioned |= {prefix + linear for linears in re.findall(r"linears: \(([^)]*)\)", text) for linear in STRING.findall(linears)}
    known = {name: architecture for architecture, name in MODEL_ARCH_NAMES.items()}
    named = sorted(name for name in known if f'"{name}", modelTypes:' in re.sub(r"\s+", " ", text))
    found = {}
    for name in named:
        architecture = known[name]
        mapping = get_tensor_name_map(architecture, 1).mapping
        found[name] = {
            "tensors": sorted(TENSOR_NAMES[tensor].format(bid=0) for tensor in MODEL_TENSORS[architecture]),
            "modules": {module: gguf for module, (_, gguf) in sorted(mapping.items()) if BLOCK.sub("", module) in mentioned
                and not module.startswith("blk.")},
        }
    if not found:
        sys.exit(f"no architectures are named in {sources}")
    lines = [f"{json.dumps(name)}: {json.dumps(value, separators=(',', ':'))}" for name, value in found.items()]
    command = "gguf_names.py Sources/CheckpointIO/GGUF Tests/CheckpointIOTests/Fixtures/gguf-names.json"
    head = {"tool": "gguf 0.19.0", "command": command}
    pathlib.Path(out).write_text(json.dumps(head)[:-1] + ', "architectures": {\n' + ",\n".join(lines) + "\n}}\n")
    print(len(found), "architectures:", ", ".join(named))


main(*sys.argv[1:])
