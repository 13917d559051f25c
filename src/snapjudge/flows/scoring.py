"""What training, proving and the baselines share: examples to contents, questions to raw scores. Holds no policy of its own."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from snapjudge.core.example import Example, plain_text
from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress
from snapjudge.model.backbone import Backbone
from snapjudge.model.prompt import Content, content_windows, render_content
from snapjudge.model.reading import Question, read_contents, summaries
from snapjudge.prove.baselines import BaselineData

LogP = list[tuple[float, ...]]


def contents_of(examples: Sequence[Example], metric: Metric, backbone: Backbone) -> list[Content]:
    """Rendered contents, in order."""
    return [render_content(example.inputs, metric, backbone) for example in examples]


def raw_scores(backbone: Backbone, question: Question, contents: Sequence[Content], progress: Progress, stage: str) -> LogP:
    """Raw label log-probabilities of contents under one question, in order."""
    progress.start(stage, len(contents))
    found = []
    for readings in read_contents(backbone, ((content, (question,)) for content in contents)):
        found.append(readings[0].log_p)
        progress.advance()
    return found


def baseline_data(
    backbone: Backbone, examples: Sequence[Example], metric: Metric, progress: Progress, stage: str, known: NDArray[np.float64] | None = None
) -> BaselineData:
    """Texts, frozen embeddings and labels. A pair's answers are embedded one by one, since their mean does not tell them apart.

    Args:
        known: the contents' frozen embeddings [E, D], where a fit has encoded them already.
    """
    if known is not None and metric.type != "pairwise":
        vectors = known
    else:
        progress.start(stage, len(examples))
        vectors = np.empty((len(examples), backbone.width * (2 if metric.type == "pairwise" else 1)))
        for index, vector in enumerate(_embeddings(backbone, examples, metric)):
            vectors[index] = vector
            progress.advance()
    texts = [plain_text(example.inputs) for example in examples]
    return BaselineData(texts, vectors, [example.label_index for example in examples])


def _embeddings(backbone: Backbone, examples: Sequence[Example], metric: Metric) -> Iterator[NDArray[np.float64]]:
    if metric.type != "pairwise":
        yield from (vector.double().numpy(force=True) for vector in summaries(backbone, contents_of(examples, metric, backbone)))
        return
    sides = [Content(content_windows({name: example.inputs[name]}, backbone)) for example in examples for name in ("a", "b")]
    vectors = iter([vector.double().numpy(force=True) for vector in summaries(backbone, sides)])
    for _ in examples:
        yield np.concatenate((next(vectors), next(vectors)))
