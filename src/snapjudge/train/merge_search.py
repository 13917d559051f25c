"""Searching for a merge: which method and weights serve several metrics best, each above its floor.

Two ways: TPE (optuna) looks at the whole validation data at every trial; the bandit (UCB1 over fixed random configurations, after UniGuard's search over merge
parameters) at one part of it at a time and spends its looks where they pay. Every trial is written down as it ends, so that a search goes on where it stopped.
Knows nothing of models: the caller hands in what measures a configuration.
"""

import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from snapjudge.core.frozen import Frozen
from snapjudge.core.progress import Progress
from snapjudge.errors import Interrupted, OptionInvalid, RunConflict
from snapjudge.store.files import storage_errors, write_file
from snapjudge.train.merge import METHODS, MergeConfig, Method

PARTS = 4  # of the validation data, for the bandit
_UNDER_FLOOR = 10.0  # what a shortfall of 1 costs
_DENSITIES, _SCALES = (0.1, 1.0), (0.3, 1.5)
_ARMS, _CURIOSITY = 12, 0.1

Measure = Callable[[MergeConfig, int | None], Mapping[str, float]]


class SearchConfig(Frozen):
    """What is searched and how long."""

    strategy: Literal["tpe", "bandit"] = "tpe"
    trials: int = Field(default=40, ge=1)
    methods: tuple[Method, ...] = METHODS
    floors: dict[str, float] = Field(default_factory=dict, description="figure that each metric must reach")
    seed: int = 0

    def checked(self) -> "SearchConfig":
        """Itself, if its floors can be reached.

        Raises:
            OptionInvalid: naming one that no figure reaches.
        """
        for name, value in self.floors.items():
            if value > 1:
                raise OptionInvalid(f"no figure of {name} reaches {value:g}", hint="a floor of at most 1, such as 0.9", received=name)
        return self


class Trial(Frozen):
    """One look at a configuration: the figures of all metrics, on all validation data or a part of it."""

    config: MergeConfig
    figures: dict[str, float]
    part: int | None = None
    seconds: float = 0.0

    def value(self, floors: Mapping[str, float]) -> float:
        """The mean figure, less what lies under the floors."""
        mean = sum(self.figures.values()) / len(self.figures)
        return mean - _UNDER_FLOOR * sum(max(0.0, floor - self.figures[name]) for name, floor in floors.items())


@dataclass
class SearchResult:
    """The best configuration on all validation data, whether it keeps every floor, and all trials."""

    best: Trial
    feasible: bool
    trials: list[Trial] = field(default_factory=list)


def search(measure: Measure, models: int, config: SearchConfig, *, path: Path, progress: Progress, stop: Callable[[], bool] = lambda: False) -> SearchResult:
    """Look for the best merge of `models` models.

    Args:
        measure: the figures of a configuration by metric; on part p of PARTS of the validation data, or on all of it for None.
        path: the table of trials, JSON lines; those that are there are not made again.

    Raises:
        Interrupted: `stop` said so; the same call goes on.
        RunConflict: the table is of another search.
    """
    return _Search(measure, models, config, path, progress, stop).run()


@dataclass
class _Search:
    measure: Measure
    models: int
    config: SearchConfig
    path: Path
    progress: Progress
    stop: Callable[[], bool]

    def run(self) -> SearchResult:
        self.trials = self._known()
        self.progress.start("search merges", max(0, self.config.trials - len(self.trials)))
        try:
            (self._by_tpe if self.config.strategy == "tpe" else self._by_bandit)()
        except Interrupted:
            raise
        except Exception:
            if not self.trials:  # nothing to go on from: the right command need not be told about the wrong one
                self.path.unlink()
            raise
        floors = self.config.floors
        whole = [trial for trial in self.trials if trial.part is None]
        best = max(whole, key=lambda trial: trial.value(floors))
        feasible = all(best.figures[name] >= floor for name, floor in floors.items())
        return SearchResult(best, feasible, self.trials)

    def _by_tpe(self) -> None:
        import optuna  # noqa: PLC0415 - half a second, for searches only

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            direction="maximize", sampler=optuna.samplers.TPESampler(seed=self.config.seed, n_startup_trials=min(10, self.config.trials))
        )
        for number in range(self.config.trials):
            asked = study.ask()
            chosen = self._suggested(asked)
            trial = self.trials[number] if number < len(self.trials) else self._look(chosen, None)
            study.tell(asked, trial.value(self.config.floors))

    def _suggested(self, asked: Any) -> MergeConfig:
        method: Method = asked.suggest_categorical("method", [one for one in self.config.methods if self.models == 2 or one != "slerp"])
        weights = tuple(asked.suggest_float(f"weight_{index}", 0.05, 1.0) for index in range(self.models))
        density, scale = 0.5, 1.0
        if method in ("ties", "dare", "dare_ties"):
            density = asked.suggest_float("density", *_DENSITIES)
        if method not in ("linear", "slerp"):
            scale = asked.suggest_float("scale", *_SCALES) * self.models
        return MergeConfig(method=method, weights=weights, density=density, scale=scale, seed=self.config.seed)

    def _by_bandit(self) -> None:
        """UCB1 (Auer et al., 2002): the arm with the highest mean so far plus what its few looks leave open; the best arms are then looked at whole."""
        rng = random.Random(self.config.seed)  # noqa: S311 - reproducible search
        arms = [self._arm(rng, number) for number in range(min(_ARMS, self.config.trials))]
        looks: dict[int, list[float]] = defaultdict(list)
        finals = max(1, self.config.trials // 10)
        for number in range(self.config.trials - finals):
            fresh = next((arm for arm in range(len(arms)) if not looks[arm]), None)
            arm = fresh if fresh is not None else max(looks, key=lambda one: _upper(looks[one], number))
            trial = self.trials[number] if number < len(self.trials) else self._look(arms[arm], len(looks[arm]) % PARTS)
            looks[arm].append(trial.value(self.config.floors))
        order = sorted(looks, key=lambda one: -sum(looks[one]) / len(looks[one]))
        for place, arm in enumerate(order[:finals]):
            if self.config.trials - finals + place >= len(self.trials):
                self._look(arms[arm], None)

    def _arm(self, rng: random.Random, number: int) -> MergeConfig:
        methods = [one for one in self.config.methods if self.models == 2 or one != "slerp"]
        method = methods[number % len(methods)]
        scale = 1.0 if method in ("linear", "slerp") else rng.uniform(*_SCALES) * self.models
        weights = tuple(rng.uniform(0.05, 1.0) for _ in range(self.models))
        return MergeConfig(method=method, weights=weights, density=rng.uniform(*_DENSITIES), scale=scale, seed=self.config.seed)

    def _look(self, config: MergeConfig, part: int | None) -> Trial:
        if self.stop():
            raise Interrupted(f"stopped after {len(self.trials)} trials; they are kept", hint="run the same command with --resume")
        began = time.monotonic()
        figures = {name: float(value) for name, value in self.measure(config, part).items()}
        trial = Trial(config=config, figures=figures, part=part, seconds=round(time.monotonic() - began, 3))
        self.trials.append(trial)
        with self.path.open("a", encoding="utf-8") as table:
            table.write(trial.model_dump_json() + "\n")
        self.progress.advance(1, f"{config.method}  {trial.value(self.config.floors):.3f}")
        return trial

    def _known(self) -> list[Trial]:
        told = json.dumps({"search": self.config.model_dump(mode="json"), "models": self.models})
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        if not text:
            with storage_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.write_text(told + "\n", encoding="utf-8")
            return []
        first, *rest = text.splitlines()
        if first != told:
            raise RunConflict(f"{self.path} is the table of another search", hint="choose another --out, or --restart")
        if not text.endswith("\n"):  # killed in the middle of a line
            rest = rest[:-1]
            write_file(self.path, "".join(line + "\n" for line in (first, *rest)))
        return [Trial.model_validate_json(line) for line in rest]


def _upper(values: Sequence[float], total: int) -> float:
    return sum(values) / len(values) + _CURIOSITY * math.sqrt(2 * math.log(max(2, total)) / len(values))
