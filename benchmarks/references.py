"""What the judges that come with the package were calibrated on, as places among texts; and how well that tells what is not like it.

    python -m benchmarks.references [--only toxicity ...]

Writes one file for each judge beside the bundles (no text is in it) and the figures to results/references.json.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import DATA, arguments, record
from benchmarks.judge_data import JUDGES, JudgeData
from snapjudge.core.metric import Metric
from snapjudge.curate.ranking import auroc
from snapjudge.judge import Judge
from snapjudge.model.prompt import render_content
from snapjudge.model.reading import traces
from snapjudge.prove.reference import Reference, fit_reference
from snapjudge.store.bundles import REFERENCES, built_in
from snapjudge.store.files import write_file

MOST = 2000  # calibration texts
TESTED = 400  # test texts
FOREIGN = (
    "Bonjour, je voudrais annuler ma commande parce que le colis n'est jamais arrivé chez moi.",
    "Der Kundendienst hat mir gestern gesagt, dass die Lieferung erst morgen kommt.",
    "Quiero cambiar mi contraseña, pero la página no funciona desde ayer por la noche.",
    "我想取消我的订单 因为包裹一直没有到 客服也没有回复。",
    "Пожалуйста, отмените мой заказ, посылка так и не пришла.",
    "Vorrei annullare l'ordine perché il pacco non è mai arrivato a casa mia.",
)
CODE = (
    "def squares(x):\n    return [i * i for i in range(x) if i % 2]",
    "SELECT name, count(*) FROM orders GROUP BY name HAVING count(*) > 3;",
    "<div class=\"row\"><span id='a'>{{ item.name }}</span></div>",
    "for (int i = 0; i < n; ++i) { sum += a[i] * b[i]; }",
    '{"id": 4, "values": [1, 2, 3], "ok": true}',
    "2026-01-01T10:00:00Z ERROR worker[12] connection reset by peer 10.0.0.1:8080",
)
WORDS = ["alpha", "river", "seventeen", "cup", "blue", "quickly", "formal", "tax", "into", "was", "stone", "the", "of", "by", "lamp", "desk"]


def strange_texts(seed: int = 0) -> dict[str, list[str]]:
    """Texts that no judge was made for, by kind."""
    rng = random.Random(seed)  # noqa: S311 - texts
    return {
        "other languages": list(FOREIGN),
        "code and logs": list(CODE),
        "words at random": [" ".join(rng.choice(WORDS) for _ in range(rng.randint(10, 60))) for _ in range(30)],
        "letters at random": ["".join(rng.choice("abcdefghijklmnopqrstuvwxyz    ") for _ in range(120)) for _ in range(30)],
    }


def measured(name: str, data: JudgeData) -> tuple[Reference, dict[str, Any]]:
    """A judge's reference, and how far other texts are flagged by it."""
    judge = Judge.load(name)
    metric, rng = judge.metric, random.Random(0)  # noqa: S311 - a sample
    parts = data.parts(name)
    known = rng.sample(parts["calibration"], min(MOST, len(parts["calibration"])))
    tested = rng.sample(parts["test"], min(TESTED, len(parts["test"])))
    reference = fit_reference(traced(judge, [one["inputs"] for one in known]))
    if reference is None:
        raise SystemExit(f"{name}: too few calibration texts")
    own = [reference.distance(one) for one in traced(judge, [one["inputs"] for one in tested])]
    figures: dict[str, Any] = {"calibration": len(known), "test": len(own), "test_flagged": share(own, reference)}
    for kind, texts in strange_texts().items():
        found = [reference.distance(one) for one in traced(judge, list(placed(metric, [one["inputs"] for one in tested], texts)))]
        area = auroc(np.array(own + found), np.array([False] * len(own) + [True] * len(found)))
        told = None if area is None else [round(value, 4) for value in (area.value, area.low, area.high)]
        figures[kind] = {"texts": len(found), "flagged": share(found, reference), "auroc": told}
    return reference, figures


def traced(judge: Judge, inputs: Sequence[Mapping[str, Any]]) -> NDArray[np.float32]:
    """Traces [N, D]."""
    contents = [render_content(one, judge.metric, judge.backbone) for one in inputs]
    return np.stack([one.numpy() for one in traces(judge.backbone, contents, judge.question.content_adapter)])


def placed(metric: Metric, inputs: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Each text in the place of what a judge reads as its text, beside a real example's other fields."""
    field = metric.place_of_text()
    for number, text in enumerate(texts):
        one = dict(inputs[number % len(inputs)])
        yield {**one, field: [{"role": "user", "content": text}] if field == "messages" else text}


def share(distances: Sequence[float], reference: Reference) -> float:
    """Of them, those that are too far."""
    return round(float(np.mean([one > reference.most for one in distances])), 4)


def main() -> None:
    options = arguments(__doc__ or "", only="")
    data, found = JudgeData(DATA), {}
    for name in options.only.split(",") if options.only else JUDGES:
        reference, found[name] = measured(name, data)
        bundle = Judge.load(name).bundle
        write_file(built_in() / REFERENCES / f"{bundle.manifest.judge}.{bundle.digest[:12]}.safetensors", reference.dump())
        print(name, found[name], flush=True)
    record("references", {"judges": found}, "python -m benchmarks.references")


if __name__ == "__main__":
    main()
