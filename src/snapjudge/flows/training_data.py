"""From files to the splits a judge is trained, calibrated and tested on, with every check before any work is done."""

from collections.abc import Callable

from snapjudge.core.example import Example
from snapjudge.core.metric import Metric
from snapjudge.curate.read import read_examples
from snapjudge.curate.split import Splits, check_enough, check_leak, deduplicated, split
from snapjudge.errors import OptionInvalid, Problem, TooFewExamples
from snapjudge.flows.train_terms import TrainConfig, TrainRequest


def read_splits(request: TrainRequest, config: TrainConfig, metric: Metric, note: Callable[[str], None]) -> Splits:
    """Read and check all data, and deal it to its parts; `note` is told what a person should know.

    Raises:
        DataInvalid, TooFewExamples, DataLeak, OptionInvalid, StorageFailed.
    """
    examples, repeated = deduplicated(read_examples(request.data, metric, request.mapping))
    if repeated:
        note(f"{repeated} repeated examples (same text and label) were left out")
    check_enough(examples, metric, "data")
    shares = {"validation": config.validation_share, "calibration": config.calibration_share}
    test: list[Example] | None = None
    if request.test:
        test = read_examples(request.test, metric, request.mapping)
        check_enough(test, metric, "test data")
        shared = check_leak(examples, test, allow=config.allow_leak)
        if shared:
            note(f"{shared} test examples share text or group with the training data (--allow-leak): the figures are too good")
    else:
        shares["test"] = config.test_share
    if sum(shares.values()) >= 0.9:
        raise OptionInvalid(f"the shares of validation, calibration and test add up to {sum(shares.values()):.2f}", hint="leave more than 0.1 for training")
    parts = split(examples, {"train": 1 - sum(shares.values()), **shares}, config.fit.seed)
    held_out = test if test is not None else parts["test"]
    found = Splits(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["calibration"]), tuple(held_out))
    for name, part in vars(found).items():
        labels = {example.label_index for example in part}
        if len(labels) < 2:
            held = f"{len(part)} examples with {len(labels)} of the labels"
            raise TooFewExamples("data", [Problem(f"the {name} split", held, "examples of at least two labels")], hint="label more examples of the rarer label")
    return found
