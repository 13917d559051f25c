"""Rows for the built-in judges, from the same recipe as the backbone: what each learns from, and what it is measured on.

Training rows are the recipe's (labelled, benign, written and made); the groups that the backbone's training held back decide when to stop. The `.dev` files,
which neither the backbone nor a judge learns from, are dealt by group to calibration and test.
"""

import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from benchmarks.balance import balanced, matched
from benchmarks.common import METRICS, ROOT, number_of
from benchmarks.scope_data import everyday, of_assistants, of_fields
from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.curate.made import expanded
from snapjudge.curate.mixture import Mixture
from snapjudge.curate.read import Record, to_example
from snapjudge.curate.recipe import Task, read_recipe, read_templates
from snapjudge.curate.split import groups_of
from snapjudge.curate.task_rows import Row, benign_rows, read_rows
from snapjudge.flows.metric_files import read_metric
from snapjudge.model.adapter import Scope

RECIPE = ROOT / "recipes" / "mini" / "recipe.yaml"
_VALIDATION = 20  # one group in so many, where the backbone held back too little
_WRITTEN, _WRITTEN_KINDS, _WRITTEN_MANNERS = 2000, 800, 400  # rows of unseen templates: of personal data, of kinds of toxicity, of manners
_IDENTITY = 600  # rows of statements about who people are
_TOGETHER = {"train": 2000, "dev": 400}  # rows of templates with several kinds of personal data
_LONG_REQUESTS = {"train": 3000, "dev": 800}  # rows of the templates of long requests
_BLUNT = {"train": 4000, "dev": 500}  # rows of short blunt requests
_SLANG = 600  # rows of unseen templates of abuse in slang
_PASTED = {"train": 600, "dev": 150}  # rows of either answer whose document stands in the input
_REQUESTS, _FIELDED = "intent_offtopic/clinc150", 3000  # requests by intent, and how many of them stand under a scope of some fields
_BEGINNING = 200  # letters within which a refusal declines
_DECLINES = re.compile(
    r"\bi(?:'m| am) (?:\w+ )?sorry|\bi apologi[sz]e|\bi can(?:'|no|\u2019)t|\bi cannot|\bi(?:'m| am) not able|\bi won't|\bi will not|\bas an ai\b"
    r"|\bunable to\b|\u62b1\u6b49|\u65e0\u6cd5",
    re.IGNORECASE,
)
OURS = "written for snapjudge, or made from rows of the other files"
_ORIGIN = re.compile(r"^\| (\S+) \| [\d,]+ \| .* \| <(\S+)> \|$", re.MULTILINE)  # of a set, in the table of docs/mini.md
NOISE = 1 / 3  # share of training rows that also stand there with noise
PARTS = ("train", "validation", "calibration", "test")

Label = Callable[[Row], str | None]


def _yes_or_no(yes: str, no: str) -> Label:
    return lambda row: None if row.answer is None else yes if row.answer else no


def _own(row: Row) -> str | None:
    return row.label


HAZARDS = {
    "violent_crimes": ("vcr", "Violence", "violence", "terrorism"),
    "nonviolent_crimes": (
        *("ncr", "nvc", "Malware Viruses", "Fraud/Deception", "Economic Harm", "Non-violent crimes", "Illegal goods and services", "fraud"),
        *("cybercrime_intrusion/standard", "illegal/standard"),
    ),
    "sex_crimes": ("src", "scr"),
    "child_exploitation": ("cse", "cae", "Child Abuse", "pornography_sexual_minors"),
    "defamation": ("dfm",),
    "specialized_advice": ("spc_lgl", "spc_fin", "spc_hlt", "Tailored Financial Advice"),
    "privacy": ("prv", "Privacy Violation Activity"),
    "intellectual_property": ("ipv", "copyright/copyright"),
    "indiscriminate_weapons": ("iwp", "cbr", "chemical_biological/standard"),
    "hate": ("hte", "hat", "Hate/Harass/Violence", "Hate, harassment and discrimination", "race", "religion"),
    "suicide_self_harm": ("ssh", "suicide"),
    "sexual_content": ("sxc_prn", "Adult Content", "Sexual content"),
    "elections": ("spc_ele", "Political Campaigning"),
    "code_interpreter_abuse": (),
}
_HAZARD_OF = {raw: hazard for hazard, raws in HAZARDS.items() for raw in (hazard, *raws)}


def _hazard(row: Row) -> str | None:
    """The hazard of an unsafe request; none for a safe one; nothing where the file's own categories say too little."""
    if row.answer is False:
        return "none"
    raw = row.categories[0] if row.categories else ""
    return _HAZARD_OF.get(raw) or _HAZARD_OF.get(raw.split("-")[0])


def _toxic_kind(row: Row) -> str | None:
    """Where the file says what kind it is, or is of one kind only.

    Toxic comments of Toxic Spans are of kinds that nobody has told, so its harmless ones are left out, too: alone they would teach that such comments are none.
    """
    if row.file.endswith("toxic_spans"):
        return None
    if row.answer is False:
        return "none"
    if row.file.endswith(("toxigen", "implicit_hate")):
        return "hate"
    kinds = {
        "hate": "hate",
        "insult": "insult",
        "threat": "threat",
        "offensive": "offensive",
        "threateninglanguage": "threat",
        "derogation": "hate",
        "dehumanizinglanguage": "hate",
        "animosity": "hate",
    }
    found = next((kinds[value] for value in row.categories if value in kinds), None)
    if row.file.endswith("convabuse"):
        found = "insult" if {"explicit", "implicit"} & set(row.categories) else None
    return found


_KINDS = {
    "name": ("PERSON", "name"),
    "address": ("ADDRESS", "address"),
    "phone": ("PHONE_NUMBER", "phone_number"),
    "email": ("EMAIL_ADDRESS", "email"),
    "card": ("CREDIT_CARD", "credit_card_number"),
    "account": ("IBAN_CODE", "iban"),
    "identity_number": ("US_SSN", "ssn"),
}


_BY_DIGITS = ("pii_phone", "pii_card", "pii_account")  # judges that also learn from numbers of all kinds in the same sentences


def _has(kind: str) -> Label:
    return lambda row: "present" if set(_KINDS[kind]) & set(row.categories) else "absent"


@dataclass(frozen=True)
class BuiltIn:
    """One built-in judge: the task its rows are of, how a row is labelled, the name its text is read under where that is another, what stands in a field that a
    row lacks, the most rows of an answer that the `.dev` files give (0: all), whether groups of the rows gathered for it are held back, too, and the
    label that has its share at every length, and (`by_source`) in every source that has it and others, so that neither tells it.
    """

    task: str
    label: Label
    rows: int = 5000
    rename: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    most: int = 0
    held: bool = False
    scope: Scope = "readout"
    epochs: int = 3
    matched: str = ""
    by_source: bool = True


JUDGES: dict[str, BuiltIn] = {
    "toxicity": BuiltIn("toxicity", _yes_or_no("toxic", "fine"), 7000, held=True, matched="fine"),
    "toxicity_category": BuiltIn("toxicity", _toxic_kind, 6000),
    "unsafe_prompt": BuiltIn("unsafe_prompt", _yes_or_no("unsafe", "safe"), 7000, held=True, matched="safe"),
    "unsafe_prompt_category": BuiltIn("unsafe_prompt", _hazard, 7500, held=True, matched="none"),
    "unsafe_response": BuiltIn("unsafe_response", _yes_or_no("unsafe", "safe")),
    "unsafe_response_category": BuiltIn("unsafe_prompt", _hazard, rename={"input": "output"}),
    "prompt_injection": BuiltIn("prompt_injection", _yes_or_no("injection", "clean"), 7000, held=True, matched="clean", by_source=False),
    "groundedness": BuiltIn("groundedness", _yes_or_no("grounded", "ungrounded"), 8000),
    "tool_selection": BuiltIn(
        "tool_selection", lambda row: row.label if row.label in ("correct", "wrong_tool", "wrong_arguments", "missing_call", "not_needed") else None
    ),
    "pii": BuiltIn("pii", _yes_or_no("personal", "clean")),
    **{
        f"pii_{kind}": BuiltIn("pii", _has(kind), 6000 if f"pii_{kind}" in _BY_DIGITS else 3000, scope="all" if kind == "card" else "readout")
        for kind in _KINDS
    },
    "tone": BuiltIn("tone", _own, 8000),
    "politeness": BuiltIn("politeness", _yes_or_no("polite", "impolite")),
    "sexism": BuiltIn("sexism", _yes_or_no("sexist", "fine"), 6000),
    "off_topic": BuiltIn("off_topic", _yes_or_no("off_topic", "in_scope"), 8000, lacking={"context": everyday}, most=600, held=True, scope="all"),
    "refusal": BuiltIn("refusal", _yes_or_no("refusal", "answer")),
}


@dataclass(frozen=True)
class _Written:
    """Templates that a judge has: the file, the most rows of it (0: all), and the categories it has an answer for (none: all)."""

    file: str
    most: int = 0
    only: tuple[str, ...] = ()


class JudgeData:
    """The rows of every built-in judge.

    Args:
        without: files or tasks left out of training, as the backbone that is used left them out.
    """

    def __init__(self, data: Path, *, without: Sequence[str] = (), seed: int = 0) -> None:
        self.data, self.without, self.seed = data, tuple(without), seed
        self.recipe = read_recipe(RECIPE)

    @cached_property
    def mixture(self) -> Mixture:
        """The rows the backbone drew from, and those it held back."""
        return Mixture(self.recipe, RECIPE.parent, self.data, seed=self.seed, without=self.without)

    @cached_property
    def origins(self) -> dict[str, str]:
        """Where each set comes from: a model card gives it with the licence, as attribution."""
        return dict(_ORIGIN.findall((ROOT / "docs" / "mini.md").read_text(encoding="utf-8")))

    def parts(self, name: str) -> dict[str, list[dict[str, Any]]]:
        """Train, validation, calibration and test rows as JSON objects; training rows are balanced, for some judges at every length and in every source.

        No text and no group is in two parts: groups that share a text are dealt as one, and what a part shares with a later one is left out of it.
        """
        judge, metric = JUDGES[name], read_metric(METRICS / f"{name}.yaml")
        rng = random.Random(f"{self.seed}:{name}")  # noqa: S311 - reproducible data
        dev = self.labelled(name, [*self.some(self.dev(judge.task), judge.most), *self.gathered(name, "dev")])
        dealt: dict[str, list[str]] = {"calibration": [], "test": []}
        for group, examples in groups_of(as_examples(dev, metric)).items():
            dealt["calibration" if number_of(group, "calibration", 2) else "test"] += [example.id for example in examples]
        by_id = {row["id"]: row for row in dev}
        found = {part: [row for one, row in by_id.items() if one in set_of] for part, set_of in ((part, set(ids)) for part, ids in dealt.items())}
        taken = _Taken(metric, dev)
        gathered = self.gathered(name, "train")
        kept = self.labelled(name, [*self.mixture.rows.get(judge.task, ()), *gathered])
        validation = taken.without(self.labelled(name, self.mixture.held_back.get(judge.task, ())))
        short = len({row["label"] for row in validation}) < len({row["label"] for row in kept})  # held-back groups that miss a label
        files = {row.file for row in gathered} if judge.held else set()
        more = [row for row in kept if short or row["meta"]["source"] in files]
        validation += taken.without([row for row in more if number_of(row["meta"]["group"], "validation", _VALIDATION) == 0])
        taken.add(validation)
        rows = taken.without(kept)
        train = matched(rows, judge.rows, rng, judge.matched, by_source=judge.by_source) if judge.matched else balanced(rows, judge.rows, rng)
        return {"train": train, "validation": validation, **found}

    def dev(self, task: str, files: Sequence[str] | None = None) -> list[Row]:
        """Rows of the `.dev` files of a task, and of its benign ones with the answer no."""
        spec = self.recipe.tasks[task]
        names = [name for name in (*spec.files, *spec.benign) if name not in self.without] if files is None else files
        return [row for name in names for row in self.file(spec, f"{name}.dev", benign=name in spec.benign)]

    def some(self, rows: Sequence[Row], most: int) -> list[Row]:
        """At most so many rows of each answer; all, where that is 0."""
        if not most:
            return list(rows)
        shuffled = random.Random(self.seed).sample(rows, len(rows))  # noqa: S311 - reproducible data
        return [row for answer in (True, False) for row in [one for one in shuffled if one.answer is answer][:most]]

    def answers(self, part: str) -> list[Row]:
        """Answers of language models that refuse or do not, as people's labels of harm and the wording together say.

        An answer to a harmful question that people found harmless and that begins by declining is a refusal; one that they found harmful is none, also
        where it declines first and then complies (a hundred such read by eye); other harmless ones are left out, for they may redirect, warn or not
        understand. Answers to harmless questions and small talk are none. What several rows say alike stands there once, else all of them were one group.
        """
        rows: dict[str, Row] = {}
        for name in ("safety_response/gptfuzz", "safety_response/diasafety", "judge_score/prometheus_mtbench", "judge_score/prometheus_vicuna"):
            for row in read_rows(self.data / f"{name}.{part}.jsonl", name):
                text = row.inputs["output"]
                declines = bool(_DECLINES.search(text[:_BEGINNING]))
                harmful = name.endswith("gptfuzz") and row.label == "True"
                if declines and not harmful and name.endswith("gptfuzz"):
                    answer = True
                elif harmful or (not name.endswith("gptfuzz") and not _DECLINES.search(text)):
                    answer = False
                else:
                    continue
                rows.setdefault(text, Row({"output": text}, str(answer), (), name, row.group, answer, row.licence))
        return list(rows.values())

    def gathered(self, name: str, part: str) -> list[Row]:
        """Rows that a judge's task lacks, for training (`train`) or for calibration and test (`dev`): answers of language models, and templates, of which
        no training has seen those for `dev`.
        """
        if name == "refusal":
            return self.answers(part)
        if name == "off_topic":
            return self.scopes(part)
        rows = [row for one in _written_for(name, part) for row in self.written(one)]
        if name == "unsafe_response_category":
            rows += self.hazardous_answers(part)
        if name == "prompt_injection":
            rows += self.pasted(part)
        return rows

    def written(self, spec: _Written) -> list[Row]:
        """Rows of templates, at most so many."""
        rows = [row for row in self.templates(spec.file) if not spec.only or row.categories[0] in spec.only]
        return random.Random(self.seed).sample(rows, spec.most) if spec.most else rows  # noqa: S311 - reproducible data

    def pasted(self, part: str) -> list[Row]:
        """Documents, with an injection or without, that a user has pasted below a request about them: the input is then as long as an attack is."""
        asks = read_templates(METRICS / f"{_long_requests(part)}.yaml").slots["paste"]
        task = "prompt_injection"
        parents = [row for row in (self.dev(task) if part == "dev" else self.mixture.rows.get(task, ())) if row.inputs.keys() == {"context"}]
        rng = random.Random(f"{self.seed}:pasted")  # noqa: S311 - reproducible data
        sides = [[row for row in parents if row.answer is answer] for answer in (True, False)]
        chosen = [row for side in sides for row in rng.sample(side, min(_PASTED[part], len(side)))]
        return [replace(row, inputs={"input": f"{rng.choice(asks)}\n\n{row.inputs['context']}"}, file="made/pasted") for row in chosen]

    def scopes(self, part: str) -> list[Row]:
        """Requests under what an assistant is for, in prose; and, for training, requests that an everyday assistant is not for."""
        if part == "dev":
            requests = self.file(self.recipe.tasks["off_topic"], f"{_REQUESTS}.dev")
            return [*of_assistants("scopes_unseen", "calibration", 1, self.seed), *of_fields(requests, _FIELDED // 2, self.seed)]
        requests = [row for row in self.mixture.rows.get("off_topic", ()) if row.file == _REQUESTS]
        return [*self.templates("off_topic_written"), *of_assistants("scopes", "validation", 4, self.seed), *of_fields(requests, _FIELDED, self.seed)]

    def hazardous_answers(self, part: str) -> list[Row]:
        """Answers with the hazard of their question where people found them harmful, and answers that they found harmless, each text once."""
        hazards = {number: hazard for hazard, numbers in yaml.safe_load((METRICS / "answer_hazards.yaml").read_text()).items() for number in numbers}
        rows: dict[str, Row] = {}
        for row in self.file(self.recipe.tasks["unsafe_response"], f"safety_response/gptfuzz.{part}"):
            hazard = hazards.get(int(row.group.rpartition("q")[2])) if row.answer else "none"
            if hazard:
                rows.setdefault(row.inputs["output"], replace(row, inputs={"output": row.inputs["output"]}, categories=(hazard,)))
        return list(rows.values())

    def templates(self, file: str) -> list[Row]:
        """Rows of templates beside the metrics."""
        made = expanded(read_templates(METRICS / f"{file}.yaml"), self.seed)
        kinds = {category: tuple(category.split(",")) for *_, category in made}
        return [Row(inputs, label, kinds[category], f"written/{file}", f"{file}:{number}", label == "True") for number, inputs, label, category in made]

    def file(self, spec: Task, name: str, *, benign: bool = False) -> list[Row]:
        """One file's rows with their answers to the task's questions."""
        rows = read_rows(self.data / f"{name}.jsonl", name.removesuffix(".dev").removesuffix(".train"))
        return benign_rows(spec, rows) if benign else [replace(row, answer=row.label == spec.yes) for row in rows]

    def labelled(self, name: str, rows: Iterable[Row]) -> list[dict[str, Any]]:
        """Rows as lines of a data file, with the judge's labels; those it has none for, or whose text it does not read, are left out."""
        judge, metric = JUDGES[name], read_metric(METRICS / f"{name}.yaml")
        read, needed = set(metric.inputs), set(metric.inputs) - set(metric.optional)
        found = []
        for number, row in enumerate(rows):
            label = judge.label(row)
            inputs = {judge.rename.get(field, field): value for field, value in row.inputs.items()}
            inputs |= {field: text_for(str(inputs)) for field, text_for in judge.lacking.items() if field not in inputs}
            if label is not None and needed <= inputs.keys() and read & inputs.keys():
                licence = ", ".join(filter(None, (row.licence, self.origins.get(row.file)))) or OURS
                meta = {"source": row.file, "group": row.group, "category": ",".join(one for one in row.categories if one != "None"), "licence": licence}
                found.append({"id": f"{row.file}:{number}", "inputs": inputs, "label": label, "meta": meta})
        return found


def _written_for(name: str, part: str) -> list[_Written]:
    """The templates that a judge has for training or for calibration and test."""
    judge, dev = JUDGES[name], part == "dev"
    found: list[_Written] = []
    if judge.task == "pii":
        found += [_Written("pii_unseen", _WRITTEN)] if dev else []
        found += [] if name == "pii" else [_Written("pii_together_unseen" if dev else "pii_together", _TOGETHER[part])]
        found += [_Written("pii_written")] if name in _BY_DIGITS and not dev else []
    elif judge.label is _toxic_kind:
        found += [_Written("toxic_kinds_unseen", _WRITTEN_KINDS) if dev else _Written("toxic_kinds")]
    elif name == "toxicity":  # whose policy has nothing against swearing at nobody
        found += [_Written("slang_unseen", _SLANG)] if dev else [_Written("toxic_kinds", only=("insult", "hate", "threat", "none")), _Written("slang")]
    elif name == "politeness":
        found += [_Written("politeness_unseen", _WRITTEN_MANNERS)] if dev else [_Written("politeness_written"), _Written("identity", _IDENTITY)]
    elif name == "prompt_injection":
        found += [_Written(_long_requests(part), _LONG_REQUESTS[part], ("request", "attack"))]
    elif judge.task == "unsafe_prompt":
        found += [_Written("code_abuse_unseen" if dev else "code_abuse")] if judge.label is _hazard else []
        if not judge.rename:
            found += [_Written(_long_requests(part), _LONG_REQUESTS[part], ("request", *HAZARDS))]
            found += [_Written("blunt_unseen" if dev else "blunt", _BLUNT[part])]
    return found


def _long_requests(part: str) -> str:
    return "long_requests_unseen" if part == "dev" else "long_requests"


def as_examples(rows: Sequence[dict[str, Any]], metric: Metric) -> list[Example]:
    """Lines of a data file as examples of the metric."""
    return [to_example(Record(number, row), metric, row["meta"]["source"]) for number, row in enumerate(rows, 1)]


class _Taken:
    """The texts and groups of parts that are dealt already."""

    def __init__(self, metric: Metric, rows: Sequence[dict[str, Any]]) -> None:
        self.metric, self.texts, self.groups = metric, set[str](), set[str]()
        self.add(rows)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        self.texts |= {example.content_key for example in as_examples(rows, self.metric)}
        self.groups |= {row["meta"]["group"] for row in rows}

    def without(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows that share neither text nor group with them."""
        keys = (example.content_key for example in as_examples(rows, self.metric))
        return [row for row, key in zip(rows, keys, strict=True) if key not in self.texts and row["meta"]["group"] not in self.groups]


def write_parts(parts: Mapping[str, Sequence[dict[str, Any]]], folder: Path) -> dict[str, Path]:
    """The parts as files of JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, rows in parts.items():
        paths[name] = folder / f"{name}.jsonl"
        paths[name].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return paths
