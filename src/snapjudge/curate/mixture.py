"""A multi-task mixture: the rows of a recipe's files, and what each content is asked, as a pure function of seed and number.

Draw n is always the same content with the same questions, so that a run can stop and go on anywhere. Knows nothing of models.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from snapjudge.core.example import Example, Provenance, length_of, plain_text
from snapjudge.curate.made import copied, expanded, scoped
from snapjudge.curate.perturb.noise import NOISES, diluted, noisy_fields
from snapjudge.curate.perturb.rows import perturb
from snapjudge.curate.recipe import Choice, Facet, Made, Recipe, Task, read_templates
from snapjudge.curate.surface import surface_question
from snapjudge.curate.task_rows import Row, benign_rows, check_labels, number_of, place_of, read_rows
from snapjudge.errors import OptionInvalid

HELD_BACK = 40  # one group in so many is kept for the curves
_RENAMED, _WRONG, _FACET, _DILUTED = 0.3, 0.25, 0.75, 0.08
_SHORT = 600  # letters of a text that may be diluted
_OPPOSITE, _WORDED, _TWICE = 0.3, 0.12, 0.4


@dataclass(frozen=True)
class Posed:
    """One question about a content: its words, the answers' words and which is right."""

    text: str
    words: tuple[str, ...]
    answer: int
    task: str


@dataclass
class _Side:
    """Rows of a task with one answer (or, of a task without questions of its own, one label), by file."""

    files: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def draw(self, rng: random.Random) -> Row:
        """A file by the root of its size, then any of its rows."""
        names = sorted(self.files)
        (name,) = rng.choices(names, [len(self.files[name]) ** 0.5 for name in names])
        return rng.choice(self.files[name])


@dataclass(frozen=True)
class _Facet:
    """A facet with what each value it knows is called."""

    spec: Facet
    names: Mapping[str, str]
    phrases: tuple[str, ...]

    @classmethod
    def of(cls, spec: Facet, rows: Sequence[Row]) -> "_Facet":
        """With the names of the recipe, or for `auto` those of the rows."""
        names = spec.names
        if names == "auto":
            names = {value: _spelled(value) for row in rows for value in _values(spec, row) if value not in spec.skip}
        assert isinstance(names, dict)
        return cls(spec, names, tuple(sorted(set(names.values()))))

    def fits(self, row: Row) -> bool:
        """Whether there is something to ask about the row."""
        return bool(self.mine(row)) or (self.spec.absent and row.answer is False)

    def mine(self, row: Row) -> list[str]:
        """What a row's own values are called; empty where the facet is not about such rows."""
        if self.spec.where not in (None, row.label) or (self.spec.files and row.file not in self.spec.files and not row.file.startswith("made/")):
            return []
        return [self.names[value] for value in _values(self.spec, row) if value in self.names]

    def question(self, name: str, row: Row, rng: random.Random) -> Posed:
        """Of one of the row's own values, or of another one: the answer is yes or no by chance."""
        mine = self.mine(row)
        others = [phrase for phrase in self.phrases if phrase not in mine]
        right = bool(mine) and (not others or rng.random() < 0.5)
        phrase = rng.choice(mine if right else others)
        return Posed(_varied(rng.choice(self.spec.ask).format(name=phrase), rng), ("yes", "no"), int(not right), name)


class Mixture:
    """Rows and questions of a recipe.

    Args:
        folder: where the recipe's template files lie; `data` where its rows do.
        without: files or tasks that are left out altogether, for measuring on what was never seen.
        weights: task -> how often it is drawn, instead of what the recipe says.
        share: how much of the rows is used, for measuring what data are worth.
        tokens: how many tokens a content has; rows longer than their task reads are left out. Without it none are: judges read in windows.

    Raises:
        OptionInvalid: a file is missing, or a task is left without rows, or with one answer only.
        DataInvalid: lines that cannot be read, or that lack what their task asks about.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        data: Path,
        *,
        seed: int,
        without: Iterable[str] = (),
        share: float = 1.0,
        instructions: bool = True,
        weights: Mapping[str, float] | None = None,
        tokens: Callable[[Mapping[str, Any]], int] | None = None,
    ) -> None:
        given = dict(weights or {})
        if odd := sorted(name for name, weight in given.items() if name not in recipe.tasks or weight <= 0):
            raise OptionInvalid(f"a weight of {given[odd[0]]:g} for {odd[0]!r}", hint=f"more than 0, for {', '.join(recipe.tasks)}", received=odd[0])
        self.recipe, self.seed, self.instructions = recipe, seed, instructions
        self._folder, self._data, self._without, self._share, self._tokens = folder, data, set(without), share, tokens
        known = {*recipe.tasks, *recipe.files}
        if unknown := sorted(self._without - known):
            raise OptionInvalid(f"nothing in the recipe is called {unknown[0]!r}", hint=f"files and tasks: {', '.join(sorted(known))}", received=unknown[0])
        self._files: dict[str, list[Row]] = {}
        kept = [name for name in recipe.tasks if name not in self._without]
        self.tasks = {name: recipe.tasks[name].model_copy(update={"weight": given.get(name, recipe.tasks[name].weight)}) for name in kept}
        self.gathered: Counter[str] = Counter()  # rows by file
        self.too_long: Counter[str] = Counter()  # those of them that are longer than their task reads
        self.rows: dict[str, list[Row]] = {}
        self.held_back: dict[str, list[Row]] = {}
        self.sides: dict[str, dict[str, _Side]] = {}
        self.facets: dict[str, list[_Facet]] = {}
        for name, task in self.tasks.items():
            self._gather(name, task)
        self.tasks = {name: task for name, task in self.tasks.items() if self.rows[name]}
        if not self.tasks:
            raise OptionInvalid("nothing is left to learn", hint="leave out less", received=", ".join(sorted(self._without)))
        self._never_asked: dict[str, list[str]] = defaultdict(list)
        for name, task in self.tasks.items():
            for file in self._kept(task.never_in):
                self._file(file)  # a name that is no file is told here
                self._never_asked[file].append(name)
        self._words = sorted({word for rows in list(self.rows.values()) for row in rows[:300] for word in plain_text(row.inputs).split() if word.isalpha()})

    @property
    def sources(self) -> dict[str, Path]:
        """The files that were read, by their names in the recipe."""
        beside = {name for task in self.tasks.values() for name in task.templates}
        return {name: self._path(name) for name in sorted(self._files)} | {name: self._folder / name for name in sorted(beside)}

    @property
    def licences(self) -> dict[str, str]:
        """The licences that the rows of each data file state."""
        return {name: "; ".join(sorted({row.licence or "not stated" for row in rows})) for name, rows in sorted(self._files.items())}

    def _path(self, name: str) -> Path:
        return self._data / f"{name}.train.jsonl"

    def _kept(self, files: Sequence[str]) -> list[str]:
        return [name for name in files if name not in self._without]

    def _file(self, name: str) -> list[Row]:
        if name not in self._files:
            path = self._path(name)
            if not path.exists():
                hint = "say with --data where the rows lie, or leave it out with --without"
                raise OptionInvalid(f"the recipe's file {path} does not exist", hint=hint, received=name)
            self._files[name] = [row for row in read_rows(path, name) if _held(row) or number_of(f"share:{row.group}", 1000) < self._share * 1000]
        return self._files[name]

    def _gather(self, name: str, task: Task) -> None:
        """The task's rows: labelled, benign, from templates and made; some groups are held back."""
        for file in self._kept(task.files):
            check_labels(self._path(file).name, self._file(file), task)
        rows = [replace(row, answer=row.label == task.yes) for file in self._kept(task.files) for row in self._file(file)]
        for file in self._kept(task.benign):
            rows += benign_rows(task, self._file(file))
        for file in task.templates:
            made = expanded(read_templates(self._folder / file), self.seed)
            rows += [Row(inputs, label, (category,), file, f"{file}:{number}", answer=label == task.yes) for number, inputs, label, category in made]
        for made_spec in task.made:
            made_rows = self._made(made_spec, task)
            if self._kept(made_spec.files) and not made_rows:
                hint = "`files` and `where` name rows that it can be made from: see docs/pretraining.md"
                raise OptionInvalid(f"task {name}: no rows of kind {made_spec.kind} could be made", hint=hint, received=made_spec.kind)
            rows += made_rows
        if rows and task.questions and not any(row.answer for row in rows):
            found = ", ".join(sorted({row.label for row in rows})[:8])
            raise OptionInvalid(
                f"task {name}: no row answers its questions with yes", hint=f"`yes: {task.yes}` is to be one of its labels: {found}", received=task.yes
            )
        if rows and task.questions and not task.never_in and all(row.answer for row in rows):
            hint = "label some rows with another label, or name files whose rows answer no: `benign`, `never_in`"
            raise OptionInvalid(f"task {name}: no row answers its questions with no", hint=hint, received=task.yes)
        rows = self._short(rows, task.longest)
        self.held_back[name] = [row for row in rows if _held(row)]
        kept = self.rows[name] = [row for row in rows if not _held(row)]
        sides: dict[str, _Side] = defaultdict(_Side)
        for row in kept:
            sides[str(row.answer) if task.questions else row.label if task.asks_label else ""].files[row.file].append(row)
        self.sides[name] = dict(sorted(sides.items()))
        self.facets[name] = [_Facet.of(facet, kept) for facet in task.facets]

    def _short(self, rows: list[Row], longest: int) -> list[Row]:
        """Rows of at most so many tokens; the others are counted."""
        self.gathered.update(row.file for row in rows)
        if self._tokens is None:
            return rows
        kept = []
        for row in rows:
            if length_of(row.inputs) <= longest // 2 or self._tokens(row.inputs) <= longest:  # few letters are few tokens, with those of fields and tools
                kept.append(row)
            else:
                self.too_long[row.file] += 1
        return kept

    def _made(self, spec: Made, task: Task) -> list[Row]:
        parents = [row for file in self._kept(spec.files) for row in self._file(file) if spec.where in (None, row.label)]
        if not parents:
            return []
        rng = random.Random(f"{self.seed}:{spec.kind}")  # noqa: S311 - reproducible data
        count = max(1, round(spec.count * self._share))
        if spec.kind == "copied":
            found = copied([(row.inputs, row.group) for row in parents], count, rng)
            return [Row(inputs, str(label), (), "made/copied", group, answer=(str(label) == task.yes)) for inputs, label, group in found]
        if spec.kind == "scope":
            topics = [(plain_text(row.inputs), _spelled(row.categories[0]), row.group) for row in parents if row.categories[0] != "oos"]
            return [Row(inputs, str(label), (), "made/scope", group, answer=(str(label) == task.yes)) for inputs, label, group in scoped(topics, count, rng)]
        assert spec.label is not None, f"{spec.kind} rows need a label"
        answer = spec.label == task.yes
        if spec.kind == "relabelled":
            chosen = rng.sample(parents, min(count, len(parents)))
            texts = ((row, row.inputs.get("output") or row.inputs.get("input") or plain_text(row.inputs)) for row in chosen)
            return [Row({place_of(task, str(text)): text}, spec.label, (), "made/relabelled", row.group, answer=answer) for row, text in texts]
        examples = [Example(id=str(at), inputs=dict(row.inputs), provenance=Provenance(group=row.group)) for at, row in enumerate(parents)]
        changed = perturb(examples, spec.kind, count, self.seed)
        return [Row(example.inputs, spec.label, (example.provenance.category,), f"made/{spec.kind}", example.group, answer=answer) for example in changed]

    def draw(self, number: int) -> tuple[dict[str, Any], list[Posed]]:
        """The inputs of a content and what it is asked."""
        rng = random.Random(f"{self.seed}:draw:{number}")  # noqa: S311 - reproducible
        names = list(self.tasks)
        (name,) = rng.choices(names, [self.tasks[one].weight for one in names])
        sides = self.sides[name]
        row = sides[rng.choice(list(sides))].draw(rng)
        posed = self.asked(name, row, rng)
        inputs = self._renamed(self.tasks[name], row.inputs, rng)
        if rng.random() < self.recipe.surface and self.instructions:
            posed.append(_posed(surface_question(inputs, self._words, rng), "surface"))
        elif rng.random() < self.recipe.noise:
            inputs = self._noisy(inputs, rng)
        return inputs, posed

    def longest(self, task: str) -> int:
        """Tokens a content of this task may have (of a question that belongs to no task: the most of any)."""
        found = self.tasks.get(task)
        return found.longest if found is not None else max(one.longest for one in self.tasks.values())

    def asked(self, name: str, row: Row, rng: random.Random) -> list[Posed]:
        """The questions of one draw about a row of a task: its own, one of its facets or choices, and now and then a wrong one.

        Without instructions there is one: the task's name, to be answered as its own questions are.
        """
        if not self.instructions:
            return [] if row.answer is None else [Posed(f"{name}:", ("yes", "no"), int(not row.answer), name)]
        task, posed = self.tasks[name], list[Posed]()
        if task.questions and row.answer is not None:
            posed += [own_question(task, name, row.answer, rng) for _ in range(1 + (rng.random() < _TWICE))]
        special: list[_Facet | Choice] = [one for one in self.facets[name] if one.fits(row)]
        special += [one for one in task.choices if _values(one, row)[0] in one.names]
        if special and (not posed or rng.random() < _FACET):
            for one in rng.choices(special, k=1 if posed else 3):
                posed.append(one.question(name, row, rng) if isinstance(one, _Facet) else choice_question(one, name, row, rng))
        if (others := self._never_asked.get(row.file)) and rng.random() < _WRONG:
            other = rng.choice(others)
            if other != name:
                posed.append(own_question(self.tasks[other], other, answer=False, rng=rng))
        return posed

    def _renamed(self, task: Task, inputs: Mapping[str, Any], rng: random.Random) -> dict[str, Any]:
        if task.rename and len(inputs) == 1 and rng.random() < _RENAMED:
            return {rng.choice(task.rename): next(iter(inputs.values()))}
        return dict(inputs)

    def _noisy(self, inputs: dict[str, Any], rng: random.Random) -> dict[str, Any]:
        """One kind of noise in the text fields, or neutral sentences around a short one."""
        short = all(len(value) < _SHORT for value in inputs.values() if isinstance(value, str))
        if short and rng.random() < _DILUTED / max(self.recipe.noise, _DILUTED):
            return diluted(inputs, rng)
        return noisy_fields(inputs, rng.choice(list(NOISES)), rng)


def own_question(task: Task, name: str, answer: bool, rng: random.Random) -> Posed:  # noqa: FBT001
    """One of the task's wordings: as it is, negated, or with other answer words, which it then lists."""
    kind = rng.random()
    if task.opposites and kind < _OPPOSITE:
        return Posed(_varied(rng.choice(task.opposites), rng), ("yes", "no"), int(answer), name)
    if task.words and kind < _OPPOSITE + _WORDED:
        words = rng.choice(task.words)
        listed = rng.sample(words, 2)
        return Posed(f"{rng.choice(task.questions)} {listed[0]} or {listed[1]}?", words, int(not answer), name)
    return Posed(_varied(rng.choice(task.questions), rng), ("yes", "no"), int(not answer), name)


def choice_question(choice: Choice, name: str, row: Row, rng: random.Random) -> Posed:
    """The question with all or some of the answers, listed in random order."""
    right = choice.names[_values(choice, row)[0]]
    words = sorted(set(choice.names.values()))
    if not choice.listed:
        return Posed(rng.choice(choice.ask), tuple(words), words.index(right), name)
    others = rng.sample([word for word in words if word != right], rng.randint(1, min(8, len(words) - 1)))
    options = rng.sample([right, *others], len(others) + 1)
    return Posed(rng.choice(choice.ask).format(options=", ".join(options)), tuple(options), options.index(right), name)


def _posed(found: tuple[str, bool], task: str) -> Posed:
    return Posed(found[0], ("yes", "no"), int(not found[1]), task)


def _varied(question: str, rng: random.Random) -> str:
    """Now and then without its mark, or with a few words before it."""
    kind = rng.random()
    if kind < 0.1:
        return question.rstrip("?")
    if kind < 0.16:
        return f"{rng.choice(('Please decide:', 'Yes or no:', 'Decide:', 'Check:'))} {question[:1].lower()}{question[1:]}"
    return question


def _values(one: Facet | Choice, row: Row) -> tuple[str, ...]:
    return (row.label,) if one.field == "label" else row.categories


def _spelled(value: str) -> str:
    return value.replace("_", " ").strip("? ").lower()


def _held(row: Row) -> bool:
    """Whether a row is of the groups that are kept back, however small a share of the others is used."""
    return number_of(row.group, HELD_BACK) == 0
