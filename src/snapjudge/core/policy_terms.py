"""What a policy says beside its rules: what is done, who is told, where a question goes that its judge should not answer, how texts are looked at meanwhile."""

from typing import Any, Literal

from pydantic import AnyHttpUrl, Field, model_validator

from snapjudge.core.frozen import Frozen

Status = Literal["triggered", "not_triggered", "error", "timeout", "skipped", "paused"]
ActionType = Literal["allow", "flag", "redact", "steer", "override", "block", "escalate"]
ENDING: tuple[ActionType, ...] = ("allow", "block", "override", "escalate")  # what ends a stage; the others add to what is decided
STOPPING: tuple[ActionType, ...] = ("block", "escalate")  # what lets no text through
STRENGTH: tuple[ActionType, ...] = ("allow", "flag", "steer", "redact", "override", "escalate", "block")
Condition = Literal["language", "format", "windowed", "out_of_distribution", "low_confidence", "failed"]


class Action(Frozen):
    """What is done.

    Args:
        message: of block: for the one who asked; of steer: for the model.
        text: of override: what is used instead; {label}, {score}, {judge}, {ruleset} and {text} stand for what was found.
        kinds: of redact: kinds of personal data, all unless said.
        to: of escalate: who looks at it, such as a person's queue or an endpoint's name.
    """

    type: ActionType
    message: str = ""
    text: str = ""
    kinds: tuple[str, ...] = ()
    to: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """The short form people write: `block`, or `{block: {message: ...}}`, `{steer: "..."}`."""
        if isinstance(given, str):
            return {"type": given}
        if isinstance(given, dict) and len(given) == 1 and "type" not in given:
            ((kind, more),) = given.items()
            main = {"block": "message", "steer": "message", "override": "text", "escalate": "to"}.get(kind)
            if isinstance(more, str) and main:
                more = {main: more}
            return {"type": kind, **(more or {})} if isinstance(more, dict | None) else given
        return given

    @model_validator(mode="after")
    def _whole(self) -> "Action":
        needed = {"override": self.text, "steer": self.message, "escalate": self.to}.get(self.type, "-")
        if not needed:
            raise ValueError(
                {"override": "override needs a text", "steer": "steer needs a message", "escalate": "escalate needs somebody `to` look at it"}[self.type]
            )
        return self


class Webhook(Frozen):
    """Whom to tell of a ruleset's outcome."""

    url: AnyHttpUrl
    on: tuple[Status, ...] = ("triggered",)
    secret_env: str = Field(default="", description="environment variable with the secret that signs what is sent")


class Route(Frozen):
    """Where a question goes that its judge should not answer alone, or has not. The first that fits an answer and leads to one counts.

    Args:
        when: language: the text is in a language that the judge was not proved on; format: it holds chat templates, or what the backbone cannot read;
            windowed: it is longer than a window; out_of_distribution: nothing like it was among what the judge was calibrated on; low_confidence: below
            what its promise of agreement holds for; failed: there is no answer.
        below: the confidence below which it is low, for judges without such a promise.
        judges: whose answers, as rules name them; all unless said.
        judge: another judge answers, which may be on another backbone.
        llm: a language model answers by the metric's own policy: an endpoint's name, or `any`.
        person: the answer stays, and the text is put before people under this name.
        abstain: there is no answer, and the rule fails as it is to fail.
    """

    when: tuple[Condition, ...] = Field(min_length=1)
    below: float | None = Field(default=None, ge=0, le=1)
    judges: tuple[str, ...] = ()
    judge: str = ""
    llm: str = ""
    person: str = ""
    abstain: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, given: Any) -> Any:
        """The short form people write: `{when: windowed, to: llm}`, `{when: [language, format], to: {judge: other}}`."""
        if not isinstance(given, dict):
            return given
        known = dict(given)
        for name in ("when", "judges"):
            if isinstance(known.get(name), str):
                known[name] = [known[name]]
        to = known.pop("to", None)
        if isinstance(to, str):
            to = {"llm": {"llm": "any"}, "abstain": {"abstain": True}, "person": {"person": "people"}}.get(to, {"judge": to})
        return {**known, **to} if isinstance(to, dict) else known

    @model_validator(mode="after")
    def _somewhere(self) -> "Route":
        if sum(map(bool, (self.judge, self.llm, self.person, self.abstain))) != 1:
            raise ValueError("a route leads to one of judge, llm, person and abstain")
        if self.below is not None and "low_confidence" not in self.when:
            raise ValueError("below is for low_confidence")
        return self

    @property
    def to(self) -> str:
        """Where it leads, for people and counters."""
        return "judge" if self.judge else "llm" if self.llm else "person" if self.person else "abstain"


class Streaming(Frozen):
    """How texts are looked at while they are written. A text is given on as far as a look at it came to nothing, less what is held back.

    Args:
        every: tokens of the judges' backbone from one look to the next.
        sentences: whether the end of a sentence is looked at, too.
        agree: looks in a row that a ruleset has to fire in before its action is taken; the last look at a whole text counts alone.
        hard: the score from which on a flagged answer counts at once; None for never. Keywords and patterns always do.
        hold_back: newest tokens that wait for what follows them though a look at them came to nothing.
    """

    every: int = Field(default=24, ge=1, le=4096)
    sentences: bool = True
    agree: int = Field(default=2, ge=1, le=8)
    hard: float | None = Field(default=0.95, ge=0, le=1)
    hold_back: int = Field(default=12, ge=0, le=4096)
