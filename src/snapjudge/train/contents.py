"""Content states kept for training: in the device's memory up to a budget, past it in a memory-mapped file.

A state is stored as one row per token, all layers' keys and values side by side, in half precision. Knows nothing of examples or labels.

Tensors: B batch, C longest content of the batch, G key heads, d head width, F features of one token's row.
"""

import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from snapjudge.model.attention import ContentState, LayerState
from snapjudge.store.files import storage_errors

_RELEASE_EVERY = 256 << 20  # bytes read from the file between two releases of its pages
_SLAB = 64 << 20  # bytes asked for at once: large enough that the allocator gives them back to the system when they are let go


class ContentStore:
    """Append states, then draw padded batches of them.

    Args:
        budget: bytes kept in the device's memory; what comes after goes to `spill`, a file made when needed and removed on close.
    """

    def __init__(self, *, budget: int, spill: Path, device: torch.device) -> None:
        self._budget, self._spill, self._device = budget, spill, device
        self._kept: list[Tensor | tuple[int, int]] = []  # rows in memory, or (byte offset, tokens) in the file
        self._widths: list[tuple[int, int]] = []  # (heads, head width) of keys, values, keys, ... in layer order
        self._dtype = torch.float16
        self._file: int | None = None
        self._map: mmap.mmap | None = None
        self.memory_bytes = self.file_bytes = 0
        self._slab = torch.empty(0)  # what is left of the newest slab
        self._read_since = 0

    def __enter__(self) -> "ContentStore":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the memory and remove the file."""
        if self._map is not None:
            self._map.close()
        if self._file is not None:
            os.close(self._file)
            self._spill.unlink(missing_ok=True)
        self._map, self._file, self._kept, self._slab = None, None, [], torch.empty(0)

    def add(self, state: ContentState) -> int:
        """Keep one state; returns its index."""
        tensors = [tensor for layer in state.layers for tensor in layer]
        if not self._kept:
            self._widths = [(tensor.shape[0], tensor.shape[2]) for tensor in tensors]
            self._dtype = torch.float16 if tensors[0].dtype == torch.float32 else tensors[0].dtype
        rows_CF = torch.cat([tensor.transpose(0, 1).flatten(1) for tensor in tensors], 1).to(self._dtype)
        size = rows_CF.numel() * rows_CF.element_size()
        if self.memory_bytes + size <= self._budget:
            self._kept.append(self._in_slab(rows_CF))
            self.memory_bytes += size
        else:
            self._kept.append((self._write(rows_CF.cpu()), len(rows_CF)))
        return len(self._kept) - 1

    def _in_slab(self, rows_CF: Tensor) -> Tensor:
        """The same rows, copied to the newest slab."""
        count = rows_CF.numel()
        if count > len(self._slab) or self._slab.dtype != self._dtype:
            self._slab = torch.empty(max(count, _SLAB // self._dtype.itemsize), dtype=self._dtype, device=self._device)
        kept, self._slab = self._slab[:count].view_as(rows_CF), self._slab[count:]
        return kept.copy_(rows_CF)

    def _write(self, rows_CF: Tensor) -> int:
        with storage_errors(self._spill):
            return self._append(rows_CF)

    def _append(self, rows_CF: Tensor) -> int:
        if self._file is None:
            self._spill.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._spill, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        raw, offset = memoryview(rows_CF.contiguous().view(torch.uint8).numpy().data).cast("B"), self.file_bytes
        while raw:
            raw = raw[os.write(self._file, raw) :]
        self.file_bytes = os.lseek(self._file, 0, os.SEEK_CUR)
        return offset

    def _rows(self, index: int) -> Tensor:
        kept = self._kept[index]
        if isinstance(kept, Tensor):
            return kept
        assert self._file is not None
        if self._map is None or len(self._map) < self.file_bytes:
            self._map = mmap.mmap(self._file, self.file_bytes, access=mmap.ACCESS_COPY)
        offset, tokens = kept
        features = sum(heads * width for heads, width in self._widths)
        self._read_since += tokens * features * self._dtype.itemsize
        return torch.frombuffer(self._map, dtype=self._dtype, count=tokens * features, offset=offset).view(tokens, features)

    def batch(self, indices: Sequence[int]) -> tuple[Callable[[int], LayerState], Tensor]:
        """Padded keys and values of some states, per layer on request, and their lengths [B]."""
        rows = [self._rows(index).to(self._device) for index in indices]
        padded_BCF = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        lengths_B = torch.tensor([len(part) for part in rows], device=self._device)
        del rows
        if self._read_since > _RELEASE_EVERY and self._map is not None:
            self._map.madvise(mmap.MADV_DONTNEED)  # keep the resident set small; the page cache still has the data
            self._read_since = 0
        starts = [0]
        for heads, width in self._widths:
            starts.append(starts[-1] + heads * width)

        def part(which: int) -> Tensor:
            heads, width = self._widths[which]
            flat = padded_BCF[:, :, starts[which] : starts[which + 1]].to(self._compute_dtype)
            split: Tensor = flat.unflatten(2, (heads, width)).transpose(1, 2)
            return split

        return (lambda layer: (part(2 * layer), part(2 * layer + 1))), lengths_B

    @property
    def _compute_dtype(self) -> torch.dtype:
        return torch.float32 if self._dtype == torch.float16 else self._dtype


def padded_states(states: Sequence[ContentState]) -> tuple[Callable[[int], LayerState], Tensor]:
    """The same form from states that carry gradients: for adapters that act on the content too."""
    lengths_B = torch.tensor([state.length for state in states], device=states[0].layers[0][0].device)

    def pad(tensors: list[Tensor]) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([tensor.transpose(0, 1) for tensor in tensors], batch_first=True).transpose(1, 2)

    def layer(index: int) -> LayerState:
        return pad([state.layers[index][0] for state in states]), pad([state.layers[index][1] for state in states])

    return layer, lengths_B
