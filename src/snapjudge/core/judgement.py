"""The judgement: one answer of a judge, or an abstention with its reason.

Knows nothing of how it was computed; `judge_of` is the one place where probabilities become a judgement.
"""

from collections.abc import Sequence

from snapjudge.core.calibration import Calibration
from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import Metric
from snapjudge.errors import SnapjudgeError


class Judgement(Frozen):
    """One answer. `label` is the most likely label; `score` the calibrated probability of the flagged label (see Metric.score_of for
    the other types), and `flagged` whether it reaches the judge's threshold, which may lie elsewhere than one half.

    `confidence` is (n * p_max - 1) / (n - 1) for n labels; `windows` says in how many windows a long text was read. `escalate` says that the confidence is
    below what the judge's promise of agreement holds for; `zero_shot` that nobody trained for the question.
    """

    judge: str
    label: str
    score: float
    probabilities: dict[str, float]
    confidence: float
    p_max: float
    flagged: bool
    windows: int = 1
    escalate: bool = False
    zero_shot: bool = False


class Abstention(Frozen):
    """No answer, and why: a stable code, a message for people, and the next step."""

    judge: str
    code: str
    message: str
    hint: str = ""

    @classmethod
    def of(cls, judge: str, error: SnapjudgeError) -> "Abstention":
        """The abstention that an error of one input becomes."""
        return cls(judge=judge, code=error.code, message=error.message, hint=error.hint)


def judge_of(judge: str, metric: Metric, calibration: Calibration, log_p: Sequence[float], windows: int, part: str = "") -> Judgement:
    """The judgement of raw label log-probabilities, in label order; `part` of the traffic as `Calibration.part_of` says."""
    values = calibration.apply(log_p, part)
    probabilities = dict(zip(metric.labels, values, strict=True))
    p_max = max(values)
    count = len(values)
    score = metric.score_of(probabilities)
    flagged = bool(metric.positive_labels) and score >= calibration.threshold.value
    confidence = max(0.0, (count * p_max - 1) / (count - 1))
    return Judgement(
        judge=judge,
        label=metric.label_names[values.index(p_max)],
        score=score,
        probabilities=probabilities,
        confidence=confidence,
        p_max=p_max,
        flagged=flagged,
        windows=windows,
        escalate=calibration.escalation is not None and confidence < calibration.escalation.value,
    )
