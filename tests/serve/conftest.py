"""One server for the tests that change nothing about it."""

import pytest

from snapjudge.live.host import HostTerms
from snapjudge.serve.settings import ServeSettings
from snapjudge.testing import serving

JUDGES = ("toxicity", "tone", "prompt_injection")


def settings_for(**more):
    return ServeSettings(**{"port": 0, "judges": JUDGES, "engine": HostTerms(processes=1), **more})


@pytest.fixture(scope="session")
def server():
    with serving(settings_for(aliases={"prod": "toxicity@1"})) as address:
        yield address
