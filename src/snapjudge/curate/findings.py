"""What an audit finds, as values: findings with their rows, shortcuts with their intervals, kinds of text. Knows nothing of how they are found."""

from typing import Literal

from pydantic import Field

from snapjudge.core.frozen import Frozen

Severity = Literal["error", "warning", "info"]


class Row(Frozen):
    """An example a finding names."""

    id: str
    where: str
    label: str
    text: str
    note: str = ""


class Finding(Frozen):
    """One thing found: a stable code, how bad it is, one sentence, and the rows it is about (the first of `count`)."""

    code: str
    severity: Severity
    message: str
    advice: str = ""
    count: int = 0
    rows: tuple[Row, ...] = ()


class ShortcutFigure(Frozen):
    """How well one property alone predicts a label: AUROC with its 95 % interval."""

    name: str
    label: str
    detail: str
    auroc: float
    low: float
    high: float


class Cluster(Frozen):
    """A kind of text: the words that tell it from the rest, how many there are, how they are labelled, how many are in the test."""

    words: tuple[str, ...]
    examples: int
    labels: dict[str, int]
    test: int


class Audit(Frozen):
    """audit.json: what was looked at and found."""

    format: int = 1
    metric: str
    examples: int
    parts: dict[str, dict[str, int]] = Field(description="part -> label -> examples")
    findings: tuple[Finding, ...]
    shortcuts: tuple[ShortcutFigure, ...]
    words_auroc: ShortcutFigure | None = Field(default=None, description="what a bag of words tells: the ease of the data, no fault of it")
    noise: float | None = Field(default=None, description="estimated share of wrong labels")
    languages: dict[str, float] = Field(description="share of texts by language, of those looked at")
    personal: dict[str, int] = Field(description="examples with personal data, by kind")
    clusters: tuple[Cluster, ...] = ()

    def failed(self, level: Literal["error", "warning", "never"]) -> bool:
        """Whether there is a finding at that level or above."""
        bad = {"error": ("error",), "warning": ("error", "warning"), "never": ()}[level]
        return any(finding.severity in bad for finding in self.findings)
