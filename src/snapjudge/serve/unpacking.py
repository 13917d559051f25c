"""Compressed bodies, unpacked as far as a body may be large and no further: what a bomb would become is never made."""

import zlib
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from snapjudge.errors import Problem, RequestInvalid, RequestTooLarge

Unpack = Callable[[bytes, int], bytes]


def _identity(body: bytes, _: int) -> bytes:
    return body


def _deflated(body: bytes, most: int) -> bytes:
    """Gzip and zlib, as the first bytes tell."""
    unpacker = zlib.decompressobj(wbits=47)
    try:
        found = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise _broken(str(error)) from None
    if len(found) > most:
        raise too_large(most)
    if not unpacker.eof or unpacker.unused_data:
        raise _broken("cut short, or followed by something else")
    return found


def _zstd(body: bytes, most: int) -> bytes:
    module = _zstd_module()
    assert module is not None, "only where it is there"
    unpacker = module.ZstdDecompressor()
    try:
        found: bytes = unpacker.decompress(body, most + 1)
    except module.ZstdError as error:
        raise _broken(str(error)) from None
    if len(found) > most:
        raise too_large(most)
    if not unpacker.eof or unpacker.unused_data:
        raise _broken("cut short, or followed by something else")
    return found


def too_large(most: int) -> RequestTooLarge:
    """What a body past its bound becomes."""
    return RequestTooLarge(f"the body is larger than {most} bytes", hint="send less at once, or raise the server's --body-mb")


def _broken(reason: str) -> RequestInvalid:
    return RequestInvalid("the request", [Problem("body", f"a compressed body that cannot be unpacked ({reason})", "what content-encoding says")])


def _zstd_module() -> ModuleType | None:
    """Python's own from 3.14 on, else the backport's."""
    for name in ("compression.zstd", "backports.zstd"):
        if find_spec(name.partition(".")[0]) is not None and find_spec(name) is not None:
            return import_module(name)
    return None


UNPACKED: Mapping[bytes, Unpack] = {
    b"identity": _identity,
    b"gzip": _deflated,
    b"deflate": _deflated,
    **({b"zstd": _zstd} if _zstd_module() is not None else {}),
}
