"""Contents encoded once and kept, to be read by many readout adapters: those of a fit's steps, or of a search's trials. Knows nothing of labels.

Tensors: W windows, D width, E contents, R reads of a batch, L labels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from snapjudge.core.metric import Metric
from snapjudge.core.progress import Progress
from snapjudge.errors import Interrupted
from snapjudge.model.adapter import Adapter
from snapjudge.model.backbone import Backbone
from snapjudge.model.packing import NewTokens
from snapjudge.model.prompt import Content
from snapjudge.model.reading import STEP_TOKENS, embedding
from snapjudge.model.readout import Readout, combine
from snapjudge.train.contents import ContentStore

AT_ONCE = 4 * STEP_TOKENS  # tokens of kept contents that one backward pass may read


class KeptContents:
    """Content states in a store, and the embeddings [E, D] that were computed on the way.

    Raises:
        Interrupted: `stop` said so while encoding.
    """

    def __init__(self, backbone: Backbone, contents: Sequence[Content], store: ContentStore, progress: Progress, stop: Callable[[], bool]) -> None:
        self.backbone, self.contents, self.store = backbone, contents, store
        summaries_WD = self._encode([window for content in contents for window in content.windows], progress, stop)
        self.reads: list[list[int]] = []
        self.embeddings_ED: NDArray[np.float64] = np.empty((len(contents), backbone.width))
        at = 0
        for index, content in enumerate(contents):
            self.reads.append(list(range(at, at + len(content.windows))))
            self.embeddings_ED[index] = embedding(summaries_WD[at : at + len(content.windows)]).numpy()
            at += len(content.windows)

    def _encode(self, windows: Sequence[tuple[int, ...]], progress: Progress, stop: Callable[[], bool]) -> Tensor:
        """Put the states of all windows into the store; returns their summaries."""
        progress.start("encode", len(windows))
        pack: list[tuple[int, ...]] = []
        summaries_WD, done = torch.empty(len(windows), self.backbone.width), 0  # one block: thousands of small tensors would pin the heap
        for at, window in enumerate(windows):
            pack.append(window)
            if sum(map(len, pack)) + (len(windows[at + 1]) if at + 1 < len(windows) else STEP_TOKENS) > STEP_TOKENS:
                with torch.inference_mode():
                    step = self.backbone.step([NewTokens(ids) for ids in pack], [], summaries=True)
                    for state, summary_D in zip(step.states, step.summaries, strict=True):
                        summaries_WD[done], done = summary_D, self.store.add(state) + 1
                progress.advance(len(pack), f"{self.store.memory_bytes / 2**30:.2f} GiB in memory, {self.store.file_bytes / 2**30:.2f} on disk")
                pack = []
                if stop():
                    raise Interrupted("stopped while encoding", hint="run the same command with --resume")
        return summaries_WD

    def logits(self, chosen: Sequence[int], readout: Readout, adapter: Adapter) -> Tensor:
        """Label logits [R, L] of all reads of some contents."""
        return self._logits([read for index in chosen for read in self.reads[index]], readout, adapter)

    def log_p(self, chosen: Sequence[int], readout: Readout, adapter: Adapter, metric: Metric) -> list[tuple[float, ...]]:
        """Label log-probabilities of some contents, however long; kept states are in half precision, so they differ a little from scored ones."""
        lengths = [len(window) for content in self.contents for window in content.windows]
        reads = sorted((read for index in chosen for read in self.reads[index]), key=lengths.__getitem__)
        rows: dict[int, Tensor] = {}
        with torch.inference_mode():
            for part in parts_of(reads, lengths):
                rows |= zip(part, self._logits(part, readout, adapter), strict=True)
            found = [combined(torch.stack([rows[read] for read in self.reads[index]]), [self.contents[index]], metric)[0] for index in chosen]
        return [tuple(row.double().tolist()) for row in found]

    def _logits(self, reads: Sequence[int], readout: Readout, adapter: Adapter) -> Tensor:
        layers, lengths_R = self.store.batch(reads)
        return self.backbone.read_batch(layers, lengths_R, readout, adapter)


def combined(logits_RL: Tensor, contents: Sequence[Content], metric: Metric) -> Tensor:
    """Label log-probabilities [E, L] of contents from the logits of all their reads."""
    counts = [len(content.windows) for content in contents]
    if max(counts) == 1:
        return logits_RL.log_softmax(-1)
    rows = zip(contents, logits_RL.split(counts), strict=True)
    return torch.stack([combine(list(own), content.orders, metric) for content, own in rows])


def parts_of(batch: Sequence[int], lengths: Sequence[int], most: int = AT_ONCE) -> list[list[int]]:
    """A batch in parts of at most so many tokens, so that it does not ask for all memory at once; one item alone may be longer."""
    parts: list[list[int]] = [[]]
    tokens = 0
    for index in batch:
        if parts[-1] and tokens + lengths[index] > most:
            parts.append([])
            tokens = 0
        parts[-1].append(index)
        tokens += lengths[index]
    return [part for part in parts if part]
