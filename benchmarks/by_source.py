"""A judge on each source of its rows, and what it recalls at a stated share of false alarms: to choose between two builds of it, on rows that are not its test.

    python -m benchmarks.by_source --judge toxicity
    python -m benchmarks.by_source --judge unsafe_prompt --bundle build/judges/unsafe_prompt/1

Printed, not kept: the test has its table in docs/judges.md. AUROC, recall and false alarms at the bundle's threshold.
"""

import numpy as np

from benchmarks.common import DATA, arguments, head, show
from benchmarks.contenders import told
from benchmarks.judge_data import JudgeData, as_examples
from benchmarks.quality import by_set, read, under
from snapjudge.judge import Judge
from snapjudge.prove.figures import positive_of

RATES = (0.005, 0.01, 0.02, 0.05)
_SHOWN = ("auroc", "recall", "fpr", "macro_f1")


def main() -> None:
    options = arguments(__doc__ or "", judge="toxicity", bundle="", part="calibration")
    judge = Judge.load(options.bundle or options.judge)
    examples = as_examples(JudgeData(DATA).parts(options.judge)[options.part], judge.metric)
    log_p = read(judge, examples)
    found = under(judge, log_p, examples)
    whole: dict[str, list[float]] = {"rows": [len(examples)], **told(found, judge.metric, 200)}
    sets = {"all": whole, **by_set(judge, log_p, examples)}
    lines = [f"| {name} | {own['rows'][0]:.0f} | {' | '.join(show(own.get(figure)) for figure in _SHOWN)} |" for name, own in sets.items()]
    print("\n".join([*head("source", "rows", *_SHOWN), *lines]))
    positive = positive_of(found, judge.metric)
    for rate in RATES:
        cut = np.quantile(found.scores[~positive], 1 - rate)
        print(f"at {rate:.1%} false alarms (of rows): recall {(found.scores[positive] > cut).mean():.3f} from {cut:.3f}")


if __name__ == "__main__":
    main()
