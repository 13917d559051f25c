"""`snapjudge serve`: judges in front of live traffic."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import PrecisionOption, errors, output, print_json, shown_errors
from snapjudge.core.precision import Precision


def serve(
    judges: Annotated[list[str] | None, typer.Argument(help="judges to load, by name (tone, tone@3) or folder; without any, the built-in ones")] = None,
    host: Annotated[str, typer.Option(help="address to bind; anything but loopback wants --keys, or --open")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8321,
    backbone: Annotated[str, typer.Option(help="`mini`, a model's folder or a hub name; open questions are put to it")] = "mini",
    precision: PrecisionOption = Precision.float32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1")] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="engine processes; by default one for each core, or one for an accelerator")] = None,
    alias: Annotated[list[str] | None, typer.Option(help="NAME=JUDGE: another name for a judge; may be repeated")] = None,
    policies: Annotated[Path | None, typer.Option(help="folder of guard policies, one NAME.yaml each")] = None,
    keys: Annotated[Path | None, typer.Option(help="file of API keys (`snapjudge keys add`)")] = None,
    open_to_all: Annotated[bool, typer.Option("--open", help="serve an address other than loopback without keys")] = False,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate chain (PEM)")] = None,
    private_key: Annotated[Path | None, typer.Option(help="its private key (PEM)")] = None,
    deadline: Annotated[float, typer.Option(min=0.001, help="seconds, of requests that state none")] = 10.0,
    body_mb: Annotated[float, typer.Option(min=0.001, help="megabytes a request may have")] = 2.0,
    drain: Annotated[float, typer.Option(min=0, help="seconds that running requests have once the server is told to stop")] = 30.0,
    notice: Annotated[float, typer.Option(min=0, help="seconds for which /readyz says 503 before a stopping server takes nothing more")] = 0.0,
    log_text: Annotated[bool, typer.Option("--log-text", help="write the texts of requests to the log")] = False,
    log_json: Annotated[bool | None, typer.Option("--log-json/--log-plain", help="JSON lines, or text for people; by default JSON where nobody looks")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="tell the address as JSON on standard output")] = False,
) -> None:
    """Put judges in front of live traffic; POST /v1/judge asks them, /docs shows all paths. Ctrl-C or SIGTERM stops without losing what was taken in.

    `snapjudge serve toxicity prompt_injection` then `curl 127.0.0.1:8321/v1/judge -d '{"judges": ["toxicity"], "inputs": {"output": "..."}}'`
    """
    with shown_errors(as_json=as_json):
        from pydantic import ValidationError

        from snapjudge.errors import OptionInvalid
        from snapjudge.flows.listing import list_judges
        from snapjudge.live.host import HostTerms
        from snapjudge.serve import logs
        from snapjudge.serve.run import serve as run
        from snapjudge.serve.settings import Bounds, ServeSettings

        ours = tuple(one.name for one in list_judges() if one.built_in and one.bundle is not None) if backbone == "mini" else ()
        pairs = [one.partition("=") for one in alias or ()]
        if odd := [name for name, sign, judge in pairs if not (name and sign and judge)]:
            raise OptionInvalid(f"--alias {odd[0]!r} cannot be read", hint="NAME=JUDGE, such as prod=tone@3", received=odd[0])
        try:
            settings = ServeSettings(
                host=host,
                port=port,
                judges=tuple(judges or ours),
                aliases={name: judge for name, _, judge in pairs},
                engine=HostTerms(backbone=backbone, precision=precision, device=device, processes=processes),
                deadline_ms=deadline * 1000,
                policies=policies,
                keys=keys,
                open_to_all=open_to_all,
                certificate=certificate,
                private_key=private_key,
                bounds=Bounds(body_bytes=round(body_mb * (1 << 20))),
                drain_seconds=drain,
                notice_seconds=notice,
                log_text=log_text,
                log_json=not errors.is_terminal if log_json is None else log_json,
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise OptionInvalid(f"{where}{': ' if where else ''}{str(first['msg']).removeprefix('Value error, ')}", hint="snapjudge serve --help") from error
        logs.set_up(as_json=settings.log_json)

        def announce(address: str) -> None:
            if as_json:
                print_json({"address": address, "judges": list(settings.judges)})
            else:
                output.print(f"serving {len(settings.judges)} judges at [bold]{address}[/bold]  ({address}/docs; Ctrl-C stops)", highlight=False)

        run(settings, announce)
