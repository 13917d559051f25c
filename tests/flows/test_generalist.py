"""Open questions: one reading for all, marked zero-shot, the same whatever the order of options; and what is refused."""

import math

import pytest
from pydantic import ValidationError

from snapjudge import Generalist, OpenQuestion
from snapjudge.core.calibration import Calibration
from snapjudge.core.judgement import Abstention
from snapjudge.errors import InputInvalid, MetricInvalid

TOPIC = OpenQuestion(instructions="What is it about?", type="choice", options=("money", "the weather", "a lost parcel"))


@pytest.fixture(scope="module")
def generalist(mini):
    return Generalist(mini)


def test_answers_keep_the_order_of_questions_and_are_marked(generalist):
    asked = [OpenQuestion(instructions="Is it about rain?"), TOPIC, OpenQuestion(instructions="How warm?", type="score", options=("cold", "mild", "hot"))]
    answers = generalist.ask(asked, input="It rained all day.")
    assert [tuple(answer.probabilities) for answer in answers] == [("yes", "no"), TOPIC.options, ("cold", "mild", "hot")]
    for answer in answers:
        assert answer.zero_shot
        assert answer.judge == "generalist@mini"
        assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert answers[0].score == answers[0].probabilities["yes"]
    assert 0 <= answers[2].score <= 1


def test_the_order_of_options_and_what_else_is_asked_move_nothing(generalist):
    turned = TOPIC.model_copy(update={"options": TOPIC.options[::-1]})
    alone, other = generalist.ask([TOPIC], output="Where is it?")[0], generalist.ask([OpenQuestion(instructions="Rude?"), turned], output="Where is it?")[1]
    assert alone.probabilities == {name: other.probabilities[name] for name in alone.probabilities}


def test_many_are_answered_as_one_is_and_bad_ones_abstain(generalist):
    items = [{"input": "a parcel"}, {"input": ""}, {"nonsense": "x"}, {"input": "long text. " * 600}]
    found = list(generalist.ask_many(items, [TOPIC]))
    assert found[0] == generalist.ask([TOPIC], input="a parcel")
    assert isinstance(found[1], Abstention)
    assert isinstance(found[2], Abstention)
    assert found[3][0].windows > 1


def test_a_calibration_is_applied_by_type(mini):
    doubled = Generalist(mini, {"boolean": Calibration(kind="temperature", parameters=(0.25,))})
    question = OpenQuestion(instructions="Is it rude?")
    plain, sharp = Generalist(mini).ask([question], input="You fool.")[0], doubled.ask([question], input="You fool.")[0]
    assert sharp.p_max != plain.p_max


def test_several_wordings_answer_by_the_mean_of_their_log_odds(generalist):
    wordings = ("Is it about money?", "Does the user write about payments?", "Is the topic billing?")
    single = [OpenQuestion(instructions=one) for one in wordings]
    together = OpenQuestion(instructions=wordings[0], rewordings=wordings[1:])
    *alone, answer = generalist.ask([*single, together], input="I want my money back")
    odds = [math.log(one.probabilities["yes"] / one.probabilities["no"]) for one in (*alone, answer)]
    assert odds[-1] == pytest.approx(sum(odds[:-1]) / 3, abs=1e-4)
    topics, options = ("What is it about?", "Which topic is it?"), ("billing", "weather")
    choice = OpenQuestion(instructions=topics[0], rewordings=topics[1:], type="choice", options=options)
    yes_or_no = [OpenQuestion(instructions=f"{topic} {option}?") for option in options for topic in topics]
    found, *parts = generalist.ask([choice, *yes_or_no], input="I want my money back")
    odds = [math.log(one.probabilities["yes"] / one.probabilities["no"]) for one in parts]
    billing, weather = sum(odds[:2]) / 2, sum(odds[2:]) / 2
    assert math.log(found.probabilities["billing"] / found.probabilities["weather"]) == pytest.approx(billing - weather, abs=1e-4)
    assert OpenQuestion(instructions="Is it?", rewordings=("Is it?",)).wordings == (("Is it?",),)


def test_what_cannot_be_asked_is_refused(generalist):
    for wrong in (
        {"instructions": " "},
        {"instructions": "?", "options": ("a", "b")},
        {"instructions": "?", "type": "choice", "options": ("a", "a")},
        {"instructions": "?", "type": "score", "options": ("a",)},
        {"instructions": "?", "type": "choice", "options": ("a", "b"), "meanings": {"c": "x"}},
    ):
        with pytest.raises(ValidationError):
            OpenQuestion(**wrong)
    with pytest.raises(MetricInvalid):
        generalist.ask([OpenQuestion(instructions="word " * 100)], input="x")
    with pytest.raises(InputInvalid):
        generalist.ask([TOPIC], input="")
