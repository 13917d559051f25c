"""The recipe of a multi-task training: tasks, the files they draw from, and the many ways each is asked. Knows nothing of models.

Format: docs/pretraining.md. Every problem of a recipe is named with the place it is at.
"""

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from string import Formatter
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from snapjudge.core.frozen import Frozen
from snapjudge.core.metric import InputName, Name
from snapjudge.errors import OptionInvalid

_Kind = TypeVar("_Kind", bound=Frozen)
SLOT = re.compile(r"\{\{|\}\}|\{(\w+)\}")  # of a template: a doubled brace, or a slot
MadeKind = Literal["injection", "harmless", "grounding", "tools", "personal", "copied", "scope", "relabelled"]


class Facet(Frozen):
    """A yes-or-no question about what a row is labelled as: of a row's own value the answer is yes, of another's no."""

    field: Literal["label", "category"] = "category"
    files: tuple[str, ...] = ()
    where: str | None = Field(default=None, description="only rows of this label")
    ask: tuple[str, ...] = Field(min_length=1, description="wordings; {name} is what the value is called")
    names: dict[str, str] | Literal["auto"] = Field(description="value -> what it is called; `auto` takes the value with spaces for underscores")
    skip: tuple[str, ...] = ()
    absent: bool = Field(default=False, description="rows without a value are asked, too; the answer is no")

    @model_validator(mode="after")
    def _filled(self) -> "Facet":
        _check_places(self.ask, "name")
        return self


class Choice(Frozen):
    """A question with several one-word answers, which the wording lists in random order."""

    field: Literal["label", "category"] = "label"
    ask: tuple[str, ...] = Field(min_length=1, description="wordings; {options} becomes the answers")
    names: dict[str, str] = Field(min_length=2, description="value -> the word that answers")
    listed: bool = Field(default=True, description="False: all answers, not listed, as for the digits of a rubric")

    @model_validator(mode="after")
    def _filled(self) -> "Choice":
        _check_places(self.ask, "options" if self.listed else "")
        return self


class Made(Frozen):
    """Rows made from others: by perturbation, by copying out of the context, by pairing with a scope, or taken as they are under another label."""

    kind: MadeKind
    files: tuple[str, ...] = Field(min_length=1)
    where: str | None = Field(default=None, description="only parents of this label")
    count: int = Field(ge=1)
    label: str | None = Field(default=None, description="the label of the made rows, where making does not decide it")


class Task(Frozen):
    """One thing the backbone learns to judge."""

    weight: float = Field(default=1.0, gt=0)
    files: tuple[str, ...] = ()
    benign: tuple[str, ...] = Field(default=(), description="files whose rows all answer no")
    templates: tuple[str, ...] = Field(default=(), description="files of templates beside the recipe")
    made: tuple[Made, ...] = ()
    inputs: tuple[InputName, ...] = Field(default=(), description="where the text of benign and made rows goes; empty: where it was")
    rename: tuple[InputName, ...] = Field(default=(), description="other names that a single text field is read under")
    yes: str = Field(default="True", description="the label that answers the questions with yes")
    longest: int = Field(default=320, ge=16, description="tokens; longer contents are left out")
    questions: tuple[str, ...] = ()
    opposites: tuple[str, ...] = ()
    words: tuple[tuple[str, str], ...] = Field(default=(), description="other answer words for (yes, no)")
    facets: tuple[Facet, ...] = ()
    choices: tuple[Choice, ...] = ()
    never_in: tuple[str, ...] = Field(default=(), description="files whose rows, when asked this task's question, answer no")

    @property
    def asks_label(self) -> bool:
        """Whether facets or choices ask about the label itself."""
        return any(facet.field == "label" for facet in self.facets) or any(choice.field == "label" for choice in self.choices)

    @model_validator(mode="after")
    def _asks(self) -> "Task":
        if not (self.questions or self.facets or self.choices):
            raise ValueError("it asks nothing: give it `questions`, `facets` or `choices`")
        return self


class Recipe(Frozen):
    """The whole mixture."""

    name: Name
    tasks: dict[Name, Task] = Field(min_length=1)
    surface: float = Field(default=0.1, ge=0, le=1, description="share of contents also asked something a program can answer")
    noise: float = Field(default=0.3, ge=0, le=1, description="share of contents read with noise")

    @property
    def files(self) -> list[str]:
        """All data files that it names."""
        named = ([*task.files, *task.benign, *task.never_in, *(file for made in task.made for file in made.files)] for task in self.tasks.values())
        return sorted({name for names in named for name in names})


class Template(Frozen):
    """A row with {slot}s."""

    label: str
    category: str = ""
    inputs: dict[InputName, str] = Field(min_length=1)


class Templates(Frozen):
    """Rows written with slots, and what the slots may hold: texts, which may hold slots in turn. A double brace is a brace."""

    slots: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    invented: dict[str, str] = Field(default_factory=dict, description="slot -> the method of Faker that fills it")
    rows: tuple[Template, ...] = Field(min_length=1)


def read_recipe(path: Path) -> Recipe:
    """The recipe of a file.

    Raises:
        OptionInvalid: not readable, or not a recipe; every problem is named.
    """
    return _checked(path, Recipe)


def read_templates(path: Path) -> Templates:
    """The templates of a file.

    Raises:
        OptionInvalid: as for `read_recipe`.
    """
    found = _checked(path, Templates)
    known = {*found.slots, *found.invented}
    texts = [*(text for row in found.rows for text in row.inputs.values()), *(text for texts in found.slots.values() for text in texts)]
    unknown = sorted({slot for text in texts for slot in SLOT.findall(text) if slot and slot not in known})
    if unknown:
        raise OptionInvalid(f"{path}: no slot is called {unknown[0]!r}", hint=f"slots: {', '.join(sorted(known))}", received=unknown[0])
    held = {name: {slot for text in own for slot in SLOT.findall(text) if slot in found.slots} for name, own in found.slots.items()}
    try:
        TopologicalSorter(held).prepare()
    except CycleError as error:
        circle = " in ".join(map(repr, reversed(error.args[1])))
        raise OptionInvalid(f"{path}: slots hold each other: {circle}", hint="take one out of the other's texts", received=error.args[1][0]) from error
    return found


def _check_places(wordings: tuple[str, ...], name: str) -> None:
    """Every wording has the place that is filled in, and no other."""
    for wording in wordings:
        places = {place for _, place, _, _ in Formatter().parse(wording) if place is not None}
        if places - {name} or (name and name not in places):
            raise ValueError(f"the wording {wording!r} should hold {{{name}}} and no other place" if name else f"the wording {wording!r} should hold no place")


def _checked(path: Path, kind: type[_Kind]) -> _Kind:
    try:
        return kind.model_validate(_loaded(path))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, one['loc'])) or '(file)'}: {one['msg']}" for one in error.errors()[:10])
        raise OptionInvalid(f"{path}: {problems}", hint="docs/pretraining.md describes the format", received=str(path)) from error


def _loaded(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - plain texts only: an answer word `no` stays a word
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise OptionInvalid(f"cannot read {path}: {error}", hint="a YAML file; docs/pretraining.md describes the format", received=str(path)) from error
