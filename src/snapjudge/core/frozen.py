"""The base of all nouns: a value that is checked when made and never changes."""

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """An immutable, strict value; unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
