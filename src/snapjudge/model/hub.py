"""Loading a backbone: the embedded default, a folder in the Hugging Face layout, or a hub name.

Knows where weights come from and how each family is hooked up; knows nothing of judging.
"""

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from snapjudge.core.precision import Precision
from snapjudge.errors import BackboneNotFound, BackboneUnsupported, ExtraMissing, InputInvalid
from snapjudge.model.attention import Shape, Switch
from snapjudge.model.backbone import Backbone
from snapjudge.model.digests import folder_digest
from snapjudge.model.mini import build_mini
from snapjudge.model.prompt_rules import PromptRules, PromptStyle
from snapjudge.model.tokens import TextTokens, special_texts, tokenizer_from_folder

EMBEDDED = "mini"
LAYOUT_FILE = "snapjudge.json"  # how a backbone in our own layout is read: its mask, its prompt
RECORD_FILE, OPEN_FILE = "pretraining.json", "open_questions.json"  # what is said of a backbone's weights: their training, what open answers rest on
ATTENTION = "snapjudge"
DEVICE = "SNAPJUDGE_DEVICE"  # the environment variable that chooses the device
_OLDER = ("gpt_neo",)  # model types older than transformers' AttentionInterface
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.bfloat16}  # of what is no linear layer


def load_backbone(name: str = EMBEDDED, *, dtype: str = "float32", device: str | None = None) -> Backbone:
    """Load `mini`, a local folder or a hub name.

    Args:
        dtype: float32, bfloat16, float16 or int8 (linear layers in int8, all else in bfloat16); label logits are always float32.
        device: `cpu`, `cuda` or `cuda:1`; by default what the environment variable SNAPJUDGE_DEVICE says, else a CUDA device where there is one.

    Raises:
        InputInvalid: no such dtype, or no such device.
        BackboneNotFound: no such folder, and the hub does not have it or cannot be reached.
        BackboneUnsupported: a model whose attention cannot be taken over, or no decoder.
    """
    if dtype not in _DTYPES:
        raise InputInvalid(f"no precision {dtype!r}", hint=f"use {', '.join(Precision)}", received=dtype)
    return _load_folder(backbone_folder(name), name, dtype, chosen_device(device))


def chosen_device(name: str | None = None) -> torch.device:
    """The device of that name; of no name, what SNAPJUDGE_DEVICE says, else a CUDA device where there is one.

    Raises:
        InputInvalid: no such device.
    """
    asked = name or os.environ.get(DEVICE, "")
    if not asked:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(asked)
        there = found.type == "cpu" or (found.type == "cuda" and (found.index or 0) < torch.cuda.device_count())
    except RuntimeError:
        there = False
    if not there:
        raise InputInvalid(
            f"no device {asked!r} here", hint=f"use cpu, or cuda where a CUDA device is; {DEVICE} and `device` say which is used", received=asked
        )
    return found


def backbone_folder(name: str) -> Path:
    """The folder that `load_backbone` reads for this name.

    Raises:
        BackboneNotFound: as `load_backbone` does.
    """
    if name == EMBEDDED:
        return mini_folder()
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return _download(name)
    if not (folder / "config.json").exists():
        raise BackboneNotFound(f"{name} is a folder without config.json", hint="point at a model in the Hugging Face layout")
    return folder


def mini_folder() -> Path:
    """Where the embedded backbone lies in the installed package."""
    return Path(str(resources.files("snapjudge.model") / "embedded" / "mini"))


def _download(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415 - needed for hub names only
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: PLC0415
    except ImportError as error:
        raise ExtraMissing("hub names need the local extra", hint="pip install 'snapjudge[local]'") from error
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.model", "*.txt"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise BackboneNotFound(
            f"no folder {name!r}, and the hub does not give it: {str(error).splitlines()[0]}",
            hint="use `mini`, a local folder in the Hugging Face layout, or check the name and the network (HF_HUB_OFFLINE)",
            received=name,
        ) from error


def _load_folder(folder: Path, name: str, precision: str, device: torch.device) -> Backbone:
    config = _config(folder, name)
    extra = folder / LAYOUT_FILE
    if extra.exists():
        return _load_mini(folder, name, config, json.loads(extra.read_bytes()), precision, device)
    return _load_transformers(folder, name, precision, device)


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise BackboneUnsupported(f"{name}: config.json cannot be read: {error}", hint="restore the model's folder") from error
    return found


def load_prompt_rules(name: str = EMBEDDED) -> PromptRules:
    """How text becomes the token ids of `mini`, a local folder or a hub name, without loading its weights.

    Raises:
        BackboneNotFound, BackboneUnsupported: as `load_backbone` does.
    """
    folder = backbone_folder(name)
    config = _config(folder, name)
    extra = folder / LAYOUT_FILE
    if extra.exists():
        return _mini_rules(folder, name, config, json.loads(extra.read_bytes()))
    from transformers import AutoConfig  # noqa: PLC0415 - see _load_transformers

    try:
        return _rules(name, AutoConfig.from_pretrained(folder).get_text_config(), TextTokens(tokenizer_from_folder(folder), special_texts(folder)))
    except (ValueError, KeyError, OSError) as error:
        raise _unloadable(name, error) from error


def _mini_rules(folder: Path, name: str, config: Mapping[str, Any], ours: Mapping[str, Any]) -> PromptRules:
    tokens = TextTokens(tokenizer_from_folder(folder), control=ours["control"])
    tokens.begin = (tokens.control(ours["begin"]),)
    style = PromptStyle(open=ours["open"], close="", after_field=(tokens.control(ours["after_field"]),), readout=ours["readout"])
    return PromptRules(name, tokens, style, ours["content_mask"], config["max_position_embeddings"])


def _rules(name: str, config: Any, tokens: TextTokens) -> PromptRules:
    """Those of a decoder of transformers."""
    return PromptRules(name, tokens, PromptStyle(), "causal", _positions(config))


def _load_mini(folder: Path, name: str, config: dict[str, Any], ours: Mapping[str, Any], precision: str, device: torch.device) -> Backbone:
    switch = Switch()
    decoder = build_mini(config, load_file(folder / "model.safetensors", device=str(device)), switch, _DTYPES[precision])
    return Backbone(
        rules=_mini_rules(folder, name, config, ours),
        digest=folder_digest(folder),
        model=decoder,
        forward=decoder,
        head_VD=decoder.head_VD,
        depth=config["num_hidden_layers"],
        switch=switch,
        int8=precision == "int8",
    )


def _load_transformers(folder: Path, name: str, precision: str, device: torch.device) -> Backbone:
    """Any decoder through transformers, with its attention taken over by the pass on the switch."""
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - three seconds, not needed for the embedded default
    from transformers.utils import logging  # noqa: PLC0415

    _register()
    logging.disable_progress_bar()
    weights = [path for pattern in ("*.safetensors",) for path in folder.glob(pattern)]
    if not weights:
        raise BackboneUnsupported(f"{name} has no *.safetensors weights", hint="pickled weights are never loaded; convert the model to safetensors")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=_DTYPES[precision], attn_implementation=_implementation(folder), use_safetensors=True)
        tokens = TextTokens(tokenizer_from_folder(folder), special_texts(folder))
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise _unloadable(name, error) from error
    return hook_up(model.to(device), name, folder_digest(folder), tokens, int8=precision == "int8")


def _unloadable(name: str, error: Exception) -> BackboneUnsupported:
    return BackboneUnsupported(f"{name} cannot be loaded as a decoder: {error}", hint="use a complete folder of a decoder-only model with its tokenizer")


def hook_up(model: Any, name: str, digest: str, tokens: TextTokens, *, int8: bool = False) -> Backbone:
    """Take over the attention of a loaded transformers decoder and make it a backbone."""
    _register()
    model.eval().requires_grad_(False)
    if model.config.model_type not in _OLDER:
        model.set_attn_implementation(ATTENTION)
    switch = Switch()
    config = model.config.get_text_config()
    if not _take_over(model, config, switch):
        raise BackboneUnsupported(
            f"{name}: the attention of model type {config.model_type!r} cannot be taken over",
            hint="use a family whose attention goes through transformers' AttentionInterface, such as Llama, Qwen, Mistral, Phi or Gemma",
        )
    inner, head = model.base_model, model.get_output_embeddings()

    def forward(ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        hidden: Tensor = inner(input_ids=ids_BT, position_ids=positions_BT, use_cache=False).last_hidden_state
        return hidden

    return Backbone(
        rules=_rules(name, config, tokens),
        digest=digest,
        model=model,
        forward=forward,
        head_VD=head.weight,
        head_bias_V=getattr(head, "bias", None),
        softcap=getattr(config, "final_logit_softcapping", None),
        logit_scale=_logit_scale(config),
        depth=int(config.num_hidden_layers),
        switch=switch,
        skip=head,
        int8=int8,
    )


def _positions(config: Any) -> int:
    """How many positions may be used. Under dynamic and long RoPE the rotation of every token changes once a pass holds a longer text, so that
    a content's keys would depend on what it is packed with; there the original length is the limit.
    """
    longest = int(config.max_position_embeddings)
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) in ("dynamic", "longrope"):
        original = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
        return min(longest, int(original or longest))
    return longest


def _logit_scale(config: Any) -> float:
    """The constant that Cohere multiplies and Granite divides its logits by."""
    return float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)


def _take_over(model: Any, config: Any, switch: Switch) -> bool:
    """Hand the switch to every attention module; True when all layers have one."""
    layers = 0
    for module in model.modules():
        if hasattr(module, "_attn") and hasattr(module, "layer_id"):  # GPT-Neo, older than the interface
            module._attn = _older_attention(module.layer_id, config, switch)
            layers += 1
        elif hasattr(module, "layer_idx") and any(isinstance(child, nn.Linear) for child in module.children()):
            module.snapjudge_switch = switch
            layers += 1
    return layers == int(config.num_hidden_layers)


def _older_attention(layer: int, config: Any, switch: Switch) -> Any:
    """GPT-Neo's attention: unscaled, local in some layers."""
    local = config.attention_layers[layer] == "local"

    def attend(query: Tensor, key: Tensor, value: Tensor, _mask: Tensor | None = None) -> tuple[Tensor, None]:
        assert switch.current is not None, "forward outside a pass"
        out_BTQd = switch.current.attend(layer, query, key, value, Shape(1.0, window=config.window_size if local else None))
        return out_BTQd.transpose(1, 2), None

    return attend


def _interface(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Tensor | None, **options: Any) -> tuple[Tensor, None]:
    """Our entry in transformers' AttentionInterface: [B, Q, T, d] in, [B, T, Q, d] out."""
    switch = getattr(module, "snapjudge_switch", None)
    assert isinstance(switch, Switch), "a module without a switch"
    assert switch.current is not None, "forward outside a pass"
    if options.get("s_aux") is not None:
        raise BackboneUnsupported("attention sinks (s_aux) are not supported", hint="use a model without learned attention sinks")
    scale = options.get("scaling") or query.shape[-1] ** -0.5
    shape = Shape(scale, softcap=options.get("softcap"), window=options.get("sliding_window"))
    layer = module.layer_idx
    assert isinstance(layer, int)
    return switch.current.attend(layer, query, key, value, shape), None


def _implementation(folder: Path) -> str:
    """Models older than the interface are loaded with their own attention, which is then replaced."""
    return "eager" if json.loads((folder / "config.json").read_bytes()).get("model_type") in _OLDER else ATTENTION


@cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface  # noqa: PLC0415 - see _load_transformers

    AttentionInterface.register(ATTENTION, _interface)
    AttentionMaskInterface.register(ATTENTION, lambda *_, **__: None)
