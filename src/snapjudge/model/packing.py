"""A step's rows: new tokens of contents and readouts of any judges in one pack, where each lies and whose it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from snapjudge.model.adapter import Adapter
from snapjudge.model.attention import ContentState, row_tile
from snapjudge.model.grouped import Owned, PlacedAdapter
from snapjudge.model.passes import ContentReads, NewContent
from snapjudge.model.readout import Readout
from snapjudge.model.tables import ReadoutRows, Span
from snapjudge.model.tokens import Ids


@dataclass(frozen=True)
class NewTokens:
    """The next tokens of a content: all of it, or what follows a state at hand."""

    ids: Ids
    past: ContentState | None = None
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Ask:
    """One readout to read under one adapter against one content: a state at hand, or a content of the same step by its index."""

    content: ContentState | int
    readout: Readout
    adapter: Adapter | None = None


@dataclass(frozen=True)
class Step:
    """What a step gives: of each content the state of its new tokens and, where wanted, its mean hidden state; of each ask its label logits [L].

    Args:
        rows: rows computed, the padding among them.
    """

    states: list[ContentState]
    summaries: list[Tensor]
    logits: list[Tensor]
    rows: int


class Pack:
    """Where everything of a step lies: contents first, then readouts by length and adapter, then padding.

    The padding makes the rows of every product a multiple of `row_tile`.
    """

    def __init__(self, contents: Sequence[NewTokens], asks: Sequence[Ask], dtype: torch.dtype, device: torch.device) -> None:
        self._device = device
        self.ids: list[int] = []
        self.places: list[int] = []
        self.contents: list[NewContent] = []
        owners: list[Owned] = []
        for one in contents:
            span = NewContent(len(self.ids), len(self.ids) + len(one.ids), one.past)
            self.ids += one.ids
            self.places += range(span.before, span.length)
            self.contents.append(span)
            if one.adapter is not None:
                _own(owners, one.adapter, span.start, len(one.ids))
        self.reads_from, of_contents = len(self.ids), owners
        owners = []
        self.last_rows: dict[int, int] = {}
        self.equal: list[tuple[int, int]] = []
        self.readouts: list[tuple[int | ContentState, int, int]] = []  # of which content, rows start..end
        for index in sorted(range(len(asks)), key=lambda index: _place(asks[index])):
            ask = asks[index]
            size, start = len(ask.readout.token_ids), len(self.ids)
            length = self._length(ask.content)
            self.ids += ask.readout.token_ids
            self.places += range(length, length + size)
            self.last_rows[index] = len(self.ids) - 1
            known = self.equal[-1] if self.equal and self.equal[-1][1] == size else None
            self.equal[len(self.equal) - (known is not None) :] = [((known[0] if known else 0) + 1, size)]
            if ask.adapter is not None:
                _own(owners, ask.adapter, start, size)
            self.readouts.append((ask.content, start, len(self.ids)))
        self.reads_to = len(self.ids)
        self.owners = [some for some in (of_contents, owners) if some]
        self.total = len(self.ids) + -len(self.ids) % row_tile(dtype, device)

    @property
    def reads(self) -> list[ContentReads]:
        """All readout rows of each content."""
        found: dict[int, tuple[int | ContentState, list[int], list[int]]] = {}
        for content, start, end in self.readouts:
            _, rows, offsets = found.setdefault(content if isinstance(content, int) else -id(content), (content, [], []))
            rows += range(start - self.reads_from, end - self.reads_from)
            offsets += range(end - start)
        return [
            ContentReads(content, self._length(content), _span(rows, self._device), torch.tensor(offsets, device=self._device))
            for content, rows, offsets in found.values()
        ]

    def laid_out(self, cached: Sequence[Sequence[int]]) -> tuple[list[Span], list[ReadoutRows]]:
        """Contents and readouts as the kernels' tables want them.

        Args:
            cached: the pages of each of `at_hand`.
        """
        known = {id(state): blocks for state, blocks in zip(self.at_hand, cached, strict=True)}
        spans = [Span(one.before, known[id(one.past)] if one.past is not None else (), one.start, one.end) for one in self.contents]
        places: dict[int, int] = {}
        for content, _, _ in self.readouts:
            if not isinstance(content, int) and id(content) not in places:
                places[id(content)] = len(spans)
                spans.append(Span(content.length, known[id(content)]))
        return spans, [ReadoutRows(content if isinstance(content, int) else places[id(content)], start, end) for content, start, end in self.readouts]

    @cached_property
    def at_hand(self) -> list[ContentState]:
        """The states that the step goes on from or reads, each once."""
        states = [one.past for one in self.contents if one.past is not None]
        states += [content for content, _, _ in self.readouts if not isinstance(content, int)]
        return list({id(state): state for state in states}.values())

    def _length(self, content: int | ContentState) -> int:
        return self.contents[content].length if isinstance(content, int) else content.length


def _place(ask: Ask) -> tuple[int, int, int, int]:
    """Readouts of a length side by side, in them those of a rank, in them the adapters of a slab in their order."""
    adapter, size = ask.adapter, len(ask.readout.token_ids)
    if isinstance(adapter, PlacedAdapter):
        return size, adapter.rank, id(adapter.slab), adapter.slot
    return (size, 0, 0, 0) if adapter is None else (size, adapter.rank, id(adapter), 0)


def _own(owners: list[Owned], adapter: Adapter, start: int, rows: int) -> None:
    """Note that an adapter owns the next rows, together with those right before them if they are its own too."""
    last = owners[-1] if owners else None
    if last is not None and last.adapter is adapter and last.start + last.rows == start:
        owners[-1] = Owned(adapter, last.start, last.rows + rows)
    else:
        owners.append(Owned(adapter, start, rows))


def _span(rows: list[int], device: torch.device) -> slice | Tensor:
    """Rows as a slice where they lie side by side."""
    if rows[-1] - rows[0] == len(rows) - 1:
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, device=device)
