"""Perturbations change what they say they change, and nothing else."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from snapjudge.core.example import Example, Provenance
from snapjudge.curate.perturb.attacks import attack, harmless, placed
from snapjudge.curate.perturb.grounding import CORRUPTIONS
from snapjudge.curate.perturb.noise import NOISES, diluted, noisy_fields
from snapjudge.curate.perturb.rows import KINDS, perturb
from snapjudge.curate.perturb.tools import TOOL_CORRUPTIONS

CONTEXT = "Anna Berg opened the Lisbon office in March 2019 with 1,200 people. Peter Lund runs the Oslo branch. It is 40 km from the sea."
ANSWER = "The office in Lisbon was opened by Anna Berg in March 2019 with 1,200 people. It is 40 km from the sea."
OTHERS = ["The museum in Prague closes at eight on every second Friday of the month."]


def rows(count=40, **fields):
    made = []
    for n in range(count):
        inputs = {name: (text(n) if callable(text) else text) for name, text in fields.items()}
        made.append(Example(id=str(n), inputs=inputs, target=(1.0, 0.0), provenance=Provenance(source="s", group=f"g{n}", licence="MIT")))
    return made


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("seed", range(5))
def test_a_corruption_changes_one_fact_and_keeps_most_of_the_text(name, seed):
    changed = CORRUPTIONS[name](ANSWER, CONTEXT, OTHERS, random.Random(seed))
    assert changed not in (None, ANSWER)
    if name == "foreign sentence":
        assert OTHERS[0] in changed
    else:
        words = set(ANSWER.split()) & set(changed.split())
        assert len(words) >= len(set(ANSWER.split())) - 3
    assert CORRUPTIONS[name](ANSWER, CONTEXT, OTHERS, random.Random(seed)) == changed


def test_corruptions_say_nothing_where_there_is_nothing_to_change():
    for name, corrupt in CORRUPTIONS.items():
        if name != "foreign sentence":
            assert corrupt("hello there", "hello", [], random.Random(0)) is None, name
    assert CORRUPTIONS["negation"]("It is not true.", "", [], random.Random(0)) == "It is true."
    negate = CORRUPTIONS["negation"]
    assert negate("You can't return it.", "", [], random.Random(0)) == "You can return it."
    assert negate("It won't open.", "", [], random.Random(0)) == "It will open."
    assert CORRUPTIONS["unit swap"]("It won't open.", "", [], random.Random(0)) is None
    assert CORRUPTIONS["entity swap"](ANSWER, CONTEXT, OTHERS, random.Random(1)) is not None


@pytest.mark.parametrize("name", NOISES)
def test_noise_keeps_the_words_and_is_repeatable(name):
    text = "Please tell me at once where the three old keys are. I cannot open this box."
    noisy = NOISES[name](text, random.Random(3))
    assert noisy != text
    assert noisy == NOISES[name](text, random.Random(3))
    assert 0.8 * len(text) < len(noisy) < len(text) + 60
    assert NOISES[name]("", random.Random(0)) is not None


def test_noise_leaves_alone_what_would_change_the_verdict():
    call = {"tools": '[{"name": "get_weather"}]', "input": "Will it rain in Bonn?", "output": '{"name": "get_weather"}'}
    answer = {"context": CONTEXT, "output": ANSWER}
    for name in NOISES:
        noisy = noisy_fields(call, name, random.Random(1))
        assert (noisy["tools"], noisy["output"]) == (call["tools"], call["output"])
    for name in ("padding before", "padding after"):
        noisy = noisy_fields(answer, name, random.Random(1))
        assert noisy["output"] == ANSWER
        assert CONTEXT in noisy["context"] != CONTEXT
    assert noisy_fields(answer, "typos", random.Random(1))["output"] != ANSWER


def test_a_text_amid_neutral_sentences_is_still_there():
    for seed in range(20):
        alone = diluted({"output": ANSWER}, random.Random(seed), 5)["output"]
        assert ANSWER in alone
        assert len(alone) < len(ANSWER) + 500
        beside = diluted({"context": CONTEXT, "output": ANSWER}, random.Random(seed), 5)
        assert beside["output"] == ANSWER
        assert CONTEXT in beside["context"]
    assert diluted({"tools": "[]", "output": "{}"}, random.Random(0)) == {"tools": "[]", "output": "{}"}


def test_an_attack_is_placed_between_sentences_and_the_document_stays_whole():
    rng = random.Random(0)
    for _ in range(50):
        for inserted in (attack(rng), harmless(rng)):
            found = placed(CONTEXT, inserted, rng)
            assert inserted.strip() in found
            assert found.replace(inserted.strip(), "").replace(" ", "").replace("\n", "") == CONTEXT.replace(" ", "")


def test_tool_calls_are_corrupted_in_a_way_that_shows():
    tools = [{"name": "get_weather"}, {"type": "function", "function": {"name": "get_news"}}]
    calls = [{"name": "get_weather", "arguments": {"city": "Bonn", "days": 3, "long": True}}, {"name": "get_weather", "arguments": '{"city": "Rome"}'}]
    made = perturb(rows(30, input="?", tools=json.dumps(tools), output=json.dumps(calls)), "tools", 20, 0)
    assert {row.provenance.method for row in made} == set(TOOL_CORRUPTIONS)
    assert all(json.loads(row.inputs["output"]) != calls for row in made)


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_names_its_parent_method_and_seed_and_stays_in_its_group(kind):
    tools = json.dumps([{"name": "a"}, {"name": "b"}])
    output = (lambda n: json.dumps([{"name": "a", "arguments": {"n": n}}])) if kind == "tools" else (lambda n: f"{ANSWER} Number {n}.")
    parents = rows(40, context=CONTEXT, tools=tools, output=output)
    made = perturb(parents, kind, 30, 5)
    assert len(made) == 30
    for row in made:
        parent = parents[int(row.provenance.parent)]
        assert (row.group, row.provenance.seed, row.provenance.licence) == (parent.group, "5", "MIT")
        assert row.provenance.method
        assert row.inputs != parent.inputs
        assert row.target is None
    assert [row.inputs for row in perturb(parents, kind, 30, 5)] == [row.inputs for row in made]
    assert [row.inputs for row in perturb(parents, kind, 30, 6)] != [row.inputs for row in made]
    assert len({row.id for row in made}) == 30


def test_a_kind_that_does_not_fit_gives_nothing():
    assert perturb(rows(5, messages=[{"role": "user", "content": "hi"}]), "grounding", 5, 0) == []
    assert perturb([], "noise", 5, 0) == []


def test_invented_people_are_the_same_in_every_process():
    files = sorted((Path(__file__).parents[2] / "recipes").rglob("*.yaml"))
    recipes = [yaml.safe_load(file.read_text()) for file in files]
    kinds = sorted({kind for one in recipes if isinstance(one, dict) for kind in one.get("invented", {}).values()} | {"nif"})
    assert len(kinds) > 20
    script = f"from snapjudge.curate.perturb.personal import People\npeople = People(3)\nprint([people.invented(kind) for kind in {kinds} for _ in range(60)])"
    told = [
        subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    ]
    assert told[0] == told[1]
