"""Content states kept by token prefix, in blocks within a byte budget: least recently used out first, never one in use.

Causal backbones share every common prefix, token by token; bidirectional ones share whole contents only. A `space` keeps apart what was
computed under different adapters. Knows token ids and tensors; nothing of text, requests or time.

Tensors: G key heads, d head width, C content tokens, N new tokens, P rows of the pool.
"""

import heapq
import itertools
from bisect import bisect_left, insort
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from snapjudge.model.attention import LayerState
from snapjudge.model.tokens import Ids

BLOCK = 16  # tokens


@dataclass(frozen=True)
class CacheStats:
    """Tokens asked for and found, bytes in use and allowed, blocks put out."""

    tokens_asked: int
    tokens_found: int
    bytes_used: int
    bytes_budget: int
    blocks_evicted: int

    @property
    def hit_rate(self) -> float:
        """Share of all content tokens that did not have to be computed."""
        return self.tokens_found / max(1, self.tokens_asked)


@dataclass(eq=False)
class Node:
    """Some tokens that follow a parent's: a block of a causal content, or the whole of a bidirectional one. Seen from outside, a name for what is pinned."""

    number: int
    parent: "Node | None"
    tokens: Ids
    slots: tuple[int, ...]
    children: "dict[Ids, Node]" = field(default_factory=dict)
    order: list[Ids] = field(default_factory=list)  # the children's tokens, sorted
    pins: int = 0
    held: int = 0  # pins of it and of all below it
    used: int = 0

    @property
    def evictable(self) -> bool:
        """Whether it may be put out: a leaf that nobody uses."""
        return self.parent is not None and not self.children and not self.pins


class ContentCache:
    """The pool of blocks and the tree of token prefixes over it. For one thread.

    Args:
        layers: (key heads, key width, value width) of every layer.
        prefix: whether a content's beginning is worth keeping on its own (causal backbones).
        budget: bytes of the pool.
        longest: tokens of the longest content; room for one of these is kept, whatever the budget.
    """

    def __init__(self, layers: Sequence[tuple[int, int, int]], *, prefix: bool, budget: int, longest: int, dtype: torch.dtype, device: torch.device) -> None:
        self.prefix = prefix
        self.block_bytes = sum(heads * (key + value) for heads, key, value in layers) * BLOCK * dtype.itemsize
        blocks = max(budget // self.block_bytes, -(-longest // BLOCK))
        rows = blocks * BLOCK
        self.layers = [
            (torch.empty(rows, heads, key, dtype=dtype, device=device), torch.empty(rows, heads, value, dtype=dtype, device=device))
            for heads, key, value in layers
        ]
        self._free = np.ones(blocks, dtype=bool)
        self._roots: dict[Hashable, Node] = {}
        self._leaves: list[tuple[int, int, Node]] = []  # a heap by last use; stale entries are skipped
        self._clock = 0
        self._asked = self._found = self._evicted = 0
        self._held = self._leased = 0  # blocks that cannot be put out: of pinned nodes, and of leases not ended
        self.changed: set[int] = set()  # nodes under which something came or went, since the caller last cleared it

    @property
    def stats(self) -> CacheStats:
        """What it did so far."""
        used = int((~self._free).sum()) * self.block_bytes
        return CacheStats(self._asked, self._found, used, len(self._free) * self.block_bytes, self._evicted)

    def match(self, space: Hashable, ids: Ids) -> tuple[int, int]:
        """How many leading tokens are at hand, and the number of the node where the tree was left (for `changed`)."""
        node, tokens = self._walk(space, ids)
        extra = len(_common(self._nearest(node, ids[tokens:])[0], ids[tokens:])) if self.prefix else 0
        return tokens + extra, node.number

    def hold(self, space: Hashable, ids: Ids) -> "Lease | None":
        """Pin what is at hand of a content and set blocks aside for the rest; None where there is no room for now."""
        node, tokens = self._walk(space, ids)
        self._pin(node)
        rest = ids[tokens:]
        fresh = self._allocate(-(-len(rest) // BLOCK))
        if fresh is None:
            self.unpin(node)
            return None
        lease = Lease(self, ids, node, tokens, fresh)
        if self.prefix and rest:
            near, slots = self._nearest(node, rest)
            common = len(_common(near, rest))
            if common:
                self._copy(slots[0], fresh[0], common)
                lease.cached = lease.done = tokens + common
        self._asked += len(ids)
        self._found += lease.cached
        return lease

    def pin(self, space: Hashable, ids: Ids) -> Node:
        """Keep what is at hand of a content from being put out, until `unpin`."""
        node, _ = self._walk(space, ids)
        self._pin(node)
        return node

    def unpin(self, node: Node) -> None:
        """Undo one pin."""
        node.pins -= 1
        self._count(node, -1)
        self._touch(node)
        self._offer(node)

    def drop(self, space: Hashable) -> None:
        """Forget everything of a space that is not in use, such as that of an adapter that was replaced."""
        root = self._roots.get(space)
        if root is None:
            return
        for node in _below(root):
            if node.evictable:
                self._remove(node)
        if not root.children:
            del self._roots[space]

    def _root(self, space: Hashable) -> Node:
        if space not in self._roots:
            self._roots[space] = self._node(None, (), ())
        return self._roots[space]

    def _node(self, parent: Node | None, tokens: Ids, slots: tuple[int, ...]) -> Node:
        self._clock += 1
        return Node(self._clock, parent, tokens, slots, used=self._clock)

    def _walk(self, space: Hashable, ids: Ids) -> tuple[Node, int]:
        """The deepest node all of whose tokens lead the content, and how many tokens that is."""
        node, at = self._root(space), 0
        while at < len(ids):
            following = node.children.get(ids[at : at + BLOCK] if self.prefix else ids)
            if following is None:
                break
            node, at = following, at + len(following.tokens)
        return node, at

    def _nearest(self, node: Node, rest: Ids) -> tuple[Ids, tuple[int, ...]]:
        """The child that shares most leading tokens with the rest: a neighbour of it in the order of tokens."""
        if not rest:
            return (), ()
        place = bisect_left(node.order, rest)
        near = max(node.order[max(0, place - 1) : place + 1], key=lambda tokens: len(_common(tokens, rest)), default=())
        return (near, node.children[near].slots) if near and near[0] == rest[0] else ((), ())

    def _pin(self, node: Node) -> None:
        node.pins += 1
        self._count(node, 1)
        self._touch(node)

    def _count(self, node: Node | None, change: int) -> None:
        """Note a pin, or the end of one, on a node and all above it: none of them can be put out."""
        while node is not None:
            before, node.held = node.held, node.held + change
            self._held += len(node.slots) * ((node.held > 0) - (before > 0))
            node = node.parent

    def _touch(self, node: Node | None) -> None:
        self._clock += 1
        while node is not None:
            node.used = self._clock
            node = node.parent

    def _offer(self, node: Node) -> None:
        if not node.evictable:
            return
        heapq.heappush(self._leaves, (node.used, node.number, node))
        if len(self._leaves) > 2 * int((~self._free).sum()) + 64:  # mostly stale
            self._leaves = [entry for entry in self._leaves if entry[2].evictable and entry[0] == entry[2].used]
            heapq.heapify(self._leaves)

    def _allocate(self, count: int) -> tuple[int, ...] | None:
        """Free blocks, side by side where there are such; others are put out to make room. None, and nothing put out, where that would not do."""
        if count > len(self._free) - self._held - self._leased:
            return None
        while int(self._free.sum()) < count:
            if not self._evict():
                return None
        free = np.flatnonzero(self._free)
        runs = np.flatnonzero(free[count - 1 :] - free[: len(free) - count + 1] == count - 1) if count else free[:0]
        first = int(runs[0]) if len(runs) else 0
        chosen = tuple(int(slot) for slot in free[first : first + count])
        self._free[list(chosen)] = False
        self._leased += count
        return chosen

    def _evict(self) -> bool:
        while self._leaves:
            used, _, node = heapq.heappop(self._leaves)
            if node.evictable and node.used == used and node.slots:
                self._remove(node)
                self._evicted += len(node.slots)
                return True
        return False

    def _remove(self, node: Node) -> None:
        assert node.parent is not None
        assert not node.pins
        parent = node.parent
        del parent.children[node.tokens]
        del parent.order[bisect_left(parent.order, node.tokens)]
        self._free[list(node.slots)] = True
        self.changed |= {node.number, parent.number}
        node.parent = None
        self._offer(parent)

    def _copy(self, source: int, target: int, rows: int) -> None:
        for keys, values in self.layers:
            for part in (keys, values):
                part[target * BLOCK : target * BLOCK + rows] = part[source * BLOCK : source * BLOCK + rows]

    def rows(self, slots: Sequence[int], start: int, end: int) -> slice | Tensor:
        """The pool rows of tokens start..end of a content laid out in blocks: a slice where they lie side by side."""
        used = slots[start // BLOCK : -(-end // BLOCK)]
        if all(following - slot == 1 for slot, following in itertools.pairwise(used)):
            first = used[0] * BLOCK + start % BLOCK if used else 0
            return slice(first, first + end - start)
        index = [slots[token // BLOCK] * BLOCK + token % BLOCK for token in range(start, end)]
        return torch.tensor(index, device=self.layers[0][0].device)

    def write(self, layers: Sequence[LayerState], rows: slice | Tensor) -> None:
        """Put keys and values [G, N, d] of every layer into some rows."""
        for (keys, values), (new_keys, new_values) in zip(self.layers, layers, strict=True):
            keys[rows] = new_keys.transpose(0, 1).to(keys.dtype)
            values[rows] = new_values.transpose(0, 1).to(values.dtype)

    def commit(self, lease: "Lease") -> None:
        """Make what a lease has computed findable, give back what it has not used, unpin."""
        node, at = lease.node, lease.start
        whole = lease.done == len(lease.ids)
        fresh = list(lease.fresh)
        self._leased -= len(fresh)
        pieces = [lease.ids[i : i + BLOCK] for i in range(at, lease.done, BLOCK)] if self.prefix else [lease.ids] * (whole and at == 0)
        pieces = [piece if i + 1 < len(pieces) or not self.prefix else lease.ids[at + i * BLOCK : lease.done] for i, piece in enumerate(pieces)]
        for piece in pieces:
            if not piece:
                continue
            count = -(-len(piece) // BLOCK)
            slots, fresh = tuple(fresh[:count]), fresh[count:]
            known = node.children.get(piece)
            if known is not None:  # another content of the same step computed it too
                self._free[list(slots)] = True
                following = known
            else:
                following = self._node(node, piece, slots)
                node.children[piece] = following
                insort(node.order, piece)
                self.changed.add(node.number)
            node = following
        self._free[fresh] = True
        self._touch(node)
        self._offer(node)
        self.unpin(lease.node)


class Lease:
    """One content in use: what is at hand of it pinned, room for the rest. Ends with `release`."""

    def __init__(self, cache: ContentCache, ids: Ids, node: Node, start: int, fresh: tuple[int, ...]) -> None:
        self.cache, self.ids, self.node = cache, ids, node
        self.start, self.fresh = start, fresh
        self.cached = self.done = start
        path: list[int] = []
        above: Node | None = node
        while above is not None:
            path[:0] = above.slots
            above = above.parent
        self._slots = (*path, *fresh)

    def layers(self, tokens: int) -> "CachedLayers":
        """Keys and values of the first `tokens` tokens, layer by layer."""
        assert tokens <= self.done
        return CachedLayers(self.cache, self._slots[: -(-tokens // BLOCK)], tokens)

    def write(self, layers: Sequence[LayerState]) -> None:
        """Keep the next tokens' keys and values, [G, N, d] per layer."""
        count = int(layers[0][0].shape[1])
        self.cache.write(layers, self.cache.rows(self._slots, self.done, self.done + count))
        self.done += count

    def release(self) -> None:
        """Leave what was computed to others."""
        self.cache.commit(self)


class CachedLayers(Sequence[LayerState]):
    """Reads one layer at a time from the pool, as a content state's `layers` are read; tells kernels the pages instead (`attention.Paged`)."""

    page = BLOCK

    def __init__(self, cache: ContentCache, blocks: Sequence[int], tokens: int) -> None:
        self.owner, self.blocks, self._tokens = cache, blocks, tokens

    @cached_property
    def _rows(self) -> slice | Tensor:
        return self.owner.rows(self.blocks, 0, self._tokens)

    def __len__(self) -> int:
        return len(self.owner.layers)

    def __getitem__(self, layer: int) -> LayerState:  # type: ignore[override]
        keys, values = self.owner.layers[layer]
        return keys[self._rows].transpose(0, 1), values[self._rows].transpose(0, 1)

    def pool(self, layer: int) -> LayerState:
        """All of the pool's keys and values of a layer, [P, G, d]."""
        return self.owner.layers[layer]


def _common(first: Ids, second: Ids) -> Ids:
    """The leading tokens both share."""
    count = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    return first[:count]


def _below(node: Node) -> list[Node]:
    """All nodes under one, deepest first."""
    found, left = [], list(node.children.values())
    while left:
        following = left.pop()
        found.append(following)
        left += following.children.values()
    return found[::-1]
