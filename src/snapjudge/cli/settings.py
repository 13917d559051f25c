"""Command-line options as typed configuration, every wrong one told at once."""

from typing import Any

from pydantic import ValidationError

from snapjudge.errors import OptionInvalid
from snapjudge.flows.train_terms import TrainConfig


def training_config(**options: Any) -> TrainConfig:
    """The training configuration of some options.

    Raises:
        OptionInvalid: naming every option out of its range.
    """
    try:
        return TrainConfig.model_validate(options)
    except ValidationError as error:
        found = [f"--{str(item['loc'][-1]).replace('_', '-')} {item['input']!r}: {item['msg'].removeprefix('Input should be ')}" for item in error.errors()]
        raise OptionInvalid("; ".join(found), hint="`snapjudge train --help` lists the options") from error
