"""Every error a caller can cause, with a stable code, an HTTP status, the value received and the next step.

Knows nothing of where it is shown: the command line prints `message` and `hint`, a server sends the same fields.

    SnapjudgeError
    ├── MetricInvalid              metric_invalid              a metric file with problems (all of them, at once)
    ├── LabelNotOneToken           label_not_one_token         an answer word that is several tokens
    ├── DataInvalid                data_invalid                lines of a data file with problems (all of them, at once)
    │   ├── TooFewExamples         too_few_examples
    │   └── DataLeak               data_leak                   the same text in train and test
    ├── TestSetChanged             test_set_changed            a frozen test whose file or rows have changed
    ├── CriteriaChanged            criteria_changed            a policy text that changed while its version stayed
    ├── InputInvalid               input_invalid               one request's inputs cannot be judged
    │   └── InputUnreadable        input_unreadable            a field is there and cannot be read
    ├── BackboneNotFound           backbone_not_found
    ├── BackboneUnsupported        backbone_unsupported        a model that cannot be read once and judged many times
    ├── BackboneMismatch           backbone_mismatch           an adapter of another backbone
    ├── BundleNotFound             bundle_not_found
    ├── BundleInvalid              bundle_invalid              a digest that does not match, a missing or unknown file
    │   └── PickleRefused          pickle_refused
    ├── RuleInvalid                rule_invalid                a threshold rule or gate that cannot be parsed
    ├── TrainingFailed             training_failed             loss not finite at every learning rate tried
    ├── RunConflict                run_conflict                an interrupted or finished run is in the way
    ├── Interrupted                interrupted                 Ctrl-C; the state is on disk
    ├── StorageFailed              storage_failed              disk full, no permission, file too large
    ├── AdapterInvalid             adapter_invalid             an adapter whose layout does not fit
    ├── AdapterUnknown             adapter_unknown             no adapter of that name is loaded
    ├── JudgeUnknown               judge_unknown               no judge of that name answers live traffic
    ├── ContentTooLong             content_too_long            more tokens than the backbone or the content cache holds
    ├── EngineBusy                 engine_busy                 a full queue, or a deadline that would be missed; says when to come again
    │   ├── RateLimited            rate_limited                a key that has asked as often as it may
    │   ├── Draining               draining                    the server is stopping
    │   ├── DeadlineMissed         deadline_missed             it was let in and its turn came too late
    │   └── EngineDown             engine_down                 no engine runs just now; one is being started
    ├── EngineFailed               engine_failed               the device failed on this request
    │   └── OutOfMemory            out_of_memory               not even alone does it fit
    ├── EngineClosed               engine_closed
    ├── RequestInvalid             request_invalid             the body of a request that cannot be read (all its problems, at once)
    ├── RequestTooLarge            request_too_large           a body or headers past what the server takes
    ├── KeyInvalid                 key_invalid                 no API key, or an unknown one
    ├── KeyForbidden               key_forbidden               a key that may not do this
    ├── SessionUnknown             session_unknown             no such session, or one of another key, or one that was forgotten
    ├── NotFound                   not_found                   no such path, or no such thing under it
    ├── MethodInvalid              method_invalid              a path that takes other methods
    ├── PolicyInvalid              policy_invalid              a guard policy with problems (all of them, at once)
    ├── PolicyUnknown              policy_unknown              no policy of that name is loaded
    ├── SettingsInvalid            settings_invalid            a file of settings or keys with problems (all of them, at once)
    ├── Blocked                    blocked                     a guard's policy lets nothing through
    ├── ServerUnreachable          server_unreachable          no snapjudge server answers there
    ├── UpstreamFailed             upstream_failed             the endpoint behind a proxy fails
    ├── ServeFailed                serve_failed                a server that cannot bind its address, or read its TLS files
    ├── EndpointInvalid            endpoint_invalid            a file of endpoints with problems, or a key that is not set
    ├── EndpointFailed             endpoint_failed             an endpoint that is down, or refuses key, model or request
    ├── Unanswered                 unanswered                  no language model answered an escalation
    ├── BudgetSpent                budget_spent                the stated budget does not cover what is left
    ├── ExtraMissing               extra_missing               a feature whose packages are not installed
    └── OptionInvalid              option_invalid              a setting out of its range
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self


class SnapjudgeError(Exception):
    """Base of all errors a caller can cause.

    `message` says what is wrong with what was received, `hint` the next step; `code` is stable across versions and
    `status` is the HTTP status a server answers with.
    """

    code = "error"
    status = 400

    def __init__(self, message: str, *, hint: str = "", received: object = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.received = received

    def as_dict(self) -> dict[str, object]:
        """The error body every surface shows: code, message, hint and what was received."""
        body: dict[str, object] = {"code": self.code, "message": self.message, "hint": self.hint}
        if self.received is not None:
            body["received"] = self.received
        return body

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "SnapjudgeError":
        """The error whose `as_dict` a server or another process has sent; one of the base class where its code is not known here."""
        kind = next((one for one in _below(SnapjudgeError) if one.code == body.get("code")), SnapjudgeError)
        error = kind.__new__(kind)
        SnapjudgeError.__init__(error, str(body.get("message", "")), hint=str(body.get("hint", "")), received=body.get("received"))
        error._restore(body)
        return error

    def _restore(self, body: Mapping[str, Any]) -> None:
        """Take what a kind of error adds to its body."""
        if type(self) is SnapjudgeError:
            self.code = str(body.get("code", self.code))


def _below(kind: type[SnapjudgeError]) -> Iterator[type[SnapjudgeError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _below(one)


@dataclass(frozen=True)
class Problem:
    """One finding in a file: where it is, what was found there, what would be right."""

    path: str
    found: str
    expected: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.path if self.line is None else f"line {self.line}, {self.path}"
        return f"{where}: found {self.found}; expected {self.expected}"


class _WithProblems(SnapjudgeError):
    """An error that lists every problem of one source at once."""

    def __init__(self, source: str, problems: Sequence[Problem], *, hint: str = "", more: int = 0) -> None:
        count = len(problems) + more
        lines = [f"{source}: {count} problem{'s' if count != 1 else ''}"]
        lines += [f"  {problem}" for problem in problems]
        if more:
            lines.append(f"  ... and {more} more")
        super().__init__("\n".join(lines), hint=hint)
        self.source = source
        self.problems = tuple(problems)

    @classmethod
    def one(cls, source: str, path: str, found: str, expected: str, *, hint: str = "") -> Self:
        """An error of a single problem."""
        return cls(source, [Problem(path, found, expected)], hint=hint)

    def as_dict(self) -> dict[str, object]:
        """The error body with its problems one by one."""
        return {**super().as_dict(), "problems": [vars(problem) for problem in self.problems]}

    def _restore(self, body: Mapping[str, Any]) -> None:
        self.source = self.message.partition(":")[0]
        self.problems = tuple(Problem(**problem) for problem in body.get("problems", ()))


class MetricInvalid(_WithProblems):
    """A metric file with problems, all of them listed."""

    code = "metric_invalid"
    status = 422


class LabelNotOneToken(SnapjudgeError):
    """An answer word that is several tokens, or two words that are one token."""

    code = "label_not_one_token"
    status = 422


class DataInvalid(_WithProblems):
    """Lines of a data file with problems, listed with file, line and field."""

    code = "data_invalid"
    status = 422


class TooFewExamples(DataInvalid):
    """Fewer examples than a judge can be trained or proved on."""

    code = "too_few_examples"


class DataLeak(DataInvalid):
    """The same text or group in training and test data."""

    code = "data_leak"


class TestSetChanged(SnapjudgeError):
    """A frozen test whose file or rows have changed."""

    __test__ = False  # no test case, whatever pytest thinks of its name
    code = "test_set_changed"
    status = 409


class CriteriaChanged(SnapjudgeError):
    """A policy text that changed while its version stayed."""

    code = "criteria_changed"
    status = 409


class InputInvalid(SnapjudgeError):
    """One request's inputs cannot be judged."""

    code = "input_invalid"
    status = 422


class InputUnreadable(InputInvalid):
    """A field that is there holds something that cannot be judged; a guard does not take it for nothing to read."""

    code = "input_unreadable"


class BackboneNotFound(SnapjudgeError):
    """No model under that name or path."""

    code = "backbone_not_found"
    status = 404


class BackboneUnsupported(SnapjudgeError):
    """A model that cannot be read once and judged many times."""

    code = "backbone_unsupported"
    status = 422


class BackboneMismatch(SnapjudgeError):
    """An adapter of another backbone."""

    code = "backbone_mismatch"
    status = 409


class BundleNotFound(SnapjudgeError):
    """No judge under that name or path."""

    code = "bundle_not_found"
    status = 404


class BundleInvalid(SnapjudgeError):
    """A bundle whose files or digests do not match its manifest."""

    code = "bundle_invalid"
    status = 422


class PickleRefused(BundleInvalid):
    """A pickle where safetensors belong; it is never opened."""

    code = "pickle_refused"


class RuleInvalid(SnapjudgeError):
    """A threshold rule or gate that cannot be parsed."""

    code = "rule_invalid"
    status = 422


class TrainingFailed(SnapjudgeError):
    """No learning rate gave a finite loss."""

    code = "training_failed"
    status = 422


class RunConflict(SnapjudgeError):
    """An interrupted, finished or running run is in the way."""

    code = "run_conflict"
    status = 409


class Interrupted(SnapjudgeError):
    """Stopped on request; the state is on disk."""

    code = "interrupted"
    status = 499


class StorageFailed(SnapjudgeError):
    """Disk full, no permission, file too large or unreadable."""

    code = "storage_failed"
    status = 507


class AdapterInvalid(SnapjudgeError):
    """An adapter whose layout does not fit the backbone."""

    code = "adapter_invalid"
    status = 422


class AdapterUnknown(SnapjudgeError):
    """No adapter of that name is loaded."""

    code = "adapter_unknown"
    status = 404


class JudgeUnknown(SnapjudgeError):
    """No judge of that name, version or alias answers live traffic."""

    code = "judge_unknown"
    status = 404


class ContentTooLong(SnapjudgeError):
    """More tokens than the backbone reads, or than the content cache holds."""

    code = "content_too_long"
    status = 413


class EngineBusy(SnapjudgeError):
    """A full queue, or a deadline that would be missed; `retry_after` says in how many seconds it would not (None: never)."""

    code = "engine_busy"
    status = 429

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after

    def as_dict(self) -> dict[str, object]:
        """The error body with the seconds to wait."""
        return {**super().as_dict(), "retry_after": self.retry_after}

    def _restore(self, body: Mapping[str, Any]) -> None:
        self.retry_after = body.get("retry_after")


class DeadlineMissed(EngineBusy):
    """A request was let in, and its turn came too late."""

    code = "deadline_missed"
    status = 504


class RateLimited(EngineBusy):
    """A key that has asked as often as it may; says when it may again."""

    code = "rate_limited"


class Draining(EngineBusy):
    """The server is stopping, or answers as much as it can; another one, or the same one a little later, takes the request."""

    code = "draining"
    status = 503


class EngineDown(EngineBusy):
    """No engine runs just now; one is being started."""

    code = "engine_down"
    status = 503


class EngineFailed(SnapjudgeError):
    """The device failed on this request."""

    code = "engine_failed"
    status = 500


class OutOfMemory(EngineFailed):
    """A request that does not fit in memory even alone."""

    code = "out_of_memory"
    status = 507


class EngineClosed(SnapjudgeError):
    """The engine is closed."""

    code = "engine_closed"
    status = 503


class RequestInvalid(_WithProblems):
    """The body of a request that cannot be read, all its problems listed."""

    code = "request_invalid"
    status = 422


class RequestTooLarge(SnapjudgeError):
    """A body, or headers, past what the server takes."""

    code = "request_too_large"
    status = 413


class KeyInvalid(SnapjudgeError):
    """No API key, or one that is not known."""

    code = "key_invalid"
    status = 401


class KeyForbidden(SnapjudgeError):
    """A key that may not do this."""

    code = "key_forbidden"
    status = 403


class SessionUnknown(SnapjudgeError):
    """No such session: it never was, was forgotten, or is another key's."""

    code = "session_unknown"
    status = 404


class NotFound(SnapjudgeError):
    """No such path, or no such thing under it."""

    code = "not_found"
    status = 404


class MethodInvalid(SnapjudgeError):
    """A path that takes other methods."""

    code = "method_invalid"
    status = 405


class PolicyInvalid(_WithProblems):
    """A guard policy with problems, all of them listed."""

    code = "policy_invalid"
    status = 422


class PolicyUnknown(SnapjudgeError):
    """No policy of that name is loaded."""

    code = "policy_unknown"
    status = 404


class SettingsInvalid(_WithProblems):
    """A file of settings or keys with problems."""

    code = "settings_invalid"
    status = 422


class Blocked(SnapjudgeError):
    """A guard's policy lets nothing through; `response` is all that it says."""

    code = "blocked"
    status = 403

    def __init__(self, message: str, *, hint: str = "", response: Any = None) -> None:
        super().__init__(message, hint=hint)
        self.response = response

    def _restore(self, _: Mapping[str, Any]) -> None:
        self.response = None


class ServerUnreachable(SnapjudgeError):
    """No snapjudge server answers there; `begun` says whether it may have got the call."""

    code = "server_unreachable"
    status = 502
    begun = False


class UpstreamFailed(SnapjudgeError):
    """The endpoint behind a proxy cannot be reached, or does not speak as it should."""

    code = "upstream_failed"
    status = 502


class ServeFailed(SnapjudgeError):
    """A server that cannot start: its address is taken, its TLS files cannot be read."""

    code = "serve_failed"
    status = 500


class EndpointInvalid(_WithProblems):
    """A file of endpoints with problems, or a key that is not set."""

    code = "endpoint_invalid"
    status = 422


class EndpointFailed(SnapjudgeError):
    """An endpoint that is down, or that refuses the key, the model or the request."""

    code = "endpoint_failed"
    status = 502


class Unanswered(SnapjudgeError):
    """No language model answered: late, over the budget, refused, or nothing that can be read."""

    code = "unanswered"
    status = 503


class BudgetSpent(SnapjudgeError):
    """The stated budget does not cover what is left; what was answered is kept."""

    code = "budget_spent"
    status = 402


class ExtraMissing(SnapjudgeError):
    """A feature whose packages are not installed."""

    code = "extra_missing"
    status = 501


class OptionInvalid(SnapjudgeError):
    """A setting out of its range."""

    code = "option_invalid"
    status = 422
