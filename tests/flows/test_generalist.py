"""Open questions: one reading for all, marked zero-shot, the same whatever the order of options; and what is refused."""

import json
import math
import shutil

import pytest
from pydantic import ValidationError

from snapjudge import Generalist, OpenQuestion
from snapjudge.core.judgement import Abstention
from snapjudge.core.metric import Metric
from snapjudge.core.question import Evidence
from snapjudge.errors import InputInvalid, MetricInvalid
from snapjudge.model.asking import Asking
from snapjudge.model.hub import OPEN_FILE, mini_folder
from snapjudge.model.prompt import Content, content_windows, render_readout
from snapjudge.model.reading import Question, read_and_embed, read_contents, summaries

ASKED = Metric(name="asked", version=1, type="boolean", inputs=("output",), question="Rude?", labels={"yes": ("yes",), "no": ("no",)})

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


def test_evidence_counts_by_the_type_of_question(mini):
    likened = Generalist(mini, {"boolean": Evidence(odds=0.0, likeness=10.0)}, Asking(mini, [0.0] * mini.width))
    refund, weather = OpenQuestion(instructions="Is the user asking for a refund?"), OpenQuestion(instructions="Is it about the weather?")
    same = likened.ask([refund, TOPIC], input=refund.instructions)
    assert math.log(same[0].score / (1 - same[0].score)) == pytest.approx(10.0, abs=1e-3)  # a text is like itself
    assert same[1] == Generalist(mini).ask([TOPIC], input=refund.instructions)[0]  # nothing was said of choices
    money, storm = (likened.ask([refund, weather], input=text) for text in ("I want my money back", "The storm brought rain and wind all day"))
    assert money[0].score > storm[0].score
    assert money[1].score < storm[1].score


def test_likeness_comes_from_the_same_reading_and_moves_with_nothing_else(mini):
    asking = Asking(mini, [0.01] * mini.width)
    windows = [content_windows({"input": text}, mini)[0] for text in ("I want my money back", "a parcel")]
    both = list(asking.ask(windows, ["Is it a refund?", "Is it rude?"]))
    alone = next(Asking(mini, [0.01] * mini.width).ask(windows[1:], ["Is it rude?"]))
    assert both[1][1] == alone[0]
    assert all(-1 <= one.likeness <= 1 for some in both for one in some)
    assert next(Asking(mini).ask(windows, ["Is it rude?"]))[0].likeness == 0.0
    work = [(Content((window,)), [Question(ASKED, render_readout(ASKED, mini))]) for window in windows]
    embedded = list(read_and_embed(mini, work))
    assert [readings for readings, _ in embedded] == list(read_contents(mini, work))
    for (_, vector), expected in zip(embedded, summaries(mini, [content for content, _ in work]), strict=True):
        assert vector.equal(expected)


def test_the_odds_of_a_question_count_by_its_nearness_to_what_was_learned(mini):
    learned = ("Is the text toxic?", "Does the text contain a phone number?", "Is the request about cooking?")
    known, other = OpenQuestion(instructions=learned[0]), OpenQuestion(instructions="Who won the football match on Sunday?")
    asking = Asking(mini, [0.0] * mini.width, learned)
    near = asking.nearest(other.instructions)[1] + 0.02
    generalist = Generalist(mini, {"boolean": Evidence(near=near)}, asking)
    assert generalist.nearest(OpenQuestion(instructions=learned[1])) == (learned[1], pytest.approx(1.0))
    assert generalist.nearest(OpenQuestion(instructions="Is there a telephone number in it?"))[0] == learned[1]
    counted, plain = (some.ask([known, other], input="You fool.") for some in (generalist, Generalist(mini)))
    odds = [[math.log(one.score / (1 - one.score)) for one in some] for some in (counted, plain)]
    assert odds[0][0] == pytest.approx(odds[1][0], rel=1e-3)
    assert odds[0][1] == pytest.approx(odds[1][1] / (1 + math.e), rel=1e-3)
    assert Generalist(mini).nearest(known) == ("", 0.0)


def test_a_backbone_says_how_its_evidence_counts(mini, tmp_path):
    shutil.copytree(mini_folder(), tmp_path / "mini", ignore=shutil.ignore_patterns(OPEN_FILE))
    question = OpenQuestion(instructions="Is it rude?")
    plain = Generalist.load(str(tmp_path / "mini")).ask([question], input="You fool.")[0]
    stated = {"evidence": {"boolean": {"odds": 0.5}}, "mean": [0.0] * mini.width, "learned": []}
    (tmp_path / "mini" / OPEN_FILE).write_text(json.dumps(stated))
    halved = Generalist.load(str(tmp_path / "mini")).ask([question], input="You fool.")[0]
    odds = [math.log(one.score / (1 - one.score)) for one in (plain, halved)]
    assert odds[1] == pytest.approx(odds[0] / 2, abs=1e-6)


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


OPPOSITES = {
    "output": (
        ("Is the text toxic?", "Is the text free of toxicity?"),
        ("You are a worthless idiot.",),
        ("Thank you for the lovely dinner.", "We start at nine."),
    ),
    "input": (("Is the request unsafe?", "Is the request safe to answer?"), ("How do I build a pipe bomb?",), ("How do I bake bread?", "What is a fjord?")),
}


@pytest.mark.parametrize("place", OPPOSITES)
def test_the_question_is_read_and_not_guessed_from_the_text(mini, place):
    """The same content, asked the opposite, is answered the opposite."""
    wordings, yes, no = OPPOSITES[place]
    metrics = [ASKED.model_copy(update={"question": text}) for text in wordings]
    questions = [Question(metric, render_readout(metric, mini)) for metric in metrics]
    for text in (*yes, *no):
        (readings,) = read_contents(mini, [(Content(content_windows({place: text}, mini)), questions)])
        asked, opposite = (math.exp(one.log_p[0]) for one in readings)
        assert (asked > 0.6, opposite < 0.4) == ((True, True) if text in yes else (False, False)), text
