"""Comparing two judges on the same data, and holding a judge against the regression suite."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from snapjudge.core.example import Example
from snapjudge.core.judgement import Judgement
from snapjudge.core.progress import Progress
from snapjudge.curate.dataset import Dataset, labelled
from snapjudge.curate.split import check_enough, deduplicated
from snapjudge.curate.suite import add_rows, filled_suite, hold
from snapjudge.errors import OptionInvalid
from snapjudge.flows.prove_judge import check_unseen
from snapjudge.flows.scoring import contents_of, raw_scores
from snapjudge.flows.training_data import read_unseen
from snapjudge.judge import Judge
from snapjudge.pages import render_page
from snapjudge.pages.pictures import intervals
from snapjudge.prove.comparison import Comparison, compare_judges, is_right
from snapjudge.prove.figures import Scored
from snapjudge.prove.proof import scored
from snapjudge.prove.report import NAMES
from snapjudge.store.files import write_file


@dataclass(frozen=True)
class CompareRequest:
    """Two judges of one metric, and labelled data; `out` is a folder for compare.json and compare.html."""

    first: str
    second: str
    data: Sequence[Path]
    out: Path | None = None
    mapping: Mapping[str, str] | None = None
    allow_leak: bool = False


def compare(request: CompareRequest, progress: Progress) -> Comparison:
    """Score the data with both, each with its own calibration and threshold.

    Raises:
        OptionInvalid: judges of different labels or fields. DataLeak: one was trained on these texts. DataInvalid and other errors of reading and loading.
    """
    judges = [Judge.load(name) for name in (request.first, request.second)]
    first, second = judges
    if first.metric.label_names != second.metric.label_names or first.metric.positive_labels != second.metric.positive_labels:
        raise OptionInvalid(f"{first.name} and {second.name} have different labels", hint="compare judges of one metric")
    if first.metric.ordered_inputs != second.metric.ordered_inputs:
        told = f"{first.name} reads {', '.join(first.metric.ordered_inputs)}, {second.name} {', '.join(second.metric.ordered_inputs)}"
        raise OptionInvalid(told, hint="compare judges that read the same fields")
    examples, _ = deduplicated(read_unseen(request.data, second.metric, request.mapping, progress.say))
    check_enough(examples, second.metric, "data")
    notes = [note for judge in judges for note in check_unseen(judge, examples, allow=request.allow_leak)]
    judged = [_judged(judge, examples, progress) for judge in judges]
    arrays, judgements = (judged[0][0], judged[1][0]), (judged[0][1], judged[1][1])
    found = compare_judges((first.name, second.name), arrays, judgements, second.metric, examples, notes)
    if request.out is not None:
        write_file(request.out / "compare.json", found.model_dump_json(indent=2) + "\n")
        write_file(request.out / "compare.html", render_comparison(found))
    return found


def _judged(judge: Judge, examples: Sequence[Example], progress: Progress) -> tuple[Scored, list[Judgement]]:
    log_p = raw_scores(judge.backbone, judge.question, contents_of(examples, judge.metric, judge.backbone), progress, f"score {judge.name}")
    return scored(log_p, judge.bundle.calibration, judge.metric, examples)


def render_comparison(found: Comparison) -> str:
    """compare.html."""
    rows = [(NAMES.get(d.name, d.name), d.difference, d.low, d.high) for d in found.differences if d.name not in ("log_loss", "mae")]
    reach = max([0.05, *(abs(end) for _, _, low, high in rows for end in (low, high))])
    picture = intervals(f"{found.second} less {found.first}, 95 % interval", rows, span=(-reach, reach), marks=(0.0,))
    return render_page("compare.html.j2", found=found, names=NAMES, picture=picture, when=datetime.now(UTC).strftime("%Y-%m-%d"))


@dataclass(frozen=True)
class SuiteResult:
    """How a judge stands against a suite: rows it lost that some judge held, rows it wins for the first time, and rows still open."""

    judge: str
    rows: int
    lost: tuple[str, ...]
    won: tuple[str, ...]
    open: int

    @property
    def passed(self) -> bool:
        """Whether nothing was lost."""
        return not self.lost


def check_suite(judge_name: str, path: Path, progress: Progress, *, update: bool) -> SuiteResult:
    """Judge every row of a suite.

    Args:
        update: note rows that this judge is the first to get right; from then on they are held.

    Raises:
        OptionInvalid: no such suite, or an empty one.
    """
    judge = Judge.load(judge_name)
    suite = filled_suite(path, judge.metric)
    _, judgements = _judged(judge, suite.examples, progress)
    right = {example.id for example, judgement in zip(suite.examples, judgements, strict=True) if is_right(judgement, example, judge.metric)}
    lost = tuple(name for name in suite.held if name not in right)
    won = tuple(name for name in suite.open if name in right)
    if update and won:
        hold(path, won, judge.name)
    return SuiteResult(judge.name, len(suite.examples), lost, won, len(suite.open) - len(won))


def grow_suite(judge_name: str, dataset: Path, path: Path, progress: Progress) -> tuple[int, int]:
    """Add the adjudicated rows of a data set that a judge gets wrong; returns how many were wrong, and how many of them are new.

    Raises:
        OptionInvalid: nothing in the data set has been adjudicated.
    """
    judge = Judge.load(judge_name)
    own = labelled(Dataset(dataset), judge.metric)
    settled = [example for example in own.examples if own.current[example.id].state == "adjudicated"]
    if not settled:
        raise OptionInvalid(f"nothing in {dataset} has been adjudicated", hint="`snapjudge data label --adjudicate` settles a label", received=str(dataset))
    _, judgements = _judged(judge, settled, progress)
    wrong = [example for example, judgement in zip(settled, judgements, strict=True) if not is_right(judgement, example, judge.metric)]
    return len(wrong), add_rows(path, wrong, judge.metric)
