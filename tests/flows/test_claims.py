"""Work folders: one run at a time, go on only as begun, given back when there is nothing to go on from."""

import subprocess
import sys

import pytest

from snapjudge.errors import Interrupted, OptionInvalid, RunConflict
from snapjudge.flows.claims import MARK, alone, claimed

HOLDER = """
import sys
from pathlib import Path
from snapjudge.flows.claims import claimed
with claimed(Path(sys.argv[1]), {"seed": 1}, "training of it", resume=False, restart=False):
    print("held", flush=True)
    sys.stdin.read()
"""


def enter(folder, record, end=None, **how):
    with claimed(folder, record, "training of it", **{"resume": False, "restart": False, **how}):
        (folder / "state").write_text("some")
        if end:
            raise end


def test_where_there_is_nothing_to_resume_it_says_so(tmp_path):
    said = []
    enter(tmp_path / "work", {"seed": 1}, resume=True, say=said.append)
    assert said == [f"nothing to resume: no interrupted training of it lies in {tmp_path / 'work'}, so it begins at the start"]
    with pytest.raises(Interrupted):
        enter(tmp_path / "work", {"seed": 1}, Interrupted("stopped"))
    enter(tmp_path / "work", {"seed": 1}, resume=True, say=said.append)
    assert len(said) == 1


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "work")], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("how", [{}, {"resume": True}, {"restart": True}], ids=["anew", "resume", "restart"])
def test_a_folder_that_another_process_works_in_is_left_alone(holder, tmp_path, how):
    with pytest.raises(RunConflict, match="another process is at work on the training of it"):
        enter(tmp_path / "work", {"seed": 1}, **how)
    assert (tmp_path / "work" / MARK).exists()


def test_what_a_killed_process_held_is_free(holder, tmp_path):
    holder.kill()
    holder.wait()
    with pytest.raises(RunConflict, match="an interrupted training of it lies in"):
        enter(tmp_path / "work", {"seed": 1})
    enter(tmp_path / "work", {"seed": 1}, resume=True)
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_only_with_what_it_was_of(tmp_path):
    with pytest.raises(Interrupted):
        enter(tmp_path / "work", {"seed": 1}, Interrupted("stop", hint=""))
    assert {path.name for path in (tmp_path / "work").iterdir()} == {MARK, "state"}
    with pytest.raises(RunConflict, match="was of other data, settings or models"):
        enter(tmp_path / "work", {"seed": 2}, resume=True)
    (tmp_path / "work" / "parts").mkdir()
    with pytest.raises(Interrupted):
        enter(tmp_path / "work", {"seed": 2}, Interrupted("stop", hint=""), restart=True)
    assert {path.name for path in (tmp_path / "work").iterdir()} == {MARK, "state"}


def test_an_empty_folder_is_of_nobody(tmp_path):
    (tmp_path / "work").mkdir()
    enter(tmp_path / "work", {"seed": 1})


@pytest.mark.parametrize(("error", "kept"), [(OptionInvalid("no", hint=""), False), (Interrupted("stop", hint=""), True)], ids=["mistake", "stop"])
def test_a_mistake_gives_the_folder_back_and_a_stop_keeps_it(tmp_path, error, kept):
    with (
        pytest.raises(type(error)),
        claimed(tmp_path / "judge" / "work", {}, "training of it", resume=False, restart=False),
    ):
        raise error
    assert (tmp_path / "judge" / "work" / MARK).exists() is kept
    assert (tmp_path / "judge").exists() is kept


def test_a_lock_leaves_nothing_behind(tmp_path):
    with alone(tmp_path / "out.lock", "it"), pytest.raises(RunConflict, match="another process"), alone(tmp_path / "out.lock", "it"):
        pass
    assert not list(tmp_path.iterdir())
