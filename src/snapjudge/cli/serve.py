"""`snapjudge serve` and `snapjudge proxy`: judges in front of live traffic."""

from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from snapjudge.cli.console import PrecisionOption, errors, output, print_json, shown_errors
from snapjudge.core.precision import Precision

JudgesArgument = Annotated[list[str] | None, typer.Argument(help="judges to load, by name (tone, tone@3) or folder; without any, the built-in ones")]
HostOption = Annotated[str, typer.Option(help="address to bind; anything but loopback wants --keys, or --open")]
PortOption = Annotated[int, typer.Option(help="0: any that is free")]
BackboneOption = Annotated[str, typer.Option(help="`mini`, a model's folder or a hub name; open questions are put to it")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1")]
ProcessesOption = Annotated[int | None, typer.Option(min=1, help="engine processes; by default one for each core, or one for an accelerator")]
AliasOption = Annotated[list[str] | None, typer.Option(help="NAME=JUDGE: another name for a judge; may be repeated")]
EscalationOption = Annotated[Path | None, typer.Option(help="file of language models and their budgets, for routes and escalations")]
KeysOption = Annotated[Path | None, typer.Option(help="file of API keys (`snapjudge keys add`)")]
OpenOption = Annotated[bool, typer.Option("--open", help="serve an address other than loopback without keys")]
CertificateOption = Annotated[Path | None, typer.Option(help="TLS certificate chain (PEM)")]
PrivateKeyOption = Annotated[Path | None, typer.Option(help="its private key (PEM)")]
BodyOption = Annotated[float, typer.Option(min=0.001, help="megabytes a request may have")]
TokensOption = Annotated[int, typer.Option("--max-tokens", min=1, help="tokens one content may have; a longer one is an abstention")]
DrainOption = Annotated[float, typer.Option(min=0, help="seconds that running requests have once the server is told to stop")]
NoticeOption = Annotated[float, typer.Option(min=0, help="seconds for which /readyz says 503 before a stopping server takes nothing more")]
LogTextOption = Annotated[bool, typer.Option("--log-text", help="write the texts of requests to the log")]
TracesOption = Annotated[str, typer.Option(help="none, otlp (a collector: OTEL_EXPORTER_OTLP_ENDPOINT) or console")]
LogJsonOption = Annotated[bool | None, typer.Option("--log-json/--log-plain", help="JSON lines, or text for people; by default JSON where nobody looks")]
JsonOption = Annotated[bool, typer.Option("--json", help="tell the address as JSON on standard output")]


def serve(
    judges: JudgesArgument = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8321,
    backbone: BackboneOption = "mini",
    precision: PrecisionOption = Precision.float32,
    device: DeviceOption = None,
    processes: ProcessesOption = None,
    alias: AliasOption = None,
    policies: Annotated[Path | None, typer.Option(help="folder of guard policies, one NAME.yaml each")] = None,
    data: Annotated[Path, typer.Option(help="folder of observations, files and batches; made when the first comes")] = Path("snapjudge-data"),
    inbox: Annotated[Path | None, typer.Option(help="folder that batches may read files from")] = None,
    keep_texts: Annotated[bool, typer.Option("--keep-texts", help="keep the texts of observations once they are judged")] = False,
    keep_days: Annotated[float, typer.Option(min=0.01, help="for which judged observations are kept")] = 30.0,
    escalation: EscalationOption = None,
    keys: KeysOption = None,
    open_to_all: OpenOption = False,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    deadline: Annotated[float, typer.Option(min=0.001, help="seconds, of requests that state none")] = 10.0,
    body_mb: BodyOption = 2.0,
    max_tokens: TokensOption = 131_072,
    drain: DrainOption = 30.0,
    notice: NoticeOption = 0.0,
    log_text: LogTextOption = False,
    log_json: LogJsonOption = None,
    traces: TracesOption = "none",
    as_json: JsonOption = False,
) -> None:
    """Put judges in front of live traffic; POST /v1/judge asks them, /docs shows all paths. Ctrl-C or SIGTERM stops without losing what was taken in.

    `snapjudge serve toxicity prompt_injection` then `curl 127.0.0.1:8321/v1/judge -d '{"judges": ["toxicity"], "inputs": {"output": "..."}}'`
    """
    with shown_errors(as_json=as_json):
        from snapjudge.flows.listing import list_judges

        ours = tuple(one.name for one in list_judges() if one.built_in and one.bundle is not None) if backbone == "mini" else ()
        _run(
            as_json=as_json,
            log_json=log_json,
            traces=traces,
            judges=tuple(judges or ours),
            aliases=_aliases(alias),
            engine={"backbone": backbone, "precision": precision, "device": device, "processes": processes, "longest": max_tokens},
            deadline_ms=deadline * 1000,
            host=host,
            port=port,
            policies=policies,
            data=data,
            inbox=inbox,
            keep_texts=keep_texts,
            keep_days=keep_days,
            escalation=_escalation(escalation),
            keys=keys,
            open_to_all=open_to_all,
            certificate=certificate,
            private_key=private_key,
            bounds={"body_bytes": round(body_mb * (1 << 20))},
            drain_seconds=drain,
            notice_seconds=notice,
            log_text=log_text,
        )


def proxy(
    policy: Annotated[Path, typer.Argument(help="the guard policy's file; its stages look at what is asked, at what tools gave, at answers and tool calls")],
    upstream: Annotated[str, typer.Option(help="the OpenAI-compatible endpoint, such as https://api.openai.com/v1")],
    key_env: Annotated[str, typer.Option(help="environment variable with the endpoint's key; without, callers' own Authorization goes on")] = "",
    passed: Annotated[list[str] | None, typer.Option("--pass", help="path of it that goes through unguarded; may be repeated; /models unless said")] = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = 8322,
    backbone: BackboneOption = "mini",
    precision: PrecisionOption = Precision.float32,
    device: DeviceOption = None,
    processes: ProcessesOption = None,
    alias: AliasOption = None,
    escalation: EscalationOption = None,
    keys: KeysOption = None,
    open_to_all: OpenOption = False,
    certificate: CertificateOption = None,
    private_key: PrivateKeyOption = None,
    body_mb: BodyOption = 20.0,
    max_tokens: TokensOption = 131_072,
    drain: DrainOption = 30.0,
    notice: NoticeOption = 0.0,
    log_text: LogTextOption = False,
    log_json: LogJsonOption = None,
    traces: TracesOption = "none",
    as_json: JsonOption = False,
) -> None:
    """Guard an OpenAI-compatible chat endpoint: point clients at this address instead. Streams are looked at as they are written, tool calls once whole.

    `snapjudge proxy policies/support_bot.yaml --upstream https://api.openai.com/v1` then `OpenAI(base_url="http://127.0.0.1:8322/v1")`
    """
    with shown_errors(as_json=as_json):
        from snapjudge.guard.policies import state_of
        from snapjudge.guard.policy_file import read_policy

        read = read_policy(policy)
        aliases = _aliases(alias)
        _run(
            as_json=as_json,
            log_json=log_json,
            traces=traces,
            judges=tuple(dict.fromkeys(aliases.get(name, name) for name in state_of(read).judges)),
            aliases=aliases,
            engine={"backbone": backbone, "precision": precision, "device": device, "processes": processes, "longest": max_tokens},
            upstream={"url": upstream, "policy": read, "key_env": key_env, "passed": tuple(passed or ("/models",))},
            host=host,
            port=port,
            escalation=_escalation(escalation),
            keys=keys,
            open_to_all=open_to_all,
            certificate=certificate,
            private_key=private_key,
            bounds={"body_bytes": round(body_mb * (1 << 20))},
            drain_seconds=drain,
            notice_seconds=notice,
            log_text=log_text,
        )


def _run(*, as_json: bool, log_json: bool | None, traces: str, **settings: Any) -> None:
    """Serve with some settings until told to stop.

    Raises:
        OptionInvalid: a setting is out of its range. As `serve.run.serve`.
    """
    from pydantic import ValidationError

    from snapjudge.errors import OptionInvalid
    from snapjudge.serve import logs, tracing
    from snapjudge.serve.run import serve as run
    from snapjudge.serve.settings import ServeSettings

    try:
        own = ServeSettings(log_json=not errors.is_terminal if log_json is None else log_json, **settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise OptionInvalid(
            f"{where}{': ' if where else ''}{str(first['msg']).removeprefix('Value error, ')}", hint="--help tells what each option takes"
        ) from error
    if traces not in get_args(tracing.Traces):
        raise OptionInvalid(f"--traces {traces}", hint=f"one of {', '.join(get_args(tracing.Traces))}", received=traces)
    tracing.set_up(cast(tracing.Traces, traces))
    logs.set_up(as_json=own.log_json)

    def announce(address: str) -> None:
        if as_json:
            print_json({"address": address, "judges": list(own.judges)})
            return
        what = f"{len(own.judges)} judges" if own.upstream is None else f"{own.upstream.url}, guarded by {own.upstream.policy.signature},"
        output.print(f"serving {what} at [bold]{address}[/bold]  ({address}/docs; Ctrl-C stops)", highlight=False)

    run(own, announce)


def _escalation(path: Path | None) -> Any:
    from snapjudge.live.escalation import read_escalation

    return None if path is None else read_escalation(path)


def _aliases(given: list[str] | None) -> dict[str, str]:
    from snapjudge.errors import OptionInvalid

    pairs = [one.partition("=") for one in given or ()]
    if odd := [name for name, sign, judge in pairs if not (name and sign and judge)]:
        raise OptionInvalid(f"--alias {odd[0]!r} cannot be read", hint="NAME=JUDGE, such as prod=tone@3", received=odd[0])
    return {name: judge for name, _, judge in pairs}
