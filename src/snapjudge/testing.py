"""For tests of code that uses snapjudge: tiny random decoders in the Hugging Face layout, example factories, and a server that runs for a while.

    folder = write_tiny_decoder(tmp_path / "llama", "llama")
    backbone = load_backbone(str(folder))

    with serving(ServeSettings(judges=("toxicity",), port=0)) as address:
        Client(address).judge(...)

The decoders know nothing; they are for checking plumbing and equality, never quality.
"""

import json
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snapjudge.core.example import Example, Provenance

if TYPE_CHECKING:
    from snapjudge.serve.settings import ServeSettings

_WORDS = [
    "the",
    "a",
    "yes",
    "no",
    "is",
    "was",
    "text",
    "toxic",
    "polite",
    "rude",
    "answer",
    "question",
    "input",
    "output",
    "user",
    "said",
    "buy",
    "sell",
    "one",
    "two",
    "three",
    "please",
    "thanks",
    "bad",
    "good",
]
CONTROL = "<|control|>"
_BASE = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256}
_GROUPED = {**_BASE, "num_key_value_heads": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED,
    "qwen3": {**_GROUPED, "head_dim": 8},
    "mistral": {**_GROUPED, "sliding_window": 16},
    "phi3": {**_GROUPED, "pad_token_id": 0},
    "phi3_longrope": {
        **_GROUPED,
        "pad_token_id": 0,
        "original_max_position_embeddings": 128,
        "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 4, "long_factor": [3.0] * 4},
    },
    "gemma2": {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "gemma3_text": {**_GROUPED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16},
    "gpt_neox": {**_BASE, "rotary_pct": 0.5},
    "granite": {**_GROUPED, "logits_scaling": 4.0},
}


def write_tiny_decoder(folder: Path, family: str = "llama", seed: int = 0) -> Path:
    """Write a random decoder of one of FAMILIES, with a byte-level tokenizer, in the Hugging Face layout. Needs the local extra."""
    import torch  # noqa: PLC0415 - tests of light code import this module too
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = AutoConfig.for_model(family.removesuffix("_longrope"), **FAMILIES[family])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # larger than the usual initial weights, so that mistakes show
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.25)
    model.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=sorted(alphabet), special_tokens=["<|endoftext|>", CONTROL], show_progress=False)
    tokenizer.train_from_iterator([" ".join(_WORDS)] * 4, trainer)
    return tokenizer


def make_examples(count: int, *, seed: int = 0, rule: Callable[[str], bool] = lambda text: "buy" in text) -> list[Example]:
    """Distinct random texts in the field `output` with two labels, the first where `rule` holds; about half of them each."""
    rng = random.Random(seed)  # noqa: S311 - test data
    found: dict[str, Example] = {}
    while len(found) < count:
        words = rng.choices(_WORDS, k=rng.randint(5, 14))
        words = [word for word in words if word != "buy"] + ["buy"] * (len(found) % 2)
        rng.shuffle(words)
        text = " ".join(words)
        target = (1.0, 0.0) if rule(text) else (0.0, 1.0)
        made = Example(id=f"e{len(found)}", inputs={"output": text}, target=target, provenance=Provenance(source="made"), where=f"made:{len(found)}")
        found.setdefault(text, made)
    return list(found.values())


@contextmanager
def serving(settings: "ServeSettings", *, patience: float = 120.0) -> Iterator[str]:
    """A real server on a thread of this process, its engines in processes of their own; gives its address once the judges answer. Needs the serve extra.

    Raises:
        What kept it from starting.
    """
    from snapjudge.errors import ServeFailed  # noqa: PLC0415 - tests of light code import this module too
    from snapjudge.serve.run import make_server  # noqa: PLC0415

    told: list[str] = []
    server = make_server(settings, told.append)
    thread = threading.Thread(target=server.run, name="snapjudge-server", daemon=True)
    thread.start()
    try:
        end = time.monotonic() + patience
        while server.service.health.status != "ok" or not told:
            if server.service.failure is not None:
                raise server.service.failure
            if time.monotonic() > end or not thread.is_alive():
                raise ServeFailed("the server did not start", hint="its log has the details")
            time.sleep(0.02)
        yield told[0]
    finally:
        server.stop()
        thread.join(patience)


@contextmanager
def serving_process(*arguments: str, patience: float = 120.0) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`snapjudge serve` in a process of its own, on a free port; gives it and its address once the judges answer.

    It is told to stop at the end, if it still runs.

    Raises:
        ServeFailed: it ended before, or did not answer in time.
    """
    from snapjudge.errors import ServeFailed  # noqa: PLC0415

    command = [sys.executable, "-m", "snapjudge.cli", "serve", *arguments, "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 - our own
    try:
        told, until = "", time.monotonic() + patience
        while process.stdout is not None and not told.rstrip().endswith("}"):
            line = process.stdout.readline()
            if not line:
                raise ServeFailed(f"the server ended with {process.wait()}", hint=" ".join(command))
            told += line
        address = str(json.loads(told)["address"])
        while not _ready(address):
            if time.monotonic() > until or process.poll() is not None:
                raise ServeFailed("the server is not ready", hint=" ".join(command))
            time.sleep(0.02)
        yield process, address
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)
        if process.stdout is not None:
            process.stdout.close()


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=10) as response:  # noqa: S310 - our own server's
            return bool(response.status == 200)
    except OSError:
        return False
