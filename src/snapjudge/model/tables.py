"""A step as whole numbers for the kernels: which row of the pack sees what, in one piece of memory that goes to the device in one copy.

Knows rows and positions; nothing of tensors' contents, adapters' meaning or metrics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Span:
    """A content of the step: tokens at hand, the pool's blocks they lie in, and its new rows start..end of the pack."""

    past: int
    blocks: Sequence[int]
    start: int = 0
    end: int = 0

    @property
    def length(self) -> int:
        """Tokens of the content up to the last new one."""
        return self.past + self.end - self.start


@dataclass(frozen=True)
class ReadoutRows:
    """A readout of the step: its content's place among the spans, and its rows start..end of the pack."""

    content: int
    start: int
    end: int


def sent(host: Tensor, device: torch.device) -> Tensor:
    """A copy on the device, for which nothing waits: from memory that stays where it is."""
    return (host.pin_memory() if device.type == "cuda" else host).to(device, non_blocking=True)


class Upload:
    """Named arrays in one piece of memory: one copy brings all of them to the device."""

    def __init__(self, arrays: dict[str, Ints]) -> None:
        self.shapes = {name: array.shape for name, array in arrays.items()}
        self.host = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays.values()]).astype(np.int64))

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The arrays as parts of a copy on the device."""
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        return {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), flat.split(sizes), strict=True)}

    def send(self, device: torch.device) -> dict[str, Tensor]:
        """Copy them over, without waiting."""
        return self.views(sent(self.host, device))


def sight(spans: Sequence[Span], readouts: Sequence[ReadoutRows], rows: int, *, causal: bool, window: int | None) -> dict[str, Ints]:
    """What each row of the pack sees: its content from low to high, and of its own readout from skip to count.

    Args:
        rows: of the pack, the padding among them.
    """
    low, high, own, skip, count = (np.zeros(rows, dtype=np.int64) for _ in range(5))
    for span in spans:
        positions = np.arange(span.past, span.length)
        part = slice(span.start, span.end)
        high[part] = positions + 1 if causal else span.length
        if causal and window is not None:
            low[part] = np.maximum(0, positions + 1 - window)
    for one in readouts:
        offsets, part, length = np.arange(one.end - one.start), slice(one.start, one.end), spans[one.content].length
        high[part], own[part], count[part] = length, one.start, offsets + 1
        if window is not None:
            low[part] = np.clip(length + offsets + 1 - window, 0, length)
            skip[part] = np.maximum(0, offsets + 1 - window)
    return {"low_T": low, "high_T": high, "own_T": own, "skip_T": skip, "count_T": count}


def tiles(spans: Sequence[Span], readouts: Sequence[ReadoutRows], seen: dict[str, Ints], size: int, *, contents: bool) -> dict[str, Ints]:
    """Tiles of `size` rows of one content each.

    Args:
        seen: what `sight` gave.
        contents: whether the contents' own rows are wanted, or the readouts' alone.
    """
    rows_of: list[list[int]] = [list(range(span.start, span.end)) if contents else [] for span in spans]
    of_reads: list[list[int]] = [[] for _ in spans]
    for one in readouts:
        of_reads[one.content] += range(one.start, one.end)
    chunks = [(content, rows[at : at + size]) for kind in (rows_of, of_reads) for content, rows in enumerate(kind) for at in range(0, len(rows), size)]
    row_tR = np.full((len(chunks), size), -1, dtype=np.int64)
    first, last, own = (np.zeros(len(chunks), dtype=np.int64) for _ in range(3))
    for tile, (_, rows) in enumerate(chunks):
        row_tR[tile, : len(rows)] = rows
        first[tile], last[tile], own[tile] = seen["low_T"][rows].min(), seen["high_T"][rows].max(), seen["count_T"][rows].max()
    return {"row_tR": row_tR, "content_t": np.array([content for content, _ in chunks], dtype=np.int64), "from_t": first, "to_t": last, "own_t": own}


def lying(spans: Sequence[Span]) -> dict[str, Ints]:
    """Where each content's tokens lie: pages of the pool, rows of the pack."""
    starts = np.cumsum([0, *(len(span.blocks) for span in spans)])[: len(spans)]
    blocks = [block for span in spans for block in span.blocks] or [0]
    return {
        "past_c": np.array([span.past for span in spans] or [0], dtype=np.int64),
        "page_c": np.array(starts if len(spans) else [0], dtype=np.int64),
        "new_c": np.array([span.start for span in spans] or [0], dtype=np.int64),
        "pages": np.array(blocks, dtype=np.int64),
    }


def filled_up(arrays: dict[str, Ints], sizes: dict[str, int]) -> dict[str, Ints] | None:
    """The arrays at fixed lengths, for a recorded step: tiles that are no tile are marked -1, the rest is zeros. None where they do not fit."""
    out = {}
    for name, array in arrays.items():
        missing = sizes[name] - len(array)
        if missing < 0:
            return None
        out[name] = np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1), constant_values=-1 if name in {"content_t", "row_tR"} else 0)
    return out
