"""`snapjudge keys`: who may ask a server what, and how often."""

from pathlib import Path
from typing import Annotated

import typer

from snapjudge.cli.console import AsJson, output, print_json, shown_errors

app = typer.Typer(help="API keys of a server: each with what it may do, which judges it may ask, and how often.", no_args_is_help=True)
File = Annotated[Path, typer.Option("--file", help="the file of keys; it holds their hashes only")]
DEFAULT = Path("keys.yaml")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="who it is for; stands in logs and metrics")],
    file: File = DEFAULT,
    judge: Annotated[list[str] | None, typer.Option(help="a judge it may ask; may be repeated; all unless said")] = None,
    may: Annotated[list[str] | None, typer.Option(help="judge, observe or manage; may be repeated; judge and observe unless said")] = None,
    rate: Annotated[str, typer.Option(help="requests, such as 100/second or 5000/minute")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown once; the file keeps its hash. A running server reads the file when it starts."""
    with shown_errors(as_json=as_json):
        from snapjudge.errors import OptionInvalid
        from snapjudge.serve.keys import DEEDS, new_entry, read_entries, write_entries

        known = read_entries(file) if file.exists() else []
        if any(one.name == name for one in known):
            raise OptionInvalid(f"{file} has a key {name} already", hint=f"`snapjudge keys remove {name}` first, or choose another name", received=name)
        deeds = [deed for deed in DEEDS if deed in (may or ("judge", "observe"))]
        if odd := [one for one in may or () if one not in DEEDS]:
            raise OptionInvalid(f"--may {odd[0]}", hint=f"one of {', '.join(DEEDS)}", received=odd[0])
        key, entry = new_entry(name, judges=judge or ("*",), may=deeds, rate=rate)
        write_entries(file, [*known, entry])
        if as_json:
            print_json({"name": name, "key": key})
        else:
            output.print(f"{key}\nshown this once; {file} keeps its hash. `snapjudge serve --keys {file}` asks for it.", highlight=False, markup=False)


@app.command(name="list")
def list_keys(file: File = DEFAULT, as_json: AsJson = False) -> None:
    """The keys of a file."""
    with shown_errors(as_json=as_json):
        from snapjudge.serve.keys import read_entries

        entries = read_entries(file)
        if as_json:
            print_json([{**one.model_dump(mode="json"), "sha256": one.sha256[:12]} for one in entries])
            return
        for one in entries:
            output.print(f"{one.name}  may {', '.join(one.may)}; judges {', '.join(one.judges)}; {one.rate or 'no rate'}", markup=False)


@app.command()
def remove(name: Annotated[str, typer.Argument()], file: File = DEFAULT, as_json: AsJson = False) -> None:
    """Take a key away; a running server refuses it from its next start on."""
    with shown_errors(as_json=as_json):
        from snapjudge.errors import OptionInvalid
        from snapjudge.serve.keys import read_entries, write_entries

        known = read_entries(file)
        left = [one for one in known if one.name != name]
        if len(left) == len(known):
            raise OptionInvalid(f"{file} has no key {name}", hint=f"`snapjudge keys list --file {file}` shows them", received=name)
        write_entries(file, left)
        if as_json:
            print_json({"removed": name})
