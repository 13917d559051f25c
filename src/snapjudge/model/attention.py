"""Attention: what a layer asks for, what is kept of a content, and the two kernels everything is made of.

`attend` gives attended values with their log-sum-exp, `merge` joins two of them into attention over both sets of keys (Hydragen, arXiv 2402.05099).
A row's result depends on its own query, on the keys and on the shapes handed in, never on the other rows: callers keep the shapes fixed.
Knows nothing of text, adapters or models; a pass is set on a backbone's `Switch` for as long as it runs.

Tensors: N items, Q query heads, G key heads (Q is a multiple of G), R query rows, K keys, d head width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

LayerState = tuple[Tensor, Tensor]  # keys_GCd, values_GCd
PIECE = 64  # rows of a product of the plain kernel
TILE = 16  # rows: float32 products and attention have a multiple of them (docs/design/0006)


@dataclass(frozen=True)
class Shape:
    """What a layer asks of attention besides its tensors: score scale, soft cap on scores, sliding window in tokens."""

    scale: float
    softcap: float | None = None
    window: int | None = None


@dataclass(frozen=True)
class ContentState:
    """What a backbone keeps of one content: keys and values per layer.

    It depends on the backbone and the content's token ids (and, for scope `all`, the adapter) alone, never on the metric.
    """

    layers: Sequence[LayerState]
    length: int


@runtime_checkable
class Paged(Protocol):
    """Layers of a content state that lie in the pages of a pool, which other states share.

    Attributes:
        owner: whose pool it is; `blocks` the pages in the order of the content, `page` tokens to each.
    """

    owner: Any
    blocks: Sequence[int]
    page: int

    def pool(self, layer: int) -> LayerState:
        """Keys and values [P, G, d] of all of the pool."""
        ...


class Pass(Protocol):
    """One forward pass of a backbone, as its attention layers see it."""

    def attend(self, layer: int, query_BQTd: Tensor, key_BGTd: Tensor, value_BGTd: Tensor, shape: Shape) -> Tensor:
        """Return the attended values, [B, T, Q, d]."""
        ...


class Switch:
    """Holds what a backbone's current forward is about; shared by all its modules.

    Attributes:
        current: the pass that its attention layers ask.
        adapters: whose rows of the pack are whose (`AdapterRows`).
        trained: in training, the adapter that owns all rows.
        whole: in training, whether all weights are trained.
        live_from: rows before it are of no use to anyone any more; linear layers leave them out.
        kernels: whether frozen products run in our own kernels (`kernels.products`).
        heads: how many query heads and key heads attention layers have, and the bytes of one key; 0 until one has asked.
        windows: the sliding windows that attention layers have asked for, None among them where there was none.
    """

    def __init__(self) -> None:
        self.kernels = False
        self.heads = 0, 0, 0
        self.windows: set[int | None] = set()
        self.reset()

    def reset(self) -> None:
        """Forget the pass."""
        self.current: Pass | None = None
        self.adapters: Any = ()
        self.trained: Any = None
        self.whole = False
        self.live_from = 0
        self._made: dict[Any, tuple[Tensor, Any]] = {}

    def leave_out(self, rows: int, tile: int) -> None:
        """The first rows are done with; so that products keep to whole tiles, a few of them may still be computed."""
        self.adapters = [group for group in self.adapters if group.end > rows]
        self.live_from = rows // tile * tile

    def once(self, what: Any, x: Tensor, make: Callable[[], Any]) -> Any:
        """Something made of `x`, made once for all layers that are handed the same tensor (query, key and value; gate and up)."""
        known = self._made.get(what)
        if known is None or known[0] is not x:
            known = self._made[what] = x, make()
        return known[1]


def attend(
    query_NQRd: Tensor, key_NGKd: Tensor, value_NGKd: Tensor, shape: Shape, *, causal: bool = False, visible_RK: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attended values [N, Q, R, d] and the log-sum-exp of the scores [N, Q, R]; rows that see nothing give zeros and -inf.

    Args:
        causal: row r sees keys 0..r.
        visible_RK: which row sees which key, where it is neither all nor causal.
    """
    if visible_RK is None and shape.softcap is None and query_NQRd.device.type == "cpu":
        return _flash(query_NQRd, key_NGKd, value_NGKd, shape, causal=causal)
    items = [_attend_plainly(*item, shape, causal, visible_RK) for item in zip(query_NQRd, key_NGKd, value_NGKd, strict=True)]
    return torch.stack([values for values, _ in items]), torch.stack([lse for _, lse in items])


def attend_until(query_NQRd: Tensor, key_NGKd: Tensor, value_NGKd: Tensor, shape: Shape, first: int) -> tuple[Tensor, Tensor]:
    """The same for rows that stand among the keys, the first at key `first`: each sees all keys up to its own."""
    rows, keys = query_NQRd.shape[2], key_NGKd.shape[2]
    if shape.softcap is not None or shape.window is not None or query_NQRd.device.type != "cpu":
        visible_RK = causal_window(keys, shape.window or keys, query_NQRd.device)[first : first + rows]
        return attend(query_NQRd, key_NGKd, value_NGKd, shape, visible_RK=visible_RK)
    bias = _up_to_own(first, rows, keys, query_NQRd.shape[1] // key_NGKd.shape[1], query_NQRd.dtype)
    return _flash(query_NQRd, key_NGKd, value_NGKd, shape, bias=bias)


@lru_cache(maxsize=128)
def _up_to_own(first: int, rows: int, keys: int, heads: int, dtype: torch.dtype) -> Tensor:
    """What is added to the scores of folded rows, [1, 1, heads * rows, keys]: 0 up to a row's own key, -inf after it; filled up to whole TILEs of rows."""
    bias_RK = torch.full((rows, keys), float("-inf"), dtype=dtype).triu(1 + first).repeat(heads, 1)
    return functional.pad(bias_RK, (0, 0, 0, -len(bias_RK) % TILE))[None, None]


def _flash(
    query_NQRd: Tensor, key_NGKd: Tensor, value_NGKd: Tensor, shape: Shape, *, causal: bool = False, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Torch's blocked kernel. Query heads that share keys become rows of one head, so that it packs those keys once; a causal mask counts rows, and stays."""
    heads, rows = key_NGKd.shape[1], query_NQRd.shape[2]
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    if causal or heads == query_NQRd.shape[1]:
        missing = -rows % TILE
        values, lse = kernel(filled(query_NQRd, 0, missing), key_NGKd, value_NGKd, 0.0, causal, attn_mask=bias, scale=shape.scale)
        return (values[:, :, :rows], lse[:, :, :rows]) if missing else (values, lse)
    folded = query_NQRd.unflatten(1, (heads, -1)).flatten(2, 3)
    count = folded.shape[2]
    values, lse = kernel(filled(folded, 0, -count % TILE), key_NGKd, value_NGKd, 0.0, attn_mask=bias, scale=shape.scale)
    return values[:, :, :count].unflatten(2, (-1, rows)).flatten(1, 2), lse[:, :, :count].unflatten(2, (-1, rows)).flatten(1, 2)


def _attend_plainly(query_QRd: Tensor, key_GKd: Tensor, value_GKd: Tensor, shape: Shape, causal: bool, visible_RK: Tensor | None) -> tuple[Tensor, Tensor]:  # noqa: FBT001
    """The same for one item, for soft caps and windows; item by item, since a batched product's bits may depend on how many items it has."""
    rows, keys, heads = query_QRd.shape[1], key_GKd.shape[1], key_GKd.shape[0]
    scores = _in_pieces(query_QRd.unflatten(0, (heads, -1)).flatten(1, 2), key_GKd.transpose(-1, -2))  # [G, Q / G * R, K]
    scores = scores.float().unflatten(1, (-1, rows)) * shape.scale
    if shape.softcap is not None:
        scores = steady(torch.tanh, scores / shape.softcap) * shape.softcap
    if causal:
        own_RK = torch.ones(rows, keys, dtype=torch.bool, device=scores.device).tril()
        visible_RK = own_RK if visible_RK is None else own_RK & visible_RK
    if visible_RK is not None:
        scores = scores.masked_fill(~visible_RK, float("-inf"))
    highest = scores.amax(-1, keepdim=True)
    weights = steady(torch.exp, scores - highest.masked_fill(highest.isneginf(), 0.0))
    total = weights.sum(-1, keepdim=True)
    lse = (steady(torch.log, total) + highest).squeeze(-1)
    shares = (weights / total.clamp_min(torch.finfo(total.dtype).tiny)).to(value_GKd.dtype)
    out = _in_pieces(shares.flatten(1, 2), value_GKd).unflatten(1, (-1, rows))
    return out.flatten(0, 1), lse.flatten(0, 1)


def _in_pieces(first_GRI: Tensor, second_GIK: Tensor) -> Tensor:
    """A batched product in pieces of PIECE rows: with few keys, its bits depend on how many rows there are."""
    count = first_GRI.shape[1]
    pieces = filled(first_GRI, 0, -count % PIECE).split(PIECE, 1)
    return torch.cat([piece @ second_GIK for piece in pieces], 1)[:, :count]


def merge(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> Tensor:
    """Attention over the keys of both: values weighted by the shares of their log-sum-exps. At least one of a row must see something."""
    (values, lse), (other_values, other_lse) = first, second
    share = steady(torch.sigmoid, lse - other_lse)[..., None].to(values.dtype)
    merged: Tensor = torch.lerp(other_values, values, share)
    return merged


def row_tile(dtype: torch.dtype, device: torch.device) -> int:
    """Of how many rows the products of a pack must be a multiple, so that a row's bits do not depend on how many there are (docs/design/0006)."""
    return 1 if dtype == torch.bfloat16 and device.type == "cpu" else TILE


def steady(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An elementwise function whose bits do not depend on where in the tensor an element lies.

    Vectorised loops end in a scalar one that rounds otherwise (torch.sigmoid on a CPU with AVX-512: the last n % 32 elements), and threads cut
    long tensors where they like: filled up to a multiple of 1,024, neither leaves a rest.
    """
    flat = x.reshape(-1)
    missing = -len(flat) % 1024
    return function(functional.pad(flat, (0, missing)))[: len(flat)].view(x.shape) if missing else function(x)


def causal_window(length: int, window: int, device: torch.device) -> Tensor:
    """Boolean [length, length]: each token sees itself and the `window` - 1 before it."""
    full = torch.ones(length, length, dtype=torch.bool, device=device)
    return full.tril() & full.triu(1 - window)


def filled(part_Rd: Tensor, before: int, after: int) -> Tensor:
    """Rows of zeros around a part [.., R, d]; itself where none are wanted."""
    return functional.pad(part_Rd, (0, 0, before, after)) if before or after else part_Rd
