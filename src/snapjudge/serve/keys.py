"""API keys: kept as hashes, each with what it may do, which judges it may ask and how often. Knows nothing of HTTP but the header a key comes in.

A key is `sj_` and 32 random bytes, so that one round of SHA-256 is enough: there is nothing to guess. The file holds the hash alone.
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from pydantic import Field, ValidationError, field_validator

from snapjudge.core.frozen import Frozen
from snapjudge.errors import KeyForbidden, KeyInvalid, OptionInvalid, Problem, RateLimited, SettingsInvalid
from snapjudge.store.files import write_file

Deed = Literal["judge", "observe", "manage"]
DEEDS: tuple[Deed, ...] = ("judge", "observe", "manage")
ANY = "*"
_PREFIX = "sj_"
TOKEN_SECONDS = 3600


class KeyEntry(Frozen):
    """One key of the file."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="who it is for; stands in logs and metrics")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    judges: tuple[str, ...] = Field(default=(ANY,), description="that it may ask, by name; * stands for all")
    may: tuple[Deed, ...] = Field(default=("judge", "observe"), description="judge: ask; observe: queue and read what was queued; manage: load and unload")
    rate: str = Field(default="", description="requests, such as 100/second or 5000/minute; empty: as many as it likes")

    @field_validator("rate")
    @classmethod
    def _readable(cls, rate: str) -> str:
        if rate:
            parse(rate)
        return rate


@dataclass(frozen=True)
class Caller:
    """Who asks. Without a file of keys everybody is the same caller, who may do everything."""

    name: str = "anyone"
    judges: tuple[str, ...] = (ANY,)
    may: tuple[Deed, ...] = DEEDS
    rate: RateLimitItem | None = None
    spent: "Keys | None" = field(default=None, repr=False, compare=False)

    def check(self, deed: Deed) -> None:
        """See that this caller may do something.

        Raises:
            KeyForbidden.
        """
        if deed not in self.may:
            raise KeyForbidden(f"the key {self.name} may not {deed}", hint=f"it may {', '.join(self.may) or 'nothing'}; ask for a key that may {deed}")

    def check_judges(self, names: Sequence[str]) -> None:
        """See that this caller may ask some judges, by the name without version or alias.

        Raises:
            KeyForbidden.
        """
        if ANY in self.judges:
            return
        for name in names:
            if name not in self.judges and name.partition("@")[0] not in self.judges:
                raise KeyForbidden(f"the key {self.name} may not ask {name}", hint=f"it may ask {', '.join(self.judges)}")

    def check_rate(self) -> None:
        """Count a request.

        Raises:
            RateLimited: it is one too many; with the seconds until the next.
        """
        if self.rate is not None and self.spent is not None:
            self.spent.count(self)


class Keys:
    """The keys of a file, and what each has been used for lately."""

    def __init__(self, entries: Sequence[KeyEntry] | None) -> None:
        self._callers: Mapping[bytes, Caller] | None = None
        if entries is not None:
            self._callers = {bytes.fromhex(one.sha256): Caller(one.name, one.judges, one.may, parse(one.rate) if one.rate else None, self) for one in entries}
        self._secret = secrets.token_bytes(32)  # signs tokens that this process has given; others know nothing of them
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    @classmethod
    def read(cls, path: Path | None) -> "Keys":
        """The keys of a file; without one everybody may do everything.

        Raises:
            SettingsInvalid: with every problem of the file.
        """
        return cls(None if path is None else read_entries(path))

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Who sends a request with these headers.

        Raises:
            KeyInvalid.
        """
        if self._callers is None:
            return _ANYONE
        given = _given(headers)
        if given is None:
            raise KeyInvalid("no API key was sent", hint="send it as `Authorization: Bearer KEY` or `x-api-key: KEY`")
        found = self._caller_of_token(given) if given.count(b".") == 2 else self._caller_of_key(given)
        if found is None:
            raise KeyInvalid("the API key is not known here", hint="`snapjudge keys add NAME` makes one; the server reads its file when it starts")
        return found

    def token(self, key: bytes) -> str:
        """A token that stands for a key for an hour, as clients want it that log in: a JSON Web Token (RFC 7519, HS256).

        Raises:
            KeyInvalid: the key is not known.
        """
        digest = hashlib.sha256(key).hexdigest() if self._callers is not None else ""
        if self._callers is not None and self._caller_of_key(key) is None:
            raise KeyInvalid("the API key is not known here", hint="`snapjudge keys add NAME` makes one; the server reads its file when it starts")
        head, body = _packed({"alg": "HS256", "typ": "JWT"}), _packed({"sub": digest, "exp": int(time.time()) + TOKEN_SECONDS})
        return b".".join((head, body, _encoded(self._signature(head + b"." + body)))).decode()

    def _caller_of_key(self, key: bytes) -> Caller | None:
        digest = hashlib.sha256(key).digest()
        found: Caller | None = None
        for known, caller in (self._callers or {}).items():  # all of them, each in the same time
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def _caller_of_token(self, token: bytes) -> Caller | None:
        signed, _, signature = token.rpartition(b".")
        if not hmac.compare_digest(_encoded(self._signature(signed)), signature):
            return None
        claims = json.loads(base64.urlsafe_b64decode(signed.partition(b".")[2] + b"=="))
        return (self._callers or {}).get(bytes.fromhex(claims["sub"])) if claims["exp"] > time.time() else None

    def _signature(self, signed: bytes) -> bytes:
        return hmac.new(self._secret, signed, hashlib.sha256).digest()

    def count(self, caller: Caller) -> None:
        """Count a request of a caller whose rate is limited; see `Caller.check_rate`."""
        assert caller.rate is not None
        if not self._limiter.hit(caller.rate, caller.name):
            reset, _ = self._limiter.get_window_stats(caller.rate, caller.name)
            wait = max(0.001, reset - time.time())
            raise RateLimited(f"the key {caller.name} may send {caller.rate}", hint=f"try again in {wait:.3f} s", retry_after=wait)


def new_entry(name: str, *, judges: Sequence[str] = (ANY,), may: Sequence[Deed] = ("judge", "observe"), rate: str = "") -> tuple[str, KeyEntry]:
    """A new key, which is told once, and its entry.

    Raises:
        OptionInvalid: a name, deed or rate that cannot be.
    """
    key = _PREFIX + _encoded(secrets.token_bytes(32)).decode()
    try:
        return key, KeyEntry(name=name, sha256=hashlib.sha256(key.encode()).hexdigest(), judges=tuple(judges), may=tuple(may), rate=rate)
    except ValidationError as error:
        first = error.errors()[0]
        raise OptionInvalid(
            f"{first['loc'][0]}: {first['msg']}", hint="a name of letters and digits, a rate such as 100/second", received=first["input"]
        ) from error


def read_entries(path: Path) -> list[KeyEntry]:
    """The entries of a file.

    Raises:
        SettingsInvalid: with every problem of the file.
    """
    try:
        rows = yaml.safe_load(path.read_text(encoding="utf-8")) or []
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsInvalid(path.name, [Problem("(file)", str(error).splitlines()[0], "a YAML list of keys")], hint=_HINT) from error
    entries: list[KeyEntry] = []
    problems: list[Problem] = []
    for number, row in enumerate(rows if isinstance(rows, list) else [rows]):
        try:
            entries.append(KeyEntry.model_validate(row))
        except ValidationError as error:
            problems += [Problem(".".join(map(str, (number, *one["loc"]))), repr(one["input"])[:80], one["msg"]) for one in error.errors()]
    if twice := sorted({one.name for one in entries if [other.name for other in entries].count(one.name) > 1}):
        problems.append(Problem("name", ", ".join(twice), "each name once"))
    if problems:
        raise SettingsInvalid(path.name, problems, hint=_HINT)
    return entries


def write_entries(path: Path, entries: Sequence[KeyEntry]) -> None:
    """Write the file anew, for its owner's eyes."""
    write_file(path, yaml.safe_dump([one.model_dump(mode="json") for one in entries], sort_keys=False))
    path.chmod(0o600)


def _packed(value: object) -> bytes:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(value: bytes) -> bytes:
    return base64.urlsafe_b64encode(value).rstrip(b"=")


def _given(headers: Mapping[bytes, bytes]) -> bytes | None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and token.strip():
        return token.strip()
    return headers.get(b"x-api-key") or None


_ANYONE = Caller()
_HINT = "`snapjudge keys add NAME` writes the file"
