"""From files and data sets to the splits a judge is trained, calibrated and tested on, with every check before any work is done."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.curate.dataset import Dataset, is_dataset, labelled, read_dataset
from snapjudge.curate.frozen import SplitName, assign
from snapjudge.curate.read import SHOWN, file_digest, read_examples, readable
from snapjudge.curate.split import Splits, check_enough, check_leak, contradictory, deduplicated, split, without_near
from snapjudge.errors import DataInvalid, OptionInvalid, Problem, TooFewExamples
from snapjudge.flows.splitting import read_frozen
from snapjudge.flows.train_terms import TrainConfig, TrainRequest

Note = Callable[[str], None]
_FEWEST_GROUPS = 8  # two of each split; with fewer it is the groups that are too few


def read_splits(request: TrainRequest, config: TrainConfig, metric: Metric, note: Note) -> Splits:
    """Read and check all data, and deal it to its parts; `note` is told what a person should know.

    A data set with a frozen test is split as it says; other data is dealt by group, stratified by label and source.

    Raises:
        DataInvalid, TooFewExamples, DataLeak, TestSetChanged, OptionInvalid, StorageFailed.
    """
    everything = read_labelled(request.data, metric, request.mapping, note)
    frozen = [path for path in request.data if is_dataset(path) and Dataset(path).test.exists()]
    if frozen and not request.test:
        if request.validation or request.calibration:
            raise OptionInvalid(f"{frozen[0].name} has a frozen test and deals its own parts", hint="leave --validation and --calibration out, or give --test")
        return _checked(_as_frozen(frozen, everything, config, metric, note))
    examples = distinct(everything, note)
    check_enough(examples, metric, "data")
    shares = {"validation": config.validation_share, "calibration": config.calibration_share}
    own = _own_parts(request, metric, note)
    shares = {name: share for name, share in shares.items() if name not in own}
    examples = _apart(examples, own, note)
    test: list[Example] | None = None
    if request.test:
        test = read_labelled(request.test, metric, request.mapping, note)
        check_enough(test, metric, "test data")
        shared = check_leak([*examples, *(example for part in own.values() for example in part)], test, allow=config.allow_leak)
        if shared:
            note(f"{shared} test examples share text or group with the training data (--allow-leak): the figures are too good")
        elif not config.allow_leak:
            examples, near = without_near(examples, test)
            if near:
                note(f"{len(near)} examples that are nearly a test example were left out of training, such as {near[0].where}")
    else:
        shares["test"] = config.test_share
    if sum(shares.values()) >= 0.9:
        raise OptionInvalid(f"the shares of validation, calibration and test add up to {sum(shares.values()):.2f}", hint="leave more than 0.1 for training")
    parts = split(examples, {"train": 1 - sum(shares.values()), **shares}, config.fit.seed)
    held_out = test if test is not None else parts["test"]
    parts |= own
    return _checked(Splits(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["calibration"]), tuple(held_out)))


def read_unlabelled(request: TrainRequest, config: TrainConfig, metric: Metric, splits: Splits, note: Note) -> list[Example]:
    """Examples that a teacher labels, without those of any other part; labels they have are not looked at.

    Raises:
        OptionInvalid: nobody teaches, or there is nothing to learn from.
        DataInvalid: an example cannot be read.
    """
    if not request.unlabelled:
        return []
    if not config.teacher:
        raise OptionInvalid("examples without labels need a teacher", hint="--teacher JUDGE, verdict:NAME or open:BACKBONE")
    problems: list[Problem] = []
    found = [example for path in request.unlabelled for _, example in readable(path, metric, request.mapping, problems)]
    if problems:
        raise DataInvalid("unlabelled data", problems[:SHOWN], more=max(0, len(problems) - SHOWN), hint="correct the lines named, or leave them out")
    if not found:
        named = ", ".join(str(path) for path in request.unlabelled)
        raise OptionInvalid(f"{named} holds no examples", hint="give a file with examples, or leave --unlabelled out", received=named)
    known = {example.content_key for part in vars(splits).values() for example in part}
    kept = {example.content_key: example.model_copy(update={"target": None}) for example in found if example.content_key not in known}
    if len(kept) < len(found):
        note(f"{len(found) - len(kept)} unlabelled examples repeat another or belong to another part, and were left out")
    return list(kept.values())


def _own_parts(request: TrainRequest, metric: Metric, note: Note) -> dict[str, list[Example]]:
    """The parts that come from files of their own."""
    files = {"validation": request.validation, "calibration": request.calibration}
    parts = {name: distinct(read_labelled(paths, metric, request.mapping, note), note) for name, paths in files.items() if paths}
    for name, part in parts.items():
        check_enough(part, metric, f"{name} data")
    if len(parts) > 1:
        check_leak(parts["validation"], parts["calibration"], allow=False)
    return parts


def _apart(examples: list[Example], own: Mapping[str, Sequence[Example]], note: Note) -> list[Example]:
    """The examples that share no text or group with a part of its own."""
    held = [example for part in own.values() for example in part]
    keys, groups = {example.content_key for example in held}, {example.provenance.group for example in held if example.provenance.group}
    kept = [example for example in examples if example.content_key not in keys and example.provenance.group not in groups]
    if len(kept) < len(examples):
        note(f"{len(examples) - len(kept)} examples that share a text or group with the validation or calibration files were left out of training")
    return kept


def data_digests(paths: Sequence[Path]) -> dict[str, str]:
    """sha256 of every file that data came from; of a data set, its examples, labels and frozen test."""
    files = [file for path in paths for file in (_files(path) if path.is_dir() else [path])]
    return {str(file): file_digest(file) for file in files}


def _files(folder: Path) -> list[Path]:
    dataset = Dataset(folder)
    return [file for file in (dataset.examples, dataset.labels, dataset.test) if file.exists()]


def read_labelled(paths: Sequence[Path], metric: Metric, mapping: Mapping[str, str] | None, note: Note) -> list[Example]:
    """The labelled examples of some files and data sets, in that order.

    Raises:
        DataInvalid, StorageFailed, OptionInvalid.
    """
    found = read_examples([path for path in paths if not path.is_dir()], metric, mapping)
    for folder in (path for path in paths if path.is_dir()):
        own = labelled(Dataset(folder), metric)
        found += own.examples
        told = [f"{count} {what}" for what, count in (("unlabelled", own.unlabelled), ("disputed", own.disputed)) if count]
        if told:
            note(f"{folder.name}: {' and '.join(told)} examples were left out")
        stale = sum(current.stale for current in own.current.values())
        if stale:
            note(f"{folder.name}: {stale} labels were made under older criteria than version {metric.version}")
    return found


def read_unseen(paths: Sequence[Path], metric: Metric, mapping: Mapping[str, str] | None, note: Note) -> list[Example]:
    """Labelled examples to prove a judge on: of a data set with a frozen test, only that test.

    Raises:
        DataInvalid, StorageFailed, OptionInvalid, TestSetChanged.
    """
    found = read_labelled([path for path in paths if not path.is_dir()], metric, mapping, note)
    for folder in (path for path in paths if path.is_dir()):
        own, dataset = read_labelled([folder], metric, mapping, note), Dataset(folder)
        if dataset.test.exists():
            members = read_frozen(dataset, read_dataset(dataset, metric)).members
            own = [example for example in own if example.id in members]
            note(f"{folder.name}: only its frozen test is used")
        found += own
    return found


def _as_frozen(folders: Sequence[Path], examples: Sequence[Example], config: TrainConfig, metric: Metric, note: Note) -> Splits:
    """The splits of a data set whose test is frozen; rows of other files are dealt like rows added later."""
    if len(folders) > 1:
        raise OptionInvalid("two data sets with a frozen test each", hint="train on one of them, or give one as --test")
    dataset = Dataset(folders[0])
    everything = read_dataset(dataset, metric)
    test = read_frozen(dataset, everything)
    known = {example.id: example.content_key for example in everything}
    clash = next((example for example in examples if known.get(example.id, example.content_key) != example.content_key), None)
    if clash is not None:
        problem = Problem(f"{clash.where}: id", f"{clash.id!r}, which is another text in {dataset.folder.name}", "one id for one example")
        raise DataInvalid("data", [problem], hint="rename the ids of the other file, or import it into the data set")
    shares: dict[SplitName, float] = {
        "validation": config.validation_share / (1 - config.test_share),
        "calibration": config.calibration_share / (1 - config.test_share),
    }
    dealt = assign([*everything, *(example for example in examples if example.id not in known)], test, shares)
    parts: dict[str, list[Example]] = {name: [] for name in ("train", "validation", "calibration", "test", "held")}
    named = {example.id: example for example in reversed(examples)}  # the first of an id
    for example in named.values():
        parts[dealt[example.id][0]].append(example)
    parts = {name: distinct(part, note) for name, part in parts.items()}
    if parts["held"]:
        common = Counter(dealt[example.id][1].split(" (")[0].split(" row ")[0] for example in parts["held"]).most_common(3)
        note(f"{len(parts['held'])} examples were held out ({'; '.join(f'{reason}: {count}' for reason, count in common)})")
    if len(parts["test"]) < len(test.members):
        note(f"{len(test.members) - len(parts['test'])} rows of the frozen test have no agreed label now, or repeat another, and were left out")
    return Splits(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["calibration"]), tuple(parts["test"]))


def distinct(examples: Sequence[Example], note: Note) -> list[Example]:
    """The examples without repeated ones; `note` is told how many those were, and of texts with different labels."""
    found, repeated = deduplicated(examples)
    if repeated:
        note(f"{repeated} repeated examples (same text and label) were left out")
    if contrary := contradictory(found):
        places = " and ".join(one.where for one in contrary[0][:2])
        note(f"{len(contrary)} texts stand there with different labels, such as {places}; correct one of them")
    return found


def _checked(found: Splits) -> Splits:
    for name, part in vars(found).items():
        labels = {example.label_index for example in part}
        if len(labels) < 2:
            held = f"{len(part)} examples with {len(labels)} of the labels"
            groups = {example.group for some in vars(found).values() for example in some}
            hint = "label more examples of the rarer label"
            if len(groups) < _FEWEST_GROUPS:
                hint = f"all rows are of {len(groups)} `meta.group`, and a group is never split: give rows of more groups, or leave the group out"
            raise TooFewExamples("data", [Problem(f"the {name} split", held, "examples of at least two labels")], hint=hint)
    return found
