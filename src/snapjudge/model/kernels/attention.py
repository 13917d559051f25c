"""Attention of one step in one launch: every row against its content and against its own readout.

Query rows come in tiles of one content, whatever readouts or content tokens they are; a tile and one key head are one program, that goes over the content's
keys in blocks laid by absolute position: those at hand lie in pages of the pool, the others in the pack. A row's sums run in the order of its content's
positions, then of its own readout's, so its bits depend on neither the tile nor on what was at hand (online softmax: Milakov & Gimelshein, arXiv 1805.02867;
shared keys as one product: Hydragen, arXiv 2402.05099).

Tensors: T rows of the pack, Q query heads, G key heads, d head width, t tiles, c contents, P rows of the pool.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from snapjudge.model.attention import Shape

KEYS = 64  # of a block
LEAST = 16  # rows of a tile, and width of a product


@dataclass(frozen=True)
class Tiles:
    """Which row sees what; whole numbers in int64.

    Args:
        row_tR: rows of the pack of each tile, -1 where it is not full.
        content_t: each tile's content; `from_t` and `to_t` the span of its keys that any of its rows sees; `own_t` the longest own readout of its rows.
        low_T: first content position a row sees, `high_T` the one after the last.
        own_T: pack row where a row's own readout begins, `skip_T` and `count_T` which of that it sees (none for a content's row).
        past_c: how many tokens of each content are at hand, `page_c` where its pages begin in `pages`, `new_c` its first new row in the pack.
        page: tokens of a page.
    """

    row_tR: Tensor
    content_t: Tensor
    from_t: Tensor
    to_t: Tensor
    own_t: Tensor
    low_T: Tensor
    high_T: Tensor
    own_T: Tensor
    skip_T: Tensor
    count_T: Tensor
    past_c: Tensor
    page_c: Tensor
    new_c: Tensor
    pages: Tensor
    page: int


@triton.jit  # type: ignore[untyped-decorator]
def _capped(score, softcap, SOFTCAP: tl.constexpr):  # type: ignore[no-untyped-def]
    if SOFTCAP:
        score = softcap * (1 - 2 / (tl.exp(2 * score / softcap) + 1))  # tanh
    return score


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    q, k, v, pool_k, pool_v, out, row_tR, content_t, from_t, to_t, own_t, low_T, high_T, own_T, skip_T, count_T, past_c, page_c, new_c, pages,
    q_t, q_h, k_t, k_h, v_t, v_h, pk_t, pk_h, pv_t, pv_h, o_t, o_h, scale, softcap,
    HEADS: tl.constexpr, SHARE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, VALUES: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_V: tl.constexpr,
    BLOCK_K: tl.constexpr, PAGE: tl.constexpr, SOFTCAP: tl.constexpr,
):  # fmt: skip
    tile, group = tl.program_id(0), tl.program_id(1)
    content = tl.load(content_t + tile)
    if content >= 0:
        place = tl.arange(0, ROWS * SHARE)
        row = tl.load(row_tR + tile * ROWS + place // SHARE)
        head = group * HEADS + place % SHARE
        real = (row >= 0) & (place % SHARE < HEADS)
        row = tl.maximum(row, 0).to(tl.int64)
        at_d, at_v, at_k = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_V), tl.arange(0, BLOCK_K)
        query = tl.load(q + row[:, None] * q_t + head[:, None] * q_h + at_d[None, :], mask=real[:, None] & (at_d[None, :] < WIDTH), other=0.0)
        low, high = tl.load(low_T + row), tl.load(high_T + row)
        past, page, new = tl.load(past_c + content), tl.load(page_c + content), tl.load(new_c + content)
        best = tl.full((ROWS * SHARE,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((ROWS * SHARE,), dtype=tl.float32)
        values = tl.zeros((ROWS * SHARE, BLOCK_V), dtype=tl.float32)
        last = tl.load(to_t + tile)
        for start in range(tl.load(from_t + tile) // BLOCK_K * BLOCK_K, last, BLOCK_K):
            position = start + at_k
            old, fresh = position < past, (position >= past) & (position < last)
            kept = (tl.load(pages + page + position // PAGE, mask=old, other=0) * PAGE + position % PAGE).to(tl.int64)
            packed = (new + tl.maximum(position - past, 0)).to(tl.int64)
            wide, broad = at_d[:, None] < WIDTH, at_v[None, :] < VALUES
            key = tl.load(pool_k + kept[None, :] * pk_t + group * pk_h + at_d[:, None], mask=old[None, :] & wide, other=0.0)
            key += tl.load(k + packed[None, :] * k_t + group * k_h + at_d[:, None], mask=fresh[None, :] & wide, other=0.0)
            value = tl.load(pool_v + kept[:, None] * pv_t + group * pv_h + at_v[None, :], mask=old[:, None] & broad, other=0.0)
            value += tl.load(v + packed[:, None] * v_t + group * v_h + at_v[None, :], mask=fresh[:, None] & broad, other=0.0)
            score = _capped(tl.dot(query, key, input_precision="ieee") * scale, softcap, SOFTCAP)
            seen = (position[None, :] >= low[:, None]) & (position[None, :] < high[:, None])
            score = tl.where(seen, score, float("-inf"))
            now = tl.maximum(best, tl.max(score, 1))
            steady = tl.where(now == float("-inf"), 0.0, now)
            weight = tl.exp(score - steady[:, None])
            shrunk = tl.exp(best - steady)
            total = total * shrunk + tl.sum(weight, 1)
            values = values * shrunk[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
            best = now
        own, skip, count = tl.load(own_T + row).to(tl.int64), tl.load(skip_T + row), tl.load(count_T + row)
        for step in range(tl.load(own_t + tile)):
            mine = real & (step >= skip) & (step < count)
            key = tl.load(k + (own + step)[:, None] * k_t + group * k_h + at_d[None, :], mask=mine[:, None] & (at_d[None, :] < WIDTH), other=0.0)
            value = tl.load(v + (own + step)[:, None] * v_t + group * v_h + at_v[None, :], mask=mine[:, None] & (at_v[None, :] < VALUES), other=0.0)
            single = _capped(tl.sum(query.to(tl.float32) * key.to(tl.float32), 1) * scale, softcap, SOFTCAP)
            single = tl.where(mine, single, float("-inf"))
            now = tl.maximum(best, single)
            steady = tl.where(now == float("-inf"), 0.0, now)
            weight = tl.exp(single - steady)
            shrunk = tl.exp(best - steady)
            total = total * shrunk + weight
            values = values * shrunk[:, None] + weight[:, None] * value.to(tl.float32)
            best = now
        values = values / tl.where(total == 0.0, 1.0, total)[:, None]
        target = out + row[:, None] * o_t + head[:, None] * o_h + at_v[None, :]
        tl.store(target, values.to(out.dtype.element_ty), mask=real[:, None] & (at_v[None, :] < VALUES))


def rows_of_a_tile(query_heads: int, key_heads: int, key_bytes: int) -> int:
    """How many rows a tile has, so that with the query heads that share a key head it fills a product and fits beside the keys.

    Args:
        key_bytes: size of one key of one head.
    """
    share: int = triton.next_power_of_2(query_heads // key_heads)
    return max(1, (128 if key_bytes <= 512 else 64) // share)


def stages_for(key_bytes: int) -> int:
    """How many blocks of keys are on their way at once: as many as fit beside the queries."""
    return 2 if key_bytes <= 256 else 1


def attend_tiles(query_TQd: Tensor, key_TGd: Tensor, value_TGd: Tensor, pool: tuple[Tensor, Tensor], tiles: Tiles, shape: Shape) -> Tensor:
    """Attended values [T, Q, d] of all rows that a tile holds; zeros elsewhere.

    Args:
        pool: keys and values [P, G, d] of what is at hand, in pages.
    """
    heads, groups, width = query_TQd.shape[1], key_TGd.shape[1], key_TGd.shape[2]
    out_TQd = query_TQd.new_zeros(len(query_TQd), heads, value_TGd.shape[2])
    tensors = query_TQd, key_TGd, value_TGd, *pool, out_TQd
    tables = (
        tiles.row_tR, tiles.content_t, tiles.from_t, tiles.to_t, tiles.own_t, tiles.low_T, tiles.high_T, tiles.own_T, tiles.skip_T, tiles.count_T,
        tiles.past_c, tiles.page_c, tiles.new_c, tiles.pages,
    )  # fmt: skip
    strides = [stride for tensor in (query_TQd, key_TGd, value_TGd, *pool, out_TQd) for stride in tensor.stride()[:2]]
    assert all(tensor.stride(2) == 1 for tensor in tensors), "head widths lie side by side"
    share = triton.next_power_of_2(heads // groups)
    _attend[(len(tiles.content_t), groups)](
        *tensors, *tables, *strides, shape.scale, shape.softcap or 0.0, HEADS=heads // groups, SHARE=share, ROWS=tiles.row_tR.shape[1], WIDTH=width,
        VALUES=value_TGd.shape[2], BLOCK_D=max(LEAST, triton.next_power_of_2(width)), BLOCK_V=max(LEAST, triton.next_power_of_2(value_TGd.shape[2])),
        BLOCK_K=KEYS, PAGE=tiles.page, SOFTCAP=shape.softcap is not None, num_warps=8,
        num_stages=stages_for(width * query_TQd.element_size()),
    )  # fmt: skip
    return out_TQd


def attend_tiles_plainly(query_TQd: Tensor, key_TGd: Tensor, value_TGd: Tensor, pool: tuple[Tensor, Tensor], tiles: Tiles, shape: Shape) -> Tensor:
    """What `attend_tiles` computes, row by row."""
    out_TQd = query_TQd.new_zeros(len(query_TQd), query_TQd.shape[1], value_TGd.shape[2])
    share = query_TQd.shape[1] // key_TGd.shape[1]
    for tile, content in enumerate(tiles.content_t.tolist()):
        for row in [row for row in tiles.row_tR[tile].tolist() if row >= 0]:
            past, new = int(tiles.past_c[content]), int(tiles.new_c[content])
            positions = range(int(tiles.low_T[row]), int(tiles.high_T[row]))
            kept = [int(tiles.pages[int(tiles.page_c[content]) + at // tiles.page]) * tiles.page + at % tiles.page for at in positions if at < past]
            packed = [new + at - past for at in positions if at >= past]
            packed += [int(tiles.own_T[row]) + step for step in range(int(tiles.skip_T[row]), int(tiles.count_T[row]))]
            keys_QKd = torch.cat((pool[0][kept], key_TGd[packed])).float().repeat_interleave(share, 1).transpose(0, 1)
            values_QKd = torch.cat((pool[1][kept], value_TGd[packed])).float().repeat_interleave(share, 1).transpose(0, 1)
            scores_QK = (keys_QKd @ query_TQd[row].float()[:, :, None])[..., 0] * shape.scale
            if shape.softcap is not None:
                scores_QK = torch.tanh(scores_QK / shape.softcap) * shape.softcap
            out_TQd[row] = (scores_QK.softmax(-1)[:, None] @ values_QKd)[:, 0].to(out_TQd.dtype)
    return out_TQd
