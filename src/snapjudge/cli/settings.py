"""Command-line options as typed configuration, every wrong one told at once."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from snapjudge.core.frozen import Frozen
from snapjudge.errors import OptionInvalid

_Config = TypeVar("_Config", bound=Frozen)


def checked_config(kind: type[_Config], command: str, **options: Any) -> _Config:
    """The configuration of a command's options.

    Raises:
        OptionInvalid: naming every option out of its range.
    """
    try:
        return kind.model_validate(options)
    except ValidationError as error:
        found = [
            f"--{str(item['loc'][-1]).replace('_', '-')} {item['input']!r}: {_plain(item['msg'])}"
            for item in error.errors()
            if item["loc"][-1] != "alpha"  # follows from the rank
        ]
        raise OptionInvalid("; ".join(found), hint=f"`snapjudge {command} --help` lists the options") from error


def needs(met: bool, what: str, **options: object) -> None:
    """Refuse options that would do nothing.

    Args:
        met: whether what they need was said.
        what: they need, such as "--teacher".
        options: as given; None, False and the empty list stand for those that were not.

    Raises:
        OptionInvalid: naming the first option that was given for nothing.
    """
    for name, value in options.items():
        if not met and value is not None and value is not False and value != []:
            option = f"--{name.replace('_', '-')}"
            raise OptionInvalid(f"{option} does nothing without {what}", hint=f"leave {option} out, or give {what}", received=str(value))


def said(**options: object) -> dict[str, object]:
    """The options that were given; those that are None keep the default of their configuration."""
    return {name: value for name, value in options.items() if value is not None}


def named_judges(options: Sequence[str]) -> list[str]:
    """The judges that `--judge` names, each once, separated by commas or in options of their own.

    Raises:
        OptionInvalid: it names none, as an empty variable of a shell does.
    """
    names = list(dict.fromkeys(name.strip() for part in options for name in part.split(",") if name.strip()))
    if not names:
        raise OptionInvalid("--judge names no judge", hint="`snapjudge judges` lists what there is", received=",".join(options))
    return names


def _plain(reason: str) -> str:
    """What pydantic says, without its phrase and without the choice of a default that has no name."""
    return reason.removeprefix("Input should be ").removeprefix("'', ")
