"""The tutorial's commands, one after another, against two endpoints that misbehave."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.standin import StandIn

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial"
PROMISES = (
    "we will give you back the {n} euros for the {thing}",
    "your {n} dollars for the {thing} are refunded, {name}",
    "I have approved the repayment for the {thing}, {name}",
    "{name}, the {n} pounds you paid for the {thing} come back this week",
    "the charge of {n} for the {thing} is reversed, {name}",
)
OTHERS = (
    "the team will decide about the {n} euros for the {thing}",
    "our rules on the {thing} are on page {n}, {name}",
    "I have passed on your request about the {thing}, {name}",
    "{name}, we can exchange the {thing}, number {n}, for another",
    "no money is returned for a {thing} after {n} days, {name}",
)
MARKS = (
    "give you back",
    "are refunded",
    "approved the repayment",
    "come back this week",
    "is reversed",
    "refunded",
    "money back",
    "reimburse",
    "returning what",
)
THINGS = ("vase", "trip", "parcel", "course", "lamp", "ticket", "jacket", "phone", "sofa", "subscription", "bicycle", "book", "printer", "kettle")


class Model:
    """Writes replies of a support desk, and judges them by their wording."""

    def __init__(self, seed):
        self.rng = random.Random(seed)

    def __call__(self, body):
        if "write realistic examples" in body["messages"][0]["content"]:
            return json.dumps({"examples": [self._row(label, pair) for pair in (1, 2) for label in ("promises", "holds_back")]})
        text = body["messages"][1]["content"]
        return json.dumps({"rationale": "by its wording", "label": "promises" if any(mark in text for mark in MARKS) else "holds_back"})

    def _row(self, label, pair):
        name = "".join(self.rng.choice("abcdefghijklmnoprstuvwz") for _ in range(6)).title()
        opening = self.rng.choice(("Dear {name},", "Hello,", "Thank you for waiting.", "I looked into it:", "About order {n}:")).format(
            name=name, n=self.rng.randrange(9999)
        )
        said = self.rng.choice(PROMISES if label == "promises" else OTHERS).format(n=self.rng.randrange(5, 900), thing=self.rng.choice(THINGS), name=name)
        closing = self.rng.choice(("Best wishes", "Is there anything else?", "Kind regards", "Have a good day", "We are here until six"))
        return {"inputs": {"output": f"{opening} {said}. {closing}, {name[::-1].lower()}."}, "label": label, "pair": pair}


@pytest.mark.flow
def test_every_command_of_the_tutorial_runs_against_endpoints_that_misbehave(tmp_path):
    for file in TUTORIAL.iterdir():
        shutil.copy(file, tmp_path / file.name)
    trouble = {"rate_limit": 0.05, "error": 0.02, "refusal": 0.02, "prose": 0.02, "html": 0.02, "cut": 0.01}
    blocks = re.findall(r"```sh\n(.*?)```", (TUTORIAL / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 9
    scripts = str(Path(sys.executable).parent)
    with StandIn(Model(1), trouble=trouble, seed=1) as writer, StandIn(Model(2), trouble=trouble, seed=2) as second:
        judges = (tmp_path / "judges.yaml").read_text().replace("http://127.0.0.1:8000/v1", writer.url).replace("http://127.0.0.1:8001/v1", second.url)
        (tmp_path / "judges.yaml").write_text(judges)
        told = ""
        for block in blocks:
            environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "XDG_DATA_HOME": str(tmp_path)}
            done = subprocess.run(["bash", "-ec", block], cwd=tmp_path, capture_output=True, text=True, env=environment)
            assert done.returncode == 0, f"{block}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            told += done.stdout
        for kind in ("rate_limit", "refusal", "prose", "html"):
            assert writer.happened[kind] + second.happened[kind] > 0, kind
    assert "60 new" in told
    assert "disputed 4" in told
    assert "the test is frozen now" in told
    assert "nothing was labelled" in told
    assert re.search(r"taken back by the writer|not judged by the writer", told)
    assert "acceptance between" in told
    proof = json.loads((tmp_path / "judges" / "refund_promise" / "1" / "proof.json").read_text())
    assert sum(proof["labels"].values()) == 24
    assert proof["data"]["train"] > 150
    area = proof["contenders"][0]["figures"]["auroc"]
    assert area["low"] < area["value"] < area["high"]
    assert area["high"] > 0.6  # 24 rows: only a judge that ranks the wrong way round falls below; which rows are refused differs from run to run
    queue = [json.loads(line) for line in (tmp_path / "queue.jsonl").read_text().splitlines()]
    assert {row["reason"] for row in queue} >= {"random", "uncertain"}
    assert (tmp_path / "plan.html").exists()
    assert (tmp_path / "audit" / "audit.html").exists()
