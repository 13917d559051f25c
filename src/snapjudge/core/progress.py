"""How long work tells how far it is, without knowing who watches."""

from typing import Protocol


class Progress(Protocol):
    """Told about stages of known length, and about things worth saying."""

    def start(self, stage: str, total: int) -> None:
        """A stage of `total` steps begins."""
        ...

    def advance(self, steps: int = 1, note: str = "") -> None:
        """`steps` of the current stage are done."""
        ...

    def say(self, text: str) -> None:
        """Something a person should read, now and in the record of the run."""
        ...


class Silent:
    """Nobody watches."""

    def start(self, stage: str, total: int) -> None:
        """Nothing is shown."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Nothing is shown."""

    def say(self, text: str) -> None:
        """Nothing is shown."""
