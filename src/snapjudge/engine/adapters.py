"""Adapters by name: versions, slots on the device within a byte budget, least recently used out first, back on demand.

A name's adapter can be replaced while requests run: each request holds the version it came with. Knows nothing of requests or time.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch

from snapjudge.errors import AdapterInvalid, AdapterUnknown, OutOfMemory
from snapjudge.model.adapter import Adapter, Scope
from snapjudge.model.grouped import PlacedAdapter, Slab, filled_rank

CHUNK = 16  # adapters of one rank whose weights lie side by side


@dataclass(eq=False)
class Version:
    """One version of a named adapter, from when it was loaded until nobody uses it."""

    name: str
    number: int
    scope: Scope
    rank: int
    source: Callable[[], Adapter]
    digest: str
    pinned: bool = False
    current: bool = True
    uses: int = 0
    last_used: int = 0
    placed: PlacedAdapter | None = None

    @property
    def space(self) -> int | None:
        """Whose contents it reads: its own where it acts on every token, everybody's otherwise."""
        return self.number if self.scope == "all" else None


@dataclass(frozen=True)
class AdapterStats:
    """Adapters loaded and on the device, bytes of the device's slots and their budget, how often one came onto the device and was put out."""

    loaded: int
    resident: int
    bytes_used: int
    bytes_budget: int
    placed: int
    evicted: int


class AdapterPool:
    """All adapters of an engine. For one thread at a time.

    Args:
        shapes: path -> (inputs, outputs) of the backbone's linears.
        budget: bytes of slots on the device; at least one chunk of a rank is kept.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, int]], *, budget: int, dtype: torch.dtype, device: torch.device) -> None:
        self._shapes, self._budget, self._dtype, self._device = shapes, budget, dtype, device
        self._current: dict[str, Version] = {}
        self._slabs: list[tuple[Slab, list[Version | None]]] = []
        self._clock = self._placed = self._evicted = 0
        self._working: set[Version] = set()  # versions of the step that runs

    @property
    def stats(self) -> AdapterStats:
        """What it holds and did so far."""
        resident = sum(owner is not None for _, owners in self._slabs for owner in owners)
        used = sum(self._bytes(slab.rank) * sum(owner is not None for owner in owners) for slab, owners in self._slabs)
        return AdapterStats(len(self._current), resident, used, self._budget, self._placed, self._evicted)

    def load(self, name: str, adapter: Adapter, digest: str, source: Callable[[], Adapter], *, pinned: bool = False) -> Version | None:
        """Load an adapter under a name; returns the version it replaces, if nobody uses that any more.

        Args:
            digest: of the adapter (`digest_of`), which the source must still give then.
            source: what reads it again when it is needed on the device.
            pinned: never put out.

        Raises:
            AdapterInvalid: its layers or ranks do not fit the backbone. What was loaded before stays.
            OutOfMemory: it is to be pinned and there is no room. What was loaded before stays.
        """
        self._check(name, adapter)
        self._clock += 1
        new = Version(name, self._clock, adapter.scope, filled_rank(adapter.rank), source, digest, pinned)
        if pinned:
            self.place(new, adapter)
        replaced, self._current[name] = self._current.get(name), new
        return self._retire(replaced)

    def unload(self, name: str) -> Version | None:
        """Forget a name; returns its version if nobody uses it any more.

        Raises:
            AdapterUnknown.
        """
        version = self.find(name)
        del self._current[name]
        return self._retire(version)

    def find(self, name: str) -> Version:
        """The current version of a name.

        Raises:
            AdapterUnknown.
        """
        if name not in self._current:
            known = ", ".join(sorted(self._current)[:5]) or "none"
            raise AdapterUnknown(f"no adapter {name!r} is loaded; loaded: {known}", hint="load it first", received=name)
        return self._current[name]

    def hold(self, version: Version) -> None:
        """Note that one more request uses a version."""
        version.uses += 1

    def release(self, version: Version) -> Version | None:
        """Note that a request is done with a version; returns it if it was replaced and nobody uses it any more."""
        version.uses -= 1
        return None if version.current else self._retire(version)

    def read(self, version: Version) -> Adapter:
        """An adapter from its source once more; needs no turn, and may take as long as a disk does.

        Raises:
            AdapterInvalid: the source gives another adapter than the one that was loaded, such as a folder that was trained into again.
        """
        adapter = version.source()
        if digest_of(adapter) != version.digest:
            raise AdapterInvalid(f"adapter {version.name} is no longer what was loaded", hint="load it again under its name, from a folder of its own")
        return adapter

    def work_with(self, versions: Iterable[Version]) -> list[Version]:
        """A step's versions: until `work_done` they stay on the device. Returns those that have to be read and placed first."""
        self._working = set(versions)
        self._clock += 1
        for version in self._working:
            version.last_used = self._clock
        return sorted((version for version in self._working if version.placed is None), key=lambda version: version.number)

    def place(self, version: Version, adapter: Adapter) -> None:
        """Bring a version onto the device; others that are neither pinned nor of the step that runs make room.

        Raises:
            OutOfMemory: there is none.
        """
        slab, owners, slot = self._slot(version.rank)
        version.placed, owners[slot] = slab.place(adapter, slot), version
        self._placed += 1

    def work_done(self) -> None:
        """The step is over."""
        self._working = set()

    def _retire(self, version: Version | None) -> Version | None:
        if version is None:
            return None
        version.current = False
        if version.uses:
            return None
        self._put_out(version)
        return version

    def _put_out(self, version: Version) -> None:
        if version.placed is not None:
            slab = version.placed.slab
            for own, owners in self._slabs:
                if own is slab:
                    owners[version.placed.slot] = None
            version.placed = None

    def _slot(self, rank: int) -> tuple[Slab, list[Version | None], int]:
        """A free slot of a rank: one at hand, one of a new slab, or that of the least recently used."""
        for slab, owners in self._slabs:
            if slab.rank == rank and None in owners:
                return slab, owners, owners.index(None)
        chunk = self._bytes(rank) * CHUNK
        while self._slabs and sum(self._bytes(slab.rank) * CHUNK for slab, _ in self._slabs) + chunk > self._budget:
            empty = next((place for place, (_, owners) in enumerate(self._slabs) if not any(owners)), None)
            if empty is not None:
                del self._slabs[empty]
                continue
            oldest = min(self._idle(), key=lambda version: version.last_used, default=None)
            if oldest is None:
                raise OutOfMemory(
                    f"the adapters of one step need more than the {self._budget} bytes for adapters",
                    hint="give adapters more memory, or ask fewer judges at once",
                )
            self._put_out(oldest)
            self._evicted += 1
            if oldest.rank == rank:
                return self._slot(rank)
        slab = Slab(self._shapes, rank=rank, slots=CHUNK, dtype=self._dtype, device=self._device)
        self._slabs.append((slab, [None] * CHUNK))
        return slab, self._slabs[-1][1], 0

    def _idle(self) -> list[Version]:
        """Versions on the device that may be put out: not pinned, not of the step that runs."""
        owners = [owner for _, some in self._slabs for owner in some if owner is not None]
        return [owner for owner in owners if not owner.pinned and owner not in self._working]

    def _bytes(self, rank: int) -> int:
        return sum(rank * (inputs + outputs) for inputs, outputs in self._shapes.values()) * self._dtype.itemsize

    def _check(self, name: str, adapter: Adapter) -> None:
        for path, (inputs, outputs) in self._shapes.items():
            pair = adapter.weights.get(path)
            sizes = None if pair is None else (tuple(pair[0].shape), tuple(pair[1].shape))
            if sizes != ((adapter.rank, inputs), (outputs, adapter.rank)):
                raise AdapterInvalid(
                    f"adapter {name}: layer {path} has shapes {sizes}, expected {((adapter.rank, inputs), (outputs, adapter.rank))}",
                    hint="load an adapter that was trained on this backbone",
                )


def digest_of(adapter: Adapter) -> str:
    """Of an adapter's weights, scope and scale."""
    found = hashlib.sha256(f"{adapter.scope} {adapter.rank} {adapter.alpha}".encode())
    for tensor in adapter.parameters():
        found.update(tensor.detach().contiguous().view(torch.uint8).cpu().numpy().data)
    return found.hexdigest()
