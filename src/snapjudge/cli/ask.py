"""snapjudge ask: one text on the command line, judged by judges or asked open questions."""

from collections import defaultdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snapjudge.cli.console import PrecisionOption, errors, output, print_json, shown_errors
from snapjudge.core.precision import Precision

if TYPE_CHECKING:
    from snapjudge.core.judgement import Judgement
    from snapjudge.core.question import OpenQuestion


def ask(
    text: Annotated[
        str | None, typer.Argument(help="the text: each judge's output field, or its last one; what --question asks about; - reads standard input")
    ] = None,
    judge: Annotated[list[str] | None, typer.Option("--judge", help="judges by folder or name, separated by commas; may be repeated")] = None,
    question: Annotated[list[str] | None, typer.Option("--question", help="an open question in plain words; may be repeated")] = None,
    reworded: Annotated[
        list[str] | None, typer.Option("--reworded", help="the open question in other words, which steadies its answer; may be repeated")
    ] = None,
    options: Annotated[str | None, typer.Option("--options", help="answers of the open question, separated by commas")] = None,
    levels: Annotated[str | None, typer.Option("--levels", help="ordered answers of the open question, lowest first, separated by commas")] = None,
    field: Annotated[list[str] | None, typer.Option("--field", help="FIELD=TEXT for metrics that read several fields; may be repeated")] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="where the judges' backbone lies, if it has moved; or whom to ask open questions")] = None,
    precision: PrecisionOption = Precision.float32,
    as_json: Annotated[bool, typer.Option("--json", help="print the judgements as JSON")] = False,
) -> None:
    """Judge one text. Without --judge and --question all built-in judges that can read it are asked.

    `snapjudge ask "Thanks, that helped!"`, `snapjudge ask --judge tone "..."`, `snapjudge ask --question "Is the user asking for a refund?" "..."`
    """
    with shown_errors(as_json=as_json):
        from snapjudge.cli.settings import named_judges
        from snapjudge.errors import InputInvalid

        names = named_judges(judge) if judge else []
        asked = _questions(question or (), reworded or (), options, levels)
        inputs = _fields(field or ())
        text = _standard_input() if text == "-" else text
        if text is not None and not text.strip():
            raise InputInvalid("an empty text", hint='snapjudge ask "text"; - reads standard input', received=text)
        if text is None and not inputs:
            raise InputInvalid("no text was given", hint='snapjudge ask "text"; --field FIELD=TEXT gives a field by its name; - reads standard input')
        found: dict[str, dict[str, Any]] = {}
        if names or not asked:
            found = {name: one.model_dump(mode="json") for name, one in _judged(names, text, inputs, backbone, precision.value, shown=not as_json).items()}
        if asked:
            found |= _asked(asked, text, inputs, backbone or "mini", precision.value, shown=not as_json)
        if as_json:
            print_json(found)


def _judged(names: list[str], text: str | None, inputs: dict[str, Any], backbone: str | None, precision: str, *, shown: bool) -> "dict[str, Judgement]":
    """Answers of the named judges; of all built-in ones that can read the fields where none is named: of those the ones that flag nothing are told in brief.
    Judges that get the same fields share a reading.
    """
    from snapjudge.cli.tables import verdict
    from snapjudge.errors import OptionInvalid
    from snapjudge.flows.listing import list_judges
    from snapjudge.judge import Judge, Panel

    given, brief = {*inputs, *(() if text is None else ("input", "output"))}, not names
    if not names:
        known = [(one.name, one.metric) for one in list_judges() if one.built_in and one.bundle is not None and one.metric is not None]
        names = [name for name, metric in known if set(metric.needed_inputs) <= given and ({*metric.inputs} & given)]
    if not names:
        raise OptionInvalid("no judge was named, and no built-in one reads what was given", hint='snapjudge ask --judge judges/NAME "text"')
    judges = [Judge.load(name, backbone=backbone, dtype=precision) for name in names]
    groups: dict[str, list[Judge]] = defaultdict(list)
    for one in judges:
        groups["" if text is None else one.metric.place_of_text(inputs)].append(one)
    if text is not None and (not any(groups) or ("" in groups and "output" in inputs)):
        deaf = ", ".join(one.name for one in groups[""])
        hint = "give a text once, and each field by its name: --field output=... --field context=..."
        raise OptionInvalid(f"{deaf} would not read the text: --field gives every field of it", hint=hint, received=text[:80])
    if unread := [name for name in inputs if not any(name in one.metric.inputs for one in judges)]:
        errors.print(f"{', '.join(unread)}: none of these judges reads it", style="yellow", markup=False)
    answers: dict[str, Judgement] = {}
    for place, some in groups.items():
        fields: dict[str, Any] = {**inputs, place: text} if place else inputs
        answers |= Panel(some).score(**fields)
    found = {one.name: answers[one.name] for one in judges}
    quiet = [one for one in judges if brief and one.metric.positive_labels and not found[one.name].flagged]
    for one in (one for one in judges if shown and one not in quiet):
        answer = found[one.name]
        output.print(f"[bold]{one.name}[/bold]  {verdict(one, answer)}  confidence {answer.confidence:.3f}  ({_shares(answer)})")
        output.print(f"{one.metric.question}{_windows(answer)}", style="dim", markup=False)
    if shown and quiet:
        output.print("[bold]not flagged[/bold]  " + ", ".join(f"{one.name} {found[one.name].score:.3f}" for one in quiet))
        output.print("`--judge NAME` tells more of one, `--json` all of all", style="dim", markup=False)
    return found


def _asked(asked: "list[OpenQuestion]", text: str | None, inputs: dict[str, Any], backbone: str, precision: str, *, shown: bool) -> dict[str, dict[str, Any]]:
    """Answers to open questions, each with the nearest question that was learned; a judge that was trained for the very question is named."""
    from snapjudge.core.question import same_question
    from snapjudge.flows.listing import list_judges
    from snapjudge.generalist import Generalist

    generalist = Generalist.load(backbone, dtype=precision)
    fields = {**inputs, **({} if text is None else {"output" if "input" in inputs else "input": text})}
    trained = {same_question(one.metric.question): one.name.partition("@")[0] for one in list_judges() if one.metric is not None}
    found = {}
    for one, answer in zip(asked, generalist.ask(asked, **fields), strict=True):
        nearest, nearness = generalist.nearest(one)
        judge = trained.get(same_question(one.instructions))
        told = {**answer.model_dump(mode="json"), "nearest": {"question": nearest, "similarity": round(nearness, 4)} if nearest else None}
        found[one.name or one.instructions] = {**told, "trained_judge": judge}
        if not shown:
            continue
        output.print("[bold]" + ("yes" if answer.flagged else "no" if one.type == "boolean" else answer.label) + "[/bold]", end="  ")
        output.print(f"{_shares(answer)}  confidence {answer.confidence:.3f}", markup=False)
        learned = f"; the nearest it learned is {nearest!r} ({nearness:.2f})" if nearest else ""
        better = f"zero-shot: the judge {judge} was trained for this question; ask it with --judge {judge}"
        output.print(better if judge else f"zero-shot: nobody trained a judge for this question{learned}", style="dim", markup=False)
        output.print(f"{one.instructions}{_windows(answer)}", style="dim", markup=False)
    return found


def _questions(texts: "list[str] | tuple[()]", reworded: "list[str] | tuple[()]", options: str | None, levels: str | None) -> "list[OpenQuestion]":
    from pydantic import ValidationError

    from snapjudge.core.question import OpenQuestion, OpenType
    from snapjudge.errors import OptionInvalid

    for option, value in (("--options", options), ("--levels", levels)):
        if value is not None and not value.strip():
            raise OptionInvalid(f"{option} names no answers", hint=f"{option} billing,refund", received=value)
    listed = options or levels
    if reworded and len(texts) != 1:
        raise OptionInvalid("--reworded belongs to one --question", hint='--question "Is it a refund request?" --reworded "Does the user want money back?"')
    if listed and (len(texts) != 1 or (options and levels)):
        raise OptionInvalid(
            "--options and --levels belong to one --question, and only one of them", hint='--question "What is it about?" --options billing,refund'
        )
    names = tuple(part.strip() for part in (listed or "").split(",") if part.strip())
    try:
        kind: OpenType = "choice" if options else "score" if levels else "boolean"
        return [OpenQuestion(instructions=one, type=kind, options=names, rewordings=tuple(reworded)) for one in texts]
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise OptionInvalid(f"the question cannot be asked: {reason}", hint='--question "What is it about?" --options billing,refund') from error


def _standard_input() -> str:
    """All of standard input, as text."""
    import sys

    from snapjudge.errors import InputInvalid

    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputInvalid(f"standard input holds bytes that are not UTF-8 at {error.start}", hint="convert it, as with `iconv -t utf-8`") from error


def _shares(answer: "Judgement") -> str:
    return ", ".join(f"{label} {p:.3f}" for label, p in sorted(answer.probabilities.items(), key=lambda pair: -pair[1])[:5])


def _windows(answer: "Judgement") -> str:
    return f" Read in {answer.windows} windows." if answer.windows > 1 else ""


def _fields(pairs: list[str] | tuple[()]) -> dict[str, Any]:
    import json

    from snapjudge.core.metric import INPUT_NAMES
    from snapjudge.errors import OptionInvalid

    found: dict[str, object] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or name not in INPUT_NAMES:
            raise OptionInvalid(f"--field {pair!r} cannot be read", hint=f"FIELD=TEXT with a field among {', '.join(INPUT_NAMES)}", received=pair)
        if name in found:
            raise OptionInvalid(f"--field {name} is given twice", hint="one text for each field", received=pair)
        try:
            found[name] = json.loads(value) if name in ("messages", "tools") else value
        except json.JSONDecodeError:
            found[name] = value
    return found
