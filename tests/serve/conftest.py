"""One server for the tests that change nothing about it."""

import atexit
import shutil
import tempfile
from pathlib import Path
from uuid import uuid4

import pytest

from snapjudge.live.host import HostTerms
from snapjudge.serve.settings import ServeSettings
from snapjudge.testing import serving

DATA = Path(tempfile.mkdtemp(prefix="snapjudge-test-"))  # one folder for each server: no two use the same
atexit.register(shutil.rmtree, DATA, ignore_errors=True)
JUDGES = ("toxicity", "tone", "prompt_injection")


def settings_for(**more):
    data = DATA / uuid4().hex
    return ServeSettings(**{"port": 0, "judges": JUDGES, "engine": HostTerms(processes=1), "data": data, **more})


@pytest.fixture(scope="session")
def server():
    with serving(settings_for(aliases={"prod": "toxicity@1"})) as address:
        yield address
