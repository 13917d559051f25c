"""Fitting one adapter: encode once, then epochs over readouts; best epoch kept; divergence and collapse restart at a lower rate.

Resumable to the bit: batches are a function of seed and epoch, the state is saved every epoch and on request to stop.
Knows nothing of files of data, calibration or what a validation figure means: the caller hands in `validate`.

Tensors: E examples of a batch, R their reads (windows and orders), L labels.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snapjudge.core.progress import Progress
from snapjudge.errors import Interrupted, TrainingFailed
from snapjudge.model.adapter import Adapter, Scope, frozen_copy, new_adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.reading import Question, read_contents
from snapjudge.train.checkpoint import load_state, save_state
from snapjudge.train.contents import ContentStore, padded_states
from snapjudge.train.distil import distillation_loss
from snapjudge.train.kept import AT_ONCE, KeptContents, combined, parts_of
from snapjudge.train.objectives import loss_of
from snapjudge.train.sampling import epoch_batches
from snapjudge.train.terms import FitConfig, FitData, FitResult, LogP, Validation

_SETTLED = 12  # steps before which a loss says little: an adapter starts from a backbone that may be sure of the wrong answers
_THROUGH = 2048  # tokens in one backward pass through contents: about 1 GiB of activations of mini, and no slower than more


@dataclass
class _State:
    """Where a fit stands; everything a resumed one needs."""

    rate: float
    restarts: int = 0
    epoch: int = 0
    step: int = 0  # batches done in this epoch
    loss_sum: float = 0.0
    stale: int = 0
    peak: float = -1.0  # best validation figure since the last restart
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    done: bool = False


class _Retry(Exception):
    """This rate does not work; the text says why."""


def fit(
    backbone: Backbone,
    questions: Sequence[Question],
    data: FitData,
    scope: Scope,
    config: FitConfig,
    *,
    validate: Callable[[LogP], Validation],
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Fit an adapter of the given scope.

    Args:
        questions: what the adapter learns to answer; one, or several of which `data.asked` tells which belongs to which content. Adapters of theirs are
            not looked at. The result's invocation tokens are the first one's: give a question its own before exporting (`dataclasses.replace`).
        validate: turns the validation contents' raw label log-probabilities into a figure.
        folder: where the resumable state and, past the memory budget, the content states are written.
        stop: asked after every step; True saves the state and raises Interrupted.

    Raises:
        Interrupted: `stop` said so; calling again with the same arguments goes on to the bitwise same adapter.
        TrainingFailed: no learning rate gave a finite loss.
    """
    with ContentStore(budget=int(config.cache_gb * 2**30), spill=folder / "contents.bin", device=backbone.device) as store:
        return _Fit(backbone, questions, data, scope, config, validate, folder, progress, stop, store).run()


@dataclass
class _Fit:
    backbone: Backbone
    questions: Sequence[Question]
    data: FitData
    scope: Scope
    config: FitConfig
    validate: Callable[[LogP], Validation]
    folder: Path
    progress: Progress
    stop: Callable[[], bool]
    store: ContentStore

    def __post_init__(self) -> None:
        asked, held = self.data.asked, self.data.validation_asked
        if len(self.questions) > 1:
            counts = len(asked), len(held)
            assert counts == (len(self.data.contents), len(self.data.validation)), "which question is each content asked?"
        assert set(asked) | set(held) <= set(range(len(self.questions))), "a question that is not there"
        self.path = self.folder / f"fit-{self.scope}.safetensors"
        most = max(map(len, self.data.targets), default=0)
        self.targets_NL = self._rows(self.data.targets, most)
        self.teacher_NL = self._rows([said or () for said in self.data.teacher], most) if self.data.teacher else None
        self.share_N = torch.tensor(self.data.shares(self.config.teacher_share), device=self.backbone.device)
        self.classes, self.lengths = self.data.classes, [content.tokens for content in self.data.contents]
        self.epochs = self.config.epochs_for(len(self.data.contents))
        self.per_epoch = len(self._batches(0))
        self.kept: KeptContents | None = None
        self.state = _State(self.config.rate)
        self.best_weights: dict[str, Tensor] = {}
        self.adapter = self._fresh()
        self.optimizer = self._optimizer()

    def run(self) -> FitResult:
        began = time.monotonic()
        self._restore()
        if not self.state.done:
            if self.scope == "readout":
                self.kept = KeptContents(self.backbone, self.data.contents, self.store, self.progress, self.stop)
            encoded = time.monotonic() - began
            self._train()
        else:
            encoded = 0.0
        assert self.state.best is not None
        adapter = frozen_copy(Adapter(self.scope, self.config.rank, self.config.alpha, self._pairs(self.best_weights), self._invocation))
        log_p = [tuple(row) for row in self.state.best["log_p"]]
        state, embeddings_ED = self.state, self.kept.embeddings_ED if self.kept is not None else None
        return FitResult(adapter, _told(self.state.best), log_p, state.rate, state.history, state.notes, encoded, time.monotonic() - began, embeddings_ED)

    def _train(self) -> None:
        left = (self.epochs - self.state.epoch) * self.per_epoch - self.state.step
        self.progress.start(f"fit {self.scope}", max(0, left))
        while not self.state.done:
            try:
                self._epochs()
            except _Retry as reason:
                self._lower(str(reason))
        self._save()

    def _epochs(self) -> None:
        state = self.state
        while state.epoch < self.epochs and state.stale < self.config.patience:
            batches = self._batches(state.epoch)
            for batch in batches[state.step :]:
                state.loss_sum += self._step(batch)
                state.step += 1
                self.progress.advance(1, f"epoch {state.epoch + 1}/{self.epochs}  loss {state.loss_sum / state.step:.3f}{self._best_note()}")
                if self.stop():
                    self._save()
                    raise Interrupted(f"stopped in epoch {state.epoch + 1}; the state is kept", hint="run the same command with --resume")
            self._end_of_epoch(state.loss_sum / len(batches))
        state.done = True

    def _step(self, batch: Sequence[int]) -> float:
        """One update; returns the batch's mean loss."""
        planned = self.epochs * self.per_epoch
        done = self.state.epoch * self.per_epoch + self.state.step
        for group in self.optimizer.param_groups:
            group["lr"] = self.state.rate * schedule(done, planned, self.config.warmup)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in parts_of(batch, self.lengths, AT_ONCE if self.kept is not None else _THROUGH):
            loss = self._loss(part).sum() / len(batch)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise _Retry(f"the loss became {value} at rate {self.state.rate:g}")
            loss.backward()
            total += value
        norm = torch.nn.utils.clip_grad_norm_(self.adapter.parameters(), self.config.clip)
        if not math.isfinite(float(norm)):
            raise _Retry(f"the gradient became {float(norm)} at rate {self.state.rate:g}")
        self.optimizer.step()
        return total

    def _loss(self, part: Sequence[int]) -> Tensor:
        """Losses [E] of some examples, those of one question after those of another."""
        own = [[index for index in part if self.data.question_of(index) == number] for number in range(len(self.questions))]
        return torch.cat([self._loss_of(question, mine) for question, mine in zip(self.questions, own, strict=True) if mine])

    def _loss_of(self, question: Question, part: Sequence[int]) -> Tensor:
        """Losses [E] of some examples that are asked the same."""
        contents = [self.data.contents[index] for index in part]
        if self.kept is not None:
            logits_RL = self.kept.logits(part, question.readout, self.adapter)
        else:
            windows = [window for content in contents for window in content.windows]
            layers, lengths_R = padded_states(self.backbone.encode_for_training(windows, self.adapter))
            logits_RL = self.backbone.read_batch(layers, lengths_R, question.readout, self.adapter)
        log_p_EL = combined(logits_RL, contents, question.metric)
        chosen = list(part)
        labels = log_p_EL.shape[1]
        own_E = loss_of(question.metric.type, log_p_EL, self.targets_NL[chosen, :labels])
        if self.teacher_NL is None:
            return own_E
        return distillation_loss(log_p_EL, own_E, self.teacher_NL[chosen, :labels], self.share_N[chosen], self.config.temperature)

    def _end_of_epoch(self, loss: float) -> None:
        state = self.state
        adapter = frozen_copy(self.adapter)
        asked = [replace(question, adapter=adapter) for question in self.questions]
        works = ((content, (asked[self.data.question_of(at, validation=True)],)) for at, content in enumerate(self.data.validation))
        log_p = [readings[0].log_p for readings in read_contents(self.backbone, works)]
        if not all(math.isfinite(value) for row in log_p for value in row):
            raise _Retry(f"the validation scores are not finite at rate {state.rate:g}")
        found = self.validate(log_p)
        state.history.append({"epoch": state.epoch + 1, "rate": state.rate, "loss": loss, found.name: found.figure, "validation_loss": found.loss})
        if state.best is None or self._better(found, _told(state.best)):
            state.best, state.stale = {**vars(found), "log_p": log_p}, 0
            self.best_weights = self._weights()
        else:
            state.stale += 1
        state.epoch, state.step, state.loss_sum, state.peak = state.epoch + 1, 0, 0.0, max(state.peak, found.figure)
        self._check_collapse(found, loss)
        self._save()

    def _better(self, found: Validation, best: Validation) -> bool:
        """Whether an epoch is better than the best so far: by the figure, then the loss; but one that loses more than even answers would, as an adapter does
        that has hardly begun, gives way to one that does not where the figures of a small validation split cannot tell the two apart.
        """
        sound, was_sound = found.loss <= self._even_log_loss, best.loss <= self._even_log_loss
        if sound == was_sound:
            return (found.figure, -found.loss) > (best.figure, -best.loss)
        return found.figure >= best.figure - best.error if sound else found.figure > best.figure + best.error

    def _check_collapse(self, found: Validation, loss: float) -> None:
        """Collapsed: back at chance after it was better; or, after two epochs and some steps, still there, or losing more than an answer that is always even
        would, in training and in validation: a ruined adapter may rank a little above chance by what is left in its scores. Only where a lower rate is left.
        """
        state = self.state
        if state.restarts >= self.config.restarts or state.epoch >= self.epochs:
            return
        settled = state.epoch >= 2 and state.epoch * self.per_epoch >= _SETTLED
        if self.teacher_NL is None and settled and loss > 1.01 * self._even_loss and found.loss > self._even_log_loss:
            raise _Retry(f"the loss is {loss:.3f}, {self._even_loss:.3f} for even answers, after epoch {state.epoch} at rate {state.rate:g}")
        at_chance = found.figure <= found.chance + 2 * found.error
        was_better = state.peak > found.chance + 4 * found.error
        if at_chance and (was_better or settled):
            raise _Retry(f"validation {found.name} is {found.figure:.3f}, no better than chance, after epoch {state.epoch} at rate {state.rate:g}")

    @cached_property
    def _even_loss(self) -> float:
        """The mean loss of an epoch if every label were given the same probability."""
        drawn = [index for batch in self._batches(0) for index in batch]
        total = 0.0
        for number, question in enumerate(self.questions):
            own, labels = [index for index in drawn if self.data.question_of(index) == number], len(question.metric.labels)
            even = torch.full((len(own), labels), -math.log(labels), device=self.backbone.device)
            total += float(loss_of(question.metric.type, even, self.targets_NL[own, :labels]).sum())
        return total / len(drawn)

    @cached_property
    def _even_log_loss(self) -> float:
        """The mean log loss of the validation contents if every label were given the same probability."""
        asked = [self.questions[self.data.question_of(at, validation=True)] for at in range(len(self.data.validation))]
        return sum(math.log(len(question.metric.labels)) for question in asked) / max(1, len(asked))

    def _lower(self, reason: str) -> None:
        state = self.state
        if state.restarts >= self.config.restarts:
            if state.best is None:
                raise TrainingFailed(f"{reason}, and no lower rate is left to try", hint="check the data for damaged rows, or set --rate lower")
            state.done = True
            return
        note = f"{reason}; begun again at rate {state.rate / 3:g}"
        kept, weights = state.best, self.best_weights
        self.state = _State(state.rate / 3, state.restarts + 1, best=kept, history=state.history, notes=[*state.notes, note])
        self.adapter, self.best_weights = self._fresh(), weights
        self.optimizer = self._optimizer()
        self.progress.say(note)
        self.progress.start(f"fit {self.scope}", self.epochs * self.per_epoch)

    def _batches(self, epoch: int) -> list[list[int]]:
        config = self.config
        return epoch_batches(self.classes, self.lengths, config.batch, seed=config.seed, epoch=epoch, balanced=config.balanced)

    def _best_note(self) -> str:
        best = self.state.best
        return f"  best {best['name']} {best['figure']:.3f}" if best else ""

    def _rows(self, given: Sequence[Sequence[float]], columns: int) -> Tensor:
        """Distributions of different length as one tensor, zeros behind the shorter ones."""
        return torch.tensor([(*row, *(0.0,) * (columns - len(row))) for row in given], device=self.backbone.device)

    @property
    def _invocation(self) -> tuple[int, ...]:
        return self.questions[0].readout.token_ids if self.scope == "readout" else ()

    def _fresh(self) -> Adapter:
        config = self.config
        return new_adapter(
            self.backbone.linears,
            scope=self.scope,
            rank=config.rank,
            alpha=config.alpha,
            seed=config.seed,
            invocation=self._invocation,
            device=self.backbone.device,
        )

    def _optimizer(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.adapter.parameters(), lr=self.config.rate, weight_decay=self.config.weight_decay)

    def _weights(self) -> dict[str, Tensor]:
        pairs = self.adapter.weights.items()
        return {f"{path}|{side}": tensor.detach().clone() for path, pair in pairs for side, tensor in zip("AB", pair, strict=True)}

    def _pairs(self, flat: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        return {path: (flat[f"{path}|A"].to(self.backbone.device), flat[f"{path}|B"].to(self.backbone.device)) for path in self.backbone.linears}

    def _save(self) -> None:
        tensors = {f"now|{name}": tensor for name, tensor in self._weights().items()}
        tensors |= {f"best|{name}": tensor for name, tensor in self.best_weights.items()}
        for index, parameter in enumerate(self.adapter.parameters()):
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"adam|{index}|{key}"] = value
        save_state(self.path, tensors, vars(self.state))

    def _restore(self) -> None:
        saved = load_state(self.path)
        if saved is None:
            return
        tensors, record = saved
        self.state = _State(**record)
        now = {name.removeprefix("now|"): tensor for name, tensor in tensors.items() if name.startswith("now|")}
        self.best_weights = {name.removeprefix("best|"): tensor for name, tensor in tensors.items() if name.startswith("best|")}
        with torch.no_grad():
            for path, (down, up) in self.adapter.weights.items():
                down.copy_(now[f"{path}|A"])
                up.copy_(now[f"{path}|B"])
        for index, parameter in enumerate(self.adapter.parameters()):
            keys = ("step", "exp_avg", "exp_avg_sq")
            if f"adam|{index}|step" in tensors:
                self.optimizer.state[parameter] = {key: tensors[f"adam|{index}|{key}"].to(self.backbone.device if key != "step" else "cpu") for key in keys}


def _told(best: dict[str, Any]) -> Validation:
    """What was said of the best epoch, without its log-probabilities."""
    return Validation(**{name: value for name, value in best.items() if name != "log_p"})


def schedule(step: int, planned: int, warmup: float) -> float:
    """Factor on the peak rate: a linear rise over the warm-up, then a cosine down to a twentieth."""
    rise = max(1, round(planned * warmup))
    if step < rise:
        return (step + 1) / rise
    share = (step - rise) / max(1, planned - rise)
    return 0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, share))) / 2
