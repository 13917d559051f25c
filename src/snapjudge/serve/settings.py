"""Everything that can be set about a server, with defaults that are safe on a machine of one's own."""

from pathlib import Path

from pydantic import AnyHttpUrl, Field, model_validator

from snapjudge.core.frozen import Frozen
from snapjudge.core.policy import Policy
from snapjudge.live.escalation import EscalationTerms
from snapjudge.live.host import HostTerms

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Bounds(Frozen):
    """What a caller may cost."""

    body_bytes: int = Field(default=2 << 20, ge=1024, description="of one request; a longer one is refused unread")
    body_depth: int = Field(default=64, ge=4, description="of nested JSON")
    header_bytes: int = Field(default=32 << 10, ge=1024, description="of one request's headers together")
    connections: int = Field(default=4096, ge=1, description="open at once; the next is closed")
    in_flight: int = Field(default=2048, ge=1, description="requests answered at once; the next is refused with 503")
    header_seconds: float = Field(default=10.0, gt=0, description="within which a request's headers have to be there")
    body_seconds: float = Field(default=20.0, gt=0, description="within which its body has to be there")
    write_seconds: float = Field(default=20.0, gt=0, description="within which a client has to take what it is sent")
    idle_seconds: int = Field(default=30, ge=1, description="that a connection may lie idle between requests")
    waiting: int = Field(default=200_000, ge=1, description="observations that wait to be judged; the next are refused with 429")
    file_bytes: int = Field(default=1 << 30, ge=1024, description="of a stored file")
    reviews: int = Field(default=10_000, ge=1, description="that wait for people; more are not put before them, and counted")
    files: int = Field(default=200, ge=1, description="stored, of each key")
    batches: int = Field(default=100, ge=1, description="not ended, and schedules, of each key")
    sessions: int = Field(default=1024, ge=1, description="open at once, of each key")
    session_seconds: float = Field(default=900.0, gt=0, description="after which a session nothing is appended to is forgotten")


class Upstream(Frozen):
    """The OpenAI-compatible endpoint that a proxy stands in front of."""

    url: AnyHttpUrl = Field(description="as clients know it, such as https://api.openai.com/v1")
    policy: Policy = Field(description="looks at what is asked, at what tools gave, at what is answered and at tool calls, by its stages")
    key_env: str = Field(default="", description="environment variable with the endpoint's key; without, callers' own `Authorization` goes on")
    passed: tuple[str, ...] = Field(default=("/models",), description="paths under the URL that go through as they are")
    seconds: float = Field(default=600.0, gt=0, description="without a byte from it after which it has failed")


class ServeSettings(Frozen):
    """A server. Bound to loopback unless told otherwise; then it wants keys."""

    host: str = "127.0.0.1"
    port: int = Field(default=8321, ge=0, le=65535, description="0: any that is free")
    judges: tuple[str, ...] = Field(default=(), description="loaded at the start, by name or folder")
    aliases: dict[str, str] = Field(default_factory=dict)
    engine: HostTerms = HostTerms()
    deadline_ms: float = Field(default=10_000.0, gt=0, description="of a request that states none; what cannot be answered by then is refused at once")
    keys: Path | None = Field(default=None, description="file of API keys; without one everybody may do everything")
    policies: Path | None = Field(default=None, description="folder of guard policies, one NAME.yaml each; those put at run time are kept there")
    data: Path = Field(default=Path("snapjudge-data"), description="folder of observations, files and batches; made when the first comes")
    inbox: Path | None = Field(default=None, description="folder that batches may read files from")
    keep_texts: bool = Field(default=False, description="keep the texts of observations once they are judged")
    keep_days: float = Field(default=30.0, gt=0, description="for which judged observations are kept")
    escalation: EscalationTerms | None = Field(default=None, description="language models that routes and escalations lead to")
    upstream: Upstream | None = Field(default=None, description="chat completions are asked of it, and guarded, instead of answered by judges")
    open_to_all: bool = Field(default=False, description="serve an address other than loopback without keys")
    certificate: Path | None = Field(default=None, description="TLS certificate chain (PEM)")
    private_key: Path | None = Field(default=None, description="its private key (PEM)")
    bounds: Bounds = Bounds()
    drain_seconds: float = Field(default=30.0, ge=0, description="that running requests have to finish once the server is told to stop")
    notice_seconds: float = Field(default=0.0, ge=0, description="for which /readyz says 503 before a stopping server takes no more connections")
    log_text: bool = Field(default=False, description="write the texts of requests to the log")
    log_json: bool = Field(default=True, description="log lines as JSON")

    @model_validator(mode="after")
    def _safe(self) -> "ServeSettings":
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("TLS needs both a certificate and its private key")
        if self.upstream is not None and self.keys is not None and not self.upstream.key_env:
            raise ValueError("a proxy with API keys of its own needs the endpoint's key: name its environment variable")
        if self.host not in LOOPBACK and self.keys is None and not self.open_to_all:
            raise ValueError(f"{self.host} can be reached from outside: give API keys (`snapjudge keys add NAME`), or say that it is open to all")
        return self
