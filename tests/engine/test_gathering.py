"""How long a step waits for company."""

import threading
import time

from snapjudge.engine.engine import Engine
from snapjudge.engine.gathering import LEAST, Gathering
from snapjudge.engine.plan import Limits
from snapjudge.engine.requests import Read
from snapjudge.model.hub import load_backbone
from snapjudge.model.readout import Readout


def test_one_client_alone_is_never_kept_waiting():
    gathering = Gathering(0.01)
    assert gathering.left(1, 0.0) == 0.0
    for answered in range(1, 5):
        gathering.stepped(answered, 0)
        assert gathering.left(1, 0.0) == 0.0
    off = Gathering(0.0)
    off.stepped(5, 3)
    assert off.left(1, 0.0) == 0.0


def test_those_who_come_in_step_are_waited_for_and_patience_dwindles_where_nobody_comes():
    gathering = Gathering(0.01)
    gathering.stepped(1, 1)
    assert gathering.left(1, 0.0) == 0.01
    assert gathering.left(2, 0.004) == 0.0
    patience = []
    for answered in range(2, 30):
        gathering.stepped(answered, 1)
        patience.append(gathering.left(1, 0.0))
        assert gathering.left(1, 0.02) <= 0.0
    assert patience == sorted(patience, reverse=True)
    assert abs(patience[-1] - LEAST * 0.01) < 1e-9
    for answered in range(30, 60):
        gathering.stepped(answered, 1)
        gathering.left(2, 0.0)
    gathering.stepped(60, 1)
    assert gathering.left(1, 0.0) == 0.01


def test_clients_in_turns_come_to_share_steps_and_get_the_same_answers():
    backbone = load_backbone("mini")
    contents = [tuple(range(1000 + 40 * n, 1040 + 40 * n)) for n in range(12)]
    read = Read(None, Readout((2000, 2001, 2002), ((2003,), (2004,))))
    found = {}
    for gather in (0.0, 0.05):
        with Engine(backbone, limits=Limits(gather=gather)) as engine:
            answers = {}

            def client(own, engine=engine, answers=answers):
                for content in own:
                    answers[content] = engine.submit(content, [read]).result().logits

            threads = [threading.Thread(target=client, args=(contents[n::2],)) for n in range(2)]
            for thread in threads:
                thread.start()
                time.sleep(0.003)
            for thread in threads:
                thread.join()
            found[gather] = engine.stats.steps, answers
    assert found[0.0][1] == found[0.05][1]
    assert found[0.05][0] <= 8  # of twelve, had they gone by turns
