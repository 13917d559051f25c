"""Errors of a built-in judge to read by eye: a random fifty of its test, or of a set that no training may use. They are printed and not kept.

    python -m benchmarks.errors --judge groundedness
    python -m benchmarks.errors --judge groundedness --file groundedness/covidfact

What was found stands in docs/judges.md, in numbers; the texts stay where they are.
"""

import random
import textwrap

from benchmarks.common import DATA, arguments
from benchmarks.judge_data import JudgeData, as_examples
from benchmarks.left_out import examples_of
from benchmarks.quality import judged
from snapjudge.core.example import plain_text
from snapjudge.judge import Judge

_LETTERS = 700  # of a text that are shown


def main() -> None:
    options = arguments(__doc__ or "", judge="toxicity", file="", count=50, seed=0)
    judge, data = Judge.load(options.judge), JudgeData(DATA)
    metric = judge.metric
    examples = examples_of(data, options.judge, options.file, metric) if options.file else as_examples(data.parts(options.judge)["test"], metric)
    found = judged(judge, examples)
    names = metric.label_names
    flagged_names = [name in metric.positive_labels for name in names]
    wrong = []
    for place, example in enumerate(examples):
        truth, likely = example.label_index or 0, int(found.probabilities[place].argmax())
        right = bool(found.flagged[place]) == flagged_names[truth] if metric.type == "boolean" and found.flagged is not None else likely == truth
        if not right:
            wrong.append((example, names[truth], float(found.scores[place]), names[likely]))
    print(f"{len(wrong)} errors in {len(examples)} rows")
    some = random.Random(options.seed).sample(wrong, min(options.count, len(wrong)))  # noqa: S311 - a reproducible sample
    for number, (example, label, score, answer) in enumerate(some, 1):
        print(f"\n{number}. labelled {label}, score {score:.3f}, likeliest {answer}, {example.provenance.source}, {example.provenance.category}")
        print(textwrap.indent(textwrap.fill(plain_text(example.inputs)[:_LETTERS], 150), "   "))


if __name__ == "__main__":
    main()
