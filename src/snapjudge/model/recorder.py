"""Small steps on a CUDA device, recorded once per size and replayed: one launch instead of a thousand (CUDA graphs).

A recorded step reads its token ids, positions, tables and adapters' addresses from one piece of memory; a step of the same size or smaller is one copy
into it and one replay. Steps that do not fit run as they are. Knows rows and tables; nothing of contents' meaning.

Tensors: T rows of the pack, D width.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from snapjudge.model.attention import LayerState, Switch
from snapjudge.model.kernel_pass import AdapterTiles, KernelPass, adapter_arrays
from snapjudge.model.kernels.attention import Tiles
from snapjudge.model.kernels.lora import COMMON, TABLES, OwnedTiles
from snapjudge.model.tables import Ints, Upload, filled_up

_log = logging.getLogger(__name__)

SIZES = (16, 32, 64, 128, 256)  # rows
PAGES = 8192  # of all contents of a step together

Run = Callable[[KernelPass, Tensor, Tensor, AdapterTiles | None], Tensor]  # pass, ids [1, T], places [1, T], adapters -> hidden states [T, D]


@dataclass
class _Recording:
    """A recorded step: what it reads, and what it leaves."""

    static: Tensor
    graph: torch.cuda.CUDAGraph
    hidden_TD: Tensor
    captured: list[LayerState]


class Recorder:
    """The recorded steps of one backbone.

    Args:
        run: the backbone's forward under a pass.
    """

    def __init__(self, run: Run, switch: Switch, device: torch.device) -> None:
        self._run, self._switch, self._device = run, switch, device
        self._recordings: WeakKeyDictionary[object, dict[tuple[int, bool], _Recording | None]] = WeakKeyDictionary()  # by the pool they read from
        self._without_pool: dict[tuple[int, bool], _Recording | None] = {}

    def step(self, one: KernelPass, ids: list[int], places: list[int], adapters: Sequence[AdapterTiles]) -> tuple[Tensor, list[LayerState]] | None:
        """Hidden states [T, D] and each layer's keys and values, as copies; None where the step has to run as it is.

        Args:
            one: the step's pass; its spans, readouts and pool are used.
        """
        passing = one.pool is not None and one.pool_owner is None
        if passing or self._switch.windows != {None} or any(tiles.width > COMMON for tiles in adapters):
            return None
        owned = adapters[0] if adapters else None
        arrays = fixed_arrays(one, ids, places, owned)
        if arrays is None:
            return None
        size, upload = arrays
        key, recordings = (size, bool(adapters)), self._without_pool if one.pool is None else self._recordings.setdefault(one.pool_owner, {})
        if key not in recordings:
            recordings[key] = self._record(one, upload, owned)
        recording = recordings[key]
        if recording is None:
            return None
        recording.static.copy_(upload.host.pin_memory(), non_blocking=True)
        recording.graph.replay()
        return recording.hidden_TD[: one.rows].clone(), [(keys[:, : one.rows].clone(), values[:, : one.rows].clone()) for keys, values in recording.captured]

    def _record(self, one: KernelPass, upload: Upload, adapters: AdapterTiles | None) -> _Recording | None:
        """Run a step once to warm up, then once more while it is recorded; None, and said in the log, where the model cannot be recorded."""
        static, now = upload.host.to(self._device), torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.stream(now):  # an attempt that fails may leave another stream behind
                side = torch.cuda.Stream()
                side.wait_stream(now)
                with torch.cuda.stream(side):
                    self._run(*fixed_step(one, upload.views(static), adapters))
                now.wait_stream(side)
                passed, ids_1T, places_1T, tiles = fixed_step(one, upload.views(static), adapters)
                with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads load adapters meanwhile
                    hidden_TD = self._run(passed, ids_1T, places_1T, tiles)
        except torch.OutOfMemoryError:
            raise
        except Exception:  # a model's code may fail to be recorded in any way; it still runs launch by launch
            _log.warning("a step of %d rows cannot be recorded and runs launch by launch", len(upload.views(static)["ids"]), exc_info=True)
            return None
        return _Recording(static, graph, hidden_TD, passed.captured)


def fixed_arrays(one: KernelPass, ids: list[int], places: list[int], adapters: AdapterTiles | None) -> tuple[int, Upload] | None:
    """A step's numbers at the lengths of the smallest recorded size that holds it, with that size; None where none does."""
    size = next((size for size in SIZES if size >= one.rows), None)
    if size is None:
        return None
    arrays: dict[str, Ints] = {"ids": np.array(ids), "places": np.array(places), **one.arrays(None, contents=True)}
    if adapters is not None:
        arrays |= adapter_arrays(adapters.owned)
    filled = filled_up(arrays, {name: PAGES if name == "pages" else size for name in arrays})
    return None if filled is None else (size, Upload(filled))


def fixed_step(one: KernelPass, views: dict[str, Tensor], adapters: AdapterTiles | None) -> tuple[KernelPass, Tensor, Tensor, AdapterTiles | None]:
    """The same step, reading its numbers from some place in memory."""
    tables = {name: view for name, view in views.items() if name not in {*TABLES, "ids", "places"}}
    passed = one.recorded(Tiles(**tables, page=one.page), len(views["ids"]))
    if adapters is None:
        return passed, views["ids"][None], views["places"][None], None
    start_t, count_t, base_t, rank_t = (views[name] for name in TABLES)
    return passed, views["ids"][None], views["places"][None], adapters.recorded(OwnedTiles(start_t, count_t, base_t, rank_t))
