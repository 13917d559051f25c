"""Training all weights of a backbone on questions about contents, gradients flowing through the content.

Resumable to the step: what step n sees is a pure function of n. Knows nothing of files of data or of where questions come from: the caller hands in `draw`.

Tensors: L labels.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from snapjudge.core.frozen import Frozen
from snapjudge.core.progress import Progress
from snapjudge.errors import Interrupted, TrainingFailed
from snapjudge.model.backbone import Backbone
from snapjudge.model.readout import Readout
from snapjudge.model.tables import sent
from snapjudge.model.tokens import Ids
from snapjudge.train.checkpoint import load_state, save_state
from snapjudge.train.fit import schedule

_NO_DECAY = 2  # weights of fewer dimensions (biases, norms) are not decayed


class WholeConfig(Frozen):
    """How a backbone is trained."""

    steps: int = Field(default=2000, ge=1)
    batch: int = Field(default=64, ge=1, description="contents in a step")
    rate: float = Field(default=1.5e-4, gt=0, le=1, description="peak learning rate of AdamW")
    warmup: float = Field(default=0.1, ge=0, lt=1, description="share of all steps over which the rate rises")
    weight_decay: float = Field(default=0.01, ge=0)
    clip: float = Field(default=1.0, gt=0, description="largest gradient norm")
    pack_tokens: int = Field(default=8192, ge=64, description="tokens in one pass")
    save_every: int = Field(default=200, ge=1, description="steps")
    look_every: int = Field(default=200, ge=1, description="steps between two looks at the held-back rows")
    keep_best: bool = Field(default=False, description="end with the weights of the best look instead of the last ones")
    patience: int = Field(default=0, ge=0, description="looks without a better one before stopping; 0 never stops early")
    anchor_weight: float = Field(default=8.0, ge=0, description="how much a content's embedding is held to that of the anchor, where there is one")
    bf16: bool = Field(default=True, description="products in bfloat16; weights stay in float32")
    seed: int = 0


@dataclass(frozen=True)
class Drawn:
    """A content and what it is asked: each readout with its target distribution [L] and the task it counts for."""

    content: Ids
    readouts: tuple[Readout, ...]
    targets: tuple[tuple[float, ...], ...]
    tasks: tuple[str, ...]

    @property
    def tokens(self) -> int:
        """Tokens of the content and all readouts."""
        return len(self.content) + sum(len(readout.token_ids) for readout in self.readouts)


@dataclass
class WholeResult:
    """What a training of all weights gave: the mean loss by task between looks, what the looks saw, the seconds it took."""

    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    questions: int = 0
    best: int | None = None  # the step of the best look, where it is kept

    @property
    def means(self) -> list[float]:
        """The mean figure of every look."""
        return [sum(look["figures"].values()) / max(1, len(look["figures"])) for look in self.history]


def train_whole(
    backbone: Backbone,
    draw: Callable[[int], Drawn | None],
    config: WholeConfig,
    *,
    look: Callable[[], Mapping[str, float]],
    state: Path,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
    anchor: Backbone | None = None,
) -> WholeResult:
    """Train every weight of a float32 backbone in place.

    Args:
        draw: content number n with its questions; None where there is nothing to ask (the next number is drawn in its place).
        look: figures of held-back rows, by name, taken every `look_every` steps.
        state: the file of the resumable state.
        stop: asked after every step; True saves the state and raises Interrupted.
        anchor: a frozen backbone whose embeddings of the contents are to be kept (one minus the cosine is added to the loss), so that what no task asks
            for is not forgotten.

    Raises:
        Interrupted: `stop` said so; calling again with the same arguments goes on.
        TrainingFailed: the loss is no number any more.
    """
    return _Training(backbone, draw, config, look, state, progress, stop, anchor).run()


@dataclass
class _Training:
    backbone: Backbone
    draw: Callable[[int], Drawn | None]
    config: WholeConfig
    look: Callable[[], Mapping[str, float]]
    path: Path
    progress: Progress
    stop: Callable[[], bool]
    anchor: Backbone | None

    def __post_init__(self) -> None:
        self.weights = self.backbone.unfreeze()
        decayed = [weight for weight in self.weights.values() if weight.dim() >= _NO_DECAY]
        plain = [weight for weight in self.weights.values() if weight.dim() < _NO_DECAY]
        groups = [{"params": decayed, "weight_decay": self.config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.rate, betas=(0.9, 0.98), fused=True)
        self.step, self.next = 0, 0
        self.result = WholeResult()
        self.sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def run(self) -> WholeResult:
        self._restore()
        self.progress.start("train all weights", self.config.steps - self.step)
        while self.step < self.config.steps and not self._stale:
            began = time.monotonic()
            loss = self._one_step()
            self.step += 1
            self.result.seconds += time.monotonic() - began
            self.progress.advance(1, f"loss {loss:.3f}  {self.result.tokens / max(self.result.seconds, 1e-9):,.0f} tokens/s")
            last = self.step == self.config.steps
            if self.step % self.config.look_every == 0 or last:
                self._look()
            last = last or self._stale
            if self.step % self.config.save_every == 0 or last:
                self._save()
            if self.stop() and not last:
                self._save()
                raise Interrupted(f"stopped after step {self.step}; the state is kept", hint="run the same command with --resume")
        self._take_best()
        self.backbone.model.requires_grad_(requires_grad=False)
        return self.result

    @property
    def _stale(self) -> bool:
        means = self.result.means
        return 0 < self.config.patience <= len(means) - 1 - max(range(len(means)), key=means.__getitem__, default=0) if means else False

    @property
    def _best_path(self) -> Path:
        return self.path.with_name(f"{self.path.stem}-best{self.path.suffix}")

    def _take_best(self) -> None:
        """The weights of the best look, where they are kept."""
        found = load_state(self._best_path) if self.config.keep_best else None
        if found is not None:
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(found[0][name])
            self.result.best = int(found[1]["step"])

    def _one_step(self) -> float:
        """One update over `batch` contents; returns the mean loss of a question."""
        drawn: list[Drawn] = []
        while len(drawn) < self.config.batch:
            one = self.draw(self.next)
            self.next += 1
            if one is not None:
                drawn.append(one)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * schedule(self.step, self.config.steps, self.config.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        asked = sum(len(one.readouts) for one in drawn)
        total = 0.0
        for pack in _packs(drawn, self.config.pack_tokens):
            with torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=self.config.bf16):
                logits_RL, means_CD = self.backbone.read_whole([(one.content, one.readouts) for one in pack])
            losses = losses_of(logits_RL, _flat(pack, "targets"))
            away_C = self._away(pack, means_CD)
            (losses.sum() / asked + self.config.anchor_weight * away_C.sum() / len(drawn)).backward()
            values: list[float] = losses.detach().tolist()
            for name, value in (*zip(_flat(pack, "tasks"), values, strict=True), *(("anchor", away) for away in away_C.tolist())):
                self.sums[name][0] += value
                self.sums[name][1] += 1
            total += sum(values)
            self.result.tokens += sum(one.tokens for one in pack)
        if not math.isfinite(total):
            raise TrainingFailed(f"the loss became {total} in step {self.step + 1}", hint="lower the rate (--rate), or raise the warm-up")
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), self.config.clip)
        self.optimizer.step()
        self.result.questions += asked
        return total / asked

    def _away(self, pack: Sequence[Drawn], means_CD: Tensor) -> Tensor:
        """One minus the cosine of the contents' embeddings [C] to the anchor's; nothing [0] without an anchor."""
        if self.anchor is None:
            return means_CD.new_zeros(0)
        with torch.no_grad(), torch.autocast(self.backbone.device.type, torch.bfloat16, enabled=self.config.bf16):
            _, kept_CD = self.anchor.read_whole([(one.content, ()) for one in pack])
        return 1 - functional.cosine_similarity(means_CD, kept_CD)

    def _look(self) -> None:
        losses = {task: round(total / count, 4) for task, (total, count) in sorted(self.sums.items())}
        self.sums.clear()
        with torch.no_grad():
            figures = {name: round(value, 4) for name, value in self.look().items()}
        self.result.history.append({"step": self.step, "losses": losses, "figures": figures})
        means = self.result.means
        mean = means[-1]
        if self.config.keep_best and mean > max(means[:-1], default=-math.inf):
            save_state(self._best_path, dict(self.weights), {"step": self.step})
        told = f"held-back rows {mean:.3f} on average; " + ", ".join(f"{name} {value:.2f}" for name, value in figures.items())
        self.progress.say(f"step {self.step}: {told if figures else 'nothing measured, no task has held-back rows of both answers'}")

    def _save(self) -> None:
        tensors: dict[str, Tensor] = dict(self.weights)
        for name, weight in self.weights.items():
            for key, value in self.optimizer.state.get(weight, {}).items():
                tensors[f"{name}|{key}"] = value
        record = {"step": self.step, "next": self.next, "history": self.result.history, "seconds": self.result.seconds}
        record |= {"tokens": self.result.tokens, "questions": self.result.questions, "sums": self.sums}
        save_state(self.path, tensors, record)

    def _restore(self) -> None:
        found = load_state(self.path)
        if found is None:
            return
        tensors, record = found
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.copy_(tensors[name])
                kept = {key: tensors[f"{name}|{key}"].to(weight.device) for key in ("step", "exp_avg", "exp_avg_sq") if f"{name}|{key}" in tensors}
                if kept:
                    self.optimizer.state[weight] = kept
        self.step, self.next = record["step"], record["next"]
        self.result = WholeResult(record["history"], record["seconds"], record["tokens"], record["questions"])
        self.sums.update({task: list(pair) for task, pair in record["sums"].items()})


def _packs(drawn: Sequence[Drawn], most: int) -> list[list[Drawn]]:
    """Contents of similar length together, at most `most` tokens in a pack, one content at the least."""
    packs: list[list[Drawn]] = []
    room = 0
    for one in sorted(drawn, key=lambda one: one.tokens):
        if not packs or one.tokens > room:
            packs.append([])
            room = most
        packs[-1].append(one)
        room -= one.tokens
    return packs


def losses_of(logits_RL: Tensor, targets: Sequence[Sequence[float]]) -> Tensor:
    """Cross-entropy [R] of questions of different numbers of labels."""
    labels = logits_RL.shape[1]
    targets_RL = sent(torch.tensor([(*own, *(0.0,) * (labels - len(own))) for own in targets]), logits_RL.device)
    log_p_RL = logits_RL.log_softmax(-1)
    return -(targets_RL * log_p_RL.masked_fill(log_p_RL.isneginf(), 0.0)).sum(-1)


def _flat(pack: Sequence[Drawn], what: str) -> list[Any]:
    return [value for one in pack for value in getattr(one, what)]
