"""Names of judges: the newest version, aliases before names, and a roster that a request keeps."""

import pytest

from snapjudge.core.calibration import Calibration
from snapjudge.core.metric import Metric
from snapjudge.core.question import OpenQuestion
from snapjudge.errors import JudgeUnknown, OptionInvalid
from snapjudge.live.roster import Loaded, Roster


def loaded(judge, question="Is it rude?", **more):
    metric = Metric(
        **{
            "name": judge.partition("@")[0],
            "version": 1,
            "type": "boolean",
            "inputs": ("output",),
            "question": question,
            "labels": {"rude": ("yes",), "fine": ("no",)},
            **more,
        }
    )
    return Loaded(judge, f"digest of {judge}", metric, Calibration(), "mini", "readout", 8, "backbone")


@pytest.fixture
def roster():
    return Roster().with_judge(loaded("rude@1")).with_judge(loaded("rude@2")).with_judge(loaded("tone@1", "Which tone?", type="choice"))


def test_a_name_without_a_version_is_its_newest(roster):
    assert roster.find("rude").judge == "rude@2"
    assert roster.find("rude@1").judge == "rude@1"


def test_an_alias_goes_before_a_name_and_can_be_moved_and_taken_away(roster):
    pinned = roster.with_alias("rude", "rude@1").with_alias("prod", "rude")
    assert pinned.find("rude").judge == "rude@1"
    assert pinned.find("prod").judge == "rude@1"
    assert pinned.names_of(pinned.find("rude@1")) == ("rude@1", "prod", "rude")
    assert pinned.with_alias("prod", "rude@2").find("prod").judge == "rude@2"
    assert pinned.without_alias("rude").find("rude").judge == "rude@2"
    with pytest.raises(JudgeUnknown, match="no alias"):
        pinned.without_alias("nothing")


def test_a_request_keeps_the_roster_it_came_with(roster):
    before = roster
    after = roster.with_alias("prod", "rude@2").without(roster.find("rude@2"))
    assert before.find("rude").judge == "rude@2"
    assert after.find("rude").judge == "rude@1"
    assert dict(after.aliases) == {}


def test_an_unknown_name_is_refused_with_what_is_near(roster):
    with pytest.raises(JudgeUnknown) as error:
        roster.find("rud")
    assert "rude" in error.value.hint


@pytest.mark.parametrize("alias", ["", "a b", "../x", "x" * 200, "\x00"])
def test_names_that_could_be_mistaken_for_something_else_are_no_aliases(roster, alias):
    with pytest.raises(OptionInvalid):
        roster.with_alias(alias, "rude")


def test_a_question_a_judge_was_trained_for_goes_to_it_whatever_its_case_and_spacing(roster):
    assert roster.trained_for(OpenQuestion(instructions="  is it   RUDE")).judge == "rude@2"
    assert roster.trained_for(OpenQuestion(instructions="Anything", name="rude@1")).judge == "rude@1"
    assert roster.trained_for(OpenQuestion(instructions="Is it a refund?")) is None
    assert roster.trained_for(OpenQuestion(instructions="Is it rude?", type="choice", options=("a", "b"))) is None
    assert roster.trained_for(OpenQuestion(instructions="which tone", type="choice", options=("rude", "fine"))).judge == "tone@1"
