"""Personal data of people who do not exist, put into real rows by Faker. Knows texts only."""

import random
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from snapjudge.errors import OptionInvalid

_LOCALES = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT")
_SENTENCES = {
    "name": ("My name is {0}.", "Please ask for {0}.", "{0} will take it from there."),
    "email": ("Write to {0}.", "You can reach me at {0}.", "Her mail is {0}."),
    "phone_number": ("Call {0}.", "My number is {0}.", "Ring {0} before six."),
    "address": ("I live at {0}.", "Send it to {0}.", "The parcel goes to {0}."),
    "iban": ("The IBAN is {0}.", "Pay to {0}."),
    "credit_card_number": ("My card number is {0}.", "Charge {0}."),
    "date_of_birth": ("I was born on {0}.", "Date of birth: {0}."),
    "ssn": ("My social security number is {0}.", "SSN {0}."),
}
# Faker counts its dates from today, and draws Italian cities from a set, whose order differs from process to process.
_DATES: Mapping[str, tuple[date, date]] = {"date": (date(1990, 1, 1), date(2026, 12, 31)), "date_of_birth": (date(1930, 1, 1), date(2008, 12, 31))}
_UNORDERED = {"city": "it_IT"}
_LONG, _LEAST, _TRIES = "_long", 14, 1000  # after a kind: of so many letters and digits at least, drawn again so often
_IN_FOURS = "_in_fours"  # after a kind: its letters and digits four by four, as they are printed on cards and statements


class People:
    """A source of invented people: the same ones for the same seed, in every process; of kinds that Faker counts from today (but dates, times and birth
    dates, which are made here) the same ones on the same day.
    """

    def __init__(self, seed: int) -> None:
        from faker import Faker  # noqa: PLC0415 - an optional package

        self._rng = random.Random(f"people:{seed}")  # noqa: S311 - reproducible data
        self._faker: Any = Faker(list(_LOCALES))
        self._faker.seed_instance(seed)
        self._ordered: dict[str, Any] = {kind: Faker([locale for locale in _LOCALES if locale != left_out]) for kind, left_out in _UNORDERED.items()}
        for faker in self._ordered.values():
            faker.seed_instance(seed)

    def sentence(self, rng: random.Random) -> tuple[str, str]:
        """A sentence that gives something away, and what kind of thing."""
        kind = rng.choice(list(_SENTENCES))
        return rng.choice(_SENTENCES[kind]).format(self.invented(kind)), kind

    def invented(self, kind: str) -> str:
        """A value of one of Faker's kinds, such as `iban` on one line; `iban_in_fours` is one with spaces, `credit_card_number_long` one of
        fourteen digits at least.

        Raises:
            OptionInvalid: Faker knows no such kind, or makes none that long.
        """
        if kind.endswith(_IN_FOURS):
            plain = self.invented(kind.removesuffix(_IN_FOURS))
            return " ".join(plain[place : place + 4] for place in range(0, len(plain), 4))
        if kind.endswith(_LONG):
            drawn = (self.invented(kind.removesuffix(_LONG)) for _ in range(_TRIES))
            found = next((value for value in drawn if len(value) >= _LEAST), None)
            if found is None:
                raise OptionInvalid(f"no {kind.removesuffix(_LONG)!r} is as long as {_LEAST}", hint=f"leave {_LONG!r} out", received=kind)
            return found
        if kind in _DATES:
            first, last = _DATES[kind]
            return (first + timedelta(days=self._rng.randint(0, (last - first).days))).isoformat()
        if kind == "time":
            return f"{self._rng.randint(0, 23):02}:{self._rng.randint(0, 59):02}:{self._rng.randint(0, 59):02}"
        make = getattr(self._ordered.get(kind, self._faker), kind, None)
        if make is None:
            raise OptionInvalid(f"Faker makes no {kind!r}", hint="such as name, email, iban; faker.readthedocs.io lists the providers", received=kind)
        kept = random.getstate()
        random.seed(self._rng.random())  # some of Faker's numbers are drawn from the process's own generator
        try:
            return str(make()).replace("\n", ", ")
        finally:
            random.setstate(kept)
