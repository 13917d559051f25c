"""Fitting all weights of a backbone to one metric: the costly alternative to an adapter, for people to weigh with figures from their own data.

Knows nothing of bundles or proofs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress, Silent
from snapjudge.flows.scoring import raw_scores
from snapjudge.model.adapter import Adapter, frozen_copy, new_adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.hub import backbone_folder, load_backbone
from snapjudge.model.reading import Question
from snapjudge.model.readout import Readout
from snapjudge.train.multitask import Drawn, WholeConfig, train_whole
from snapjudge.train.sampling import epoch_batches
from snapjudge.train.save import save_backbone
from snapjudge.train.terms import FitConfig, FitData, FitResult, LogP, Validation

OF_RATE = 0.1  # all weights are trained at a tenth of an adapter's rate


@dataclass(frozen=True)
class WholeFit:
    """A trained backbone, the folder it was written to, and the fit as any other's, with an adapter that changes nothing."""

    backbone: Backbone
    folder: Path
    result: FitResult


def fit_backbone(
    name: str,
    metric: Metric,
    readout: Readout,
    data: FitData,
    config: FitConfig,
    *,
    validate: Callable[[LogP], Validation],
    folder: Path,
    progress: Progress,
    stop: Callable[[], bool],
) -> WholeFit:
    """Train a copy of the backbone; the best epoch by the validation figure is kept, and what is scored is what is written.

    A text of several windows shows one of them at a time; a pair one of its orders.

    Raises:
        Interrupted: `stop` said so; the same call goes on.
        TrainingFailed: the loss is no number any more.
    """
    began = time.monotonic()
    trained = load_backbone(name)
    epochs, draws = config.epochs_for(len(data.contents)), _Draws(metric, readout, data, config)
    per_epoch = max(1, round(draws.per_epoch / config.batch))
    whole = WholeConfig(
        steps=epochs * per_epoch,
        batch=config.batch,
        rate=config.rate * OF_RATE,
        warmup=config.warmup,
        weight_decay=config.weight_decay,
        clip=config.clip,
        look_every=per_epoch,
        save_every=per_epoch,
        keep_best=True,
        patience=config.patience,
        seed=config.seed,
    )
    question = Question(metric, readout)

    def look() -> dict[str, float]:
        return {metric.name: validate(raw_scores(trained, question, data.validation, Silent(), "validate")).figure}

    result = train_whole(trained, draws, whole, look=look, state=folder / "fit-backbone.safetensors", progress=progress, stop=stop)
    save_backbone(trained, backbone_folder(name), folder / "backbone")
    written = load_backbone(str(folder / "backbone"))
    log_p = raw_scores(written, question, data.validation, Silent(), "validate")
    fitted = FitResult(_nothing(written, readout), validate(log_p), log_p, whole.rate, result.history, [], 0.0, time.monotonic() - began)
    return WholeFit(written, folder / "backbone", fitted)


def _nothing(backbone: Backbone, readout: Readout) -> Adapter:
    """An adapter that changes nothing: a judge of a backbone of its own has no other."""
    return frozen_copy(new_adapter(backbone.linears, scope="readout", rank=1, alpha=1.0, seed=0, invocation=readout.token_ids, device=backbone.device))


class _Draws:
    """Draw n of the training examples, class-balanced, epoch after epoch; a pure function of n."""

    def __init__(self, metric: Metric, readout: Readout, data: FitData, config: FitConfig) -> None:
        self.metric, self.readout, self.data, self.config = metric, readout, data, config
        self.lengths = [content.tokens for content in data.contents]
        self.per_epoch = len(self._order(0))
        shares, told = data.shares(config.teacher_share), data.teacher or [None] * len(data.labels)
        self.targets = [
            tuple((1 - share) * own + share * its for own, its in zip(target, said or target, strict=True))
            for target, said, share in zip(data.targets, told, shares, strict=True)
        ]
        self._known: tuple[int, list[int]] = (-1, [])

    def __call__(self, number: int) -> Drawn:
        epoch, place = divmod(number, self.per_epoch)
        if self._known[0] != epoch:
            self._known = epoch, self._order(epoch)
        index = self._known[1][place]
        content, target = self.data.contents[index], self.targets[index]
        window = (number + index) % len(content.windows)
        if content.orders > 1 and window >= len(content.windows) // content.orders:
            target = tuple(target[mirror] for mirror in self.metric.mirror)
        return Drawn(content.windows[window], (self.readout,), (target,), (self.metric.name,))

    def _order(self, epoch: int) -> list[int]:
        config = self.config
        batches = epoch_batches(self.data.classes, self.lengths, config.batch, seed=config.seed, epoch=epoch, balanced=config.balanced)
        return [index for batch in batches for index in batch]
