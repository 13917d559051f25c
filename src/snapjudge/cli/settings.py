"""Command-line options as typed configuration, every wrong one told at once."""

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
            f"--{str(item['loc'][-1]).replace('_', '-')} {item['input']!r}: {item['msg'].removeprefix('Input should be ')}"
            for item in error.errors()
            if item["loc"][-1] != "alpha"  # follows from the rank
        ]
        raise OptionInvalid("; ".join(found), hint=f"`snapjudge {command} --help` lists the options") from error
