"""What a server's process and its engine processes say to each other: frozen values in frames, over a socket that only the two have.

A frame is the length of what follows (4 bytes, big-endian) and a pickle. Knows nothing of what is done about them.
"""

import pickle
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from snapjudge.engine.plan import Limits
from snapjudge.model.asking import Answer
from snapjudge.model.tokens import Ids

_HEADER = struct.Struct("!I")


@dataclass(frozen=True, slots=True)
class Start:
    """The first message: which backbone, and how it is run.

    Args:
        threads: of matrix products; 0: as many as torch takes.
        open_questions: whether the learned questions are read at the start, so that the first open question does not wait for them.
    """

    backbone: str
    precision: str
    device: str | None
    threads: int
    cache_bytes: int
    adapter_bytes: int
    limits: Limits
    open_questions: bool


@dataclass(frozen=True, slots=True)
class Load:
    """Load the judge of a bundle's folder, which has this digest, under a key."""

    number: int
    key: str
    folder: str
    digest: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Forget a judge; what is asked of it finishes."""

    number: int
    key: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask some judges, by key, and some wordings about one content.

    Args:
        windows, orders: the content, as `model.prompt.Content`.
        deadline: on the machine's monotonic clock.
        session: whose growing content it is, without its `tail`; it is one window and stays at hand until `Close`.
    """

    number: int
    windows: tuple[Ids, ...]
    orders: int
    keys: tuple[str, ...]
    wordings: tuple[str, ...] = ()
    deadline: float | None = None
    session: int | None = None
    tail: Ids = ()


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for an answer any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """A session is over."""

    session: int


@dataclass(frozen=True, slots=True)
class Look:
    """How is it going?"""

    number: int


Request = Start | Load | Unload | Ask | Cancel | Close | Look


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to `Ask`: raw label log-probabilities, judge by judge; for each window what it says to each wording, and the learned question nearest to it.

    Args:
        cached: of `tokens` content tokens those that did not have to be computed.
        waited, seconds: until the first step that worked on it, and until the answer.
        strange: judge by judge, whether nothing like the content was among what it was calibrated on.
    """

    number: int
    log_p: tuple[tuple[float, ...], ...]
    windows: tuple[tuple[Answer, ...], ...]
    nearest: tuple[str, ...]
    tokens: int
    cached: int
    waited: float
    seconds: float
    strange: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to everything else: `Ready` to `Start`, the readout's tokens to `Load`, `EngineStats` to `Look`."""

    number: int
    value: Any = None


@dataclass(frozen=True, slots=True)
class Failed:
    """What was asked failed: a SnapjudgeError's body."""

    number: int
    error: dict[str, object]


@dataclass(frozen=True, slots=True)
class Ready:
    """An engine runs: its backbone's digest, its first guess of tokens per second, its precision and device."""

    digest: str
    rate: float
    precision: str
    device: str


Reply = Found | Done | Failed


def framed(message: Request | Reply) -> bytes:
    """A message as it travels."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _HEADER.pack(len(body)) + body


def length_of(header: bytes) -> int:
    """How many bytes follow a header."""
    (length,) = _HEADER.unpack(header)
    assert isinstance(length, int)
    return length


HEADER_BYTES = _HEADER.size


def received(connection: socket.socket) -> Iterator[Request]:
    """All messages of a connection until the other side is gone."""
    stream = connection.makefile("rb", buffering=1 << 16)
    while len(header := stream.read(HEADER_BYTES)) == HEADER_BYTES:
        yield pickle.loads(stream.read(length_of(header)))  # noqa: S301 - written by the process that made this one, over a socket nobody else has
