"""Mixtures: a recipe's faults are named; draws are a function of seed and number, balanced, and never of what is left out or held back."""

import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from snapjudge.core.example import plain_text
from snapjudge.curate.made import copied, expanded, scoped
from snapjudge.curate.mixture import Mixture
from snapjudge.curate.recipe import Recipe, read_recipe, read_templates
from snapjudge.curate.surface import surface_question
from snapjudge.errors import DataInvalid, OptionInvalid
from tests.conftest import shared

TASKS = {
    "rude": {
        "files": ["manners/forum", "manners/mail"],
        "benign": ["topics/shop"],
        "inputs": ["output"],
        "rename": ["input"],
        "questions": ["Is it rude?", "Rude?"],
        "opposites": ["Is it civil?"],
        "words": [["rude", "kind"]],
        "never_in": ["topics/shop"],
    },
    "topic": {
        "files": ["topics/shop"],
        "facets": [{"field": "category", "ask": ["Is it about {name}?"], "names": "auto", "skip": ["other"]}],
        "choices": [{"field": "category", "ask": ["Which: {options}?"], "names": {"pay_ment": "money", "parcel": "parcel", "return": "return"}}],
    },
    "grounded": {
        "files": ["ground/news"],
        "questions": ["Is it supported?"],
        "made": [
            {"kind": "copied", "files": ["ground/news"], "count": 20},
            {"kind": "grounding", "files": ["ground/news"], "where": "True", "count": 10, "label": "False"},
            {"kind": "scope", "files": ["topics/shop"], "count": 6},
            {"kind": "relabelled", "files": ["manners/mail"], "count": 5, "label": "False"},
        ],
    },
    "written": {"templates": ["texts.yaml"], "questions": ["Is it a threat?"], "inputs": ["input"]},
}
TEMPLATES = {
    "slots": {"who": ["him", "her", "them"]},
    "rows": [{"label": "True", "inputs": {"input": "I will get {who}."}}, {"label": "False", "inputs": {"input": "call {who}"}}],
}


def row(number, label, group=None, category=None, **inputs):
    return {"id": str(number), "inputs": inputs, "label": label, "meta": {"group": group or f"g{number}", "category": category}}


@pytest.fixture
def folder(tmp_path):
    rng = random.Random(0)
    words = ["harbour", "lantern", "parcel", "winter", "valley", "bridge", "teacher", "garden", "copper", "number"]

    def text():
        return " ".join(rng.choices(words, k=8))

    files = {
        "manners/forum": [row(n, n % 4 == 0, output=f"{text()} {n}") for n in range(120)],
        "manners/mail": [row(n, n % 2 == 0, output=f"dear {text()} {n}") for n in range(60)],
        "topics/shop": [row(n, False, category=("pay_ment", "parcel", "return", "other")[n % 4], input=f"{text()} {n}") for n in range(80)],
        "ground/news": [
            row(
                n,
                n % 2 == 0,
                context=f"The bridge of Aston opened in 19{n:02d}. It is {n} metres long. {text().capitalize()}.",
                output=f"It opened in 19{n:02d}.",
            )
            for n in range(60)
        ],
    }
    for name, rows in files.items():
        path = tmp_path / "data" / f"{name}.train.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"name": "small", "noise": 0, "surface": 0, "tasks": TASKS}))
    (tmp_path / "texts.yaml").write_text(yaml.safe_dump(TEMPLATES))
    return tmp_path


def mixture(folder, **options):
    return Mixture(read_recipe(folder / "recipe.yaml"), folder, folder / "data", seed=1, **options)


def test_a_draw_is_a_function_of_seed_and_number(folder):
    one, two = mixture(folder), mixture(folder)
    assert [one.draw(n) for n in (5, 900, 3)] == [two.draw(n) for n in (5, 900, 3)]
    assert one.draw(5) != one.draw(6)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"inputs": {', "broken JSON"),
        ('{"label": true}', "found none of the fields"),
        ('{"inputs": {"output": " "}, "label": true}', "an empty text"),
        ('{"inputs": {"output": 3}, "label": true}', "a number"),
        ('{"inputs": {"output": "x"}}', "label: found nothing"),
        ('{"inputs": {"output": "x"}, "label": "maybe"}', "'maybe'; expected true or false"),
        ('{"inputs": {"output": "x"}, "label": true, "meta": {"category": "[a"}}', "meta.category: found '[a'"),
        ("[1]", "found list"),
    ],
)
def test_a_line_that_nothing_can_be_learned_from_is_named_with_its_file(folder, line, said):
    path = folder / "data" / "manners" / "mail.train.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:6], line, *lines[6:]]))
    with pytest.raises(DataInvalid) as caught:
        mixture(folder)
    assert "mail.train.jsonl: 1 problem" in caught.value.message
    assert "line 7" in caught.value.message
    assert said in caught.value.message


def test_true_and_false_count_however_they_are_written(folder):
    path = folder / "data" / "manners" / "mail.train.jsonl"
    straight = mixture(folder).rows["rude"]
    path.write_text(path.read_text().replace('"label": true', '"label": "TRUE"').replace('"label": false', '"label": "false"'))
    assert mixture(folder).rows["rude"] == straight


@pytest.mark.parametrize(("label", "said"), [(True, "with no"), (False, "with yes")])
def test_a_task_with_one_answer_only_is_refused(folder, label, said):
    for name in ("forum", "mail"):
        path = folder / "data" / "manners" / f"{name}.train.jsonl"
        path.write_text("\n".join(json.dumps({**json.loads(line), "label": label}) for line in path.read_text().splitlines()))
    alone = {name: value for name, value in TASKS["rude"].items() if name not in ("benign", "never_in")}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"name": "small", "tasks": {"rude": alone}}))
    with pytest.raises(OptionInvalid, match=f"no row answers its questions {said}"):
        mixture(folder)


def test_yes_and_no_are_drawn_equally_often(folder):
    found = Counter()
    one = mixture(folder, without=["topic", "written", "grounded"])
    for number in range(2000):
        for posed in one.draw(number)[1]:
            found["opposite" if "civil" in posed.text.lower() else "own", posed.answer] += 1
    for kind in ("own", "opposite"):
        share = found[kind, 0] / (found[kind, 0] + found[kind, 1])
        assert 0.42 < share < 0.58, found


def test_tasks_are_drawn_by_their_weights_and_files_by_the_root_of_their_size(folder):
    one, tasks, files = mixture(folder, weights={"rude": 3.0, "topic": 1.0, "grounded": 0.5, "written": 0.5}), Counter(), Counter()
    by_text = {plain_text(row.inputs): row.file for row in one.rows["rude"]}
    for number in range(3000):
        inputs, asked = one.draw(number)
        tasks[asked[0].task if asked else "none"] += 1
        files[by_text.get(plain_text(inputs), "none")] += 1
    for name, share in (("rude", 0.6), ("grounded", 0.1), ("written", 0.1)):
        assert 0.85 * share < tasks[name] / 3000 < 1.15 * share, tasks
    sizes = Counter(row.file for row in one.rows["rude"])
    expected = (sizes["manners/mail"] / sizes["manners/forum"]) ** 0.5
    assert 0.75 * expected < files["manners/mail"] / files["manners/forum"] < 1.35 * expected, files


def test_now_and_then_a_text_is_asked_what_its_file_never_answers_yes_to(folder):
    one = mixture(folder)
    asked = [(plain_text(inputs), posed) for number in range(2000) for inputs, questions in [one.draw(number)] for posed in questions]
    shop = {plain_text(row.inputs) for row in one.rows["topic"]}
    wrong = [posed for text, posed in asked if text in shop and posed.task == "rude"]
    assert len(wrong) > 40
    assert all((posed.words[posed.answer] in ("no", "kind")) != ("civil" in posed.text.lower()) for posed in wrong)


def test_options_and_answer_words_are_listed_in_any_order(folder):
    one, places, first = mixture(folder), Counter(), Counter()
    for number in range(2000):
        for posed in one.draw(number)[1]:
            if posed.text.startswith("Which") and len(posed.words) == 3:
                places[posed.answer] += 1
            if posed.words == ("rude", "kind"):
                first[posed.text.split()[-3]] += 1
    assert set(places) == {0, 1, 2}
    assert max(places.values()) < 0.5 * sum(places.values())
    assert min(first["rude"], first["kind"]) > 0.3 * sum(first.values())


def test_answers_are_those_of_the_labels(folder):
    one = mixture(folder)
    rude = {plain_text(row.inputs): row.answer for row in one.rows["rude"]}
    checked = Counter()
    for number in range(1500):
        inputs, asked = one.draw(number)
        for posed in asked:
            if posed.task == "rude" and plain_text(inputs) in rude:
                yes = posed.words[posed.answer] in ("yes", "rude")
                assert (yes != ("civil" in posed.text.lower())) == rude[plain_text(inputs)], posed
                checked[posed.words] += 1
            if posed.task == "topic" and posed.text.startswith("Which"):
                assert posed.words[posed.answer] in posed.text
                checked["choice"] += 1
            if posed.task == "topic" and "other" in posed.text:
                pytest.fail("a skipped value was asked about")
    assert checked["yes", "no"]
    assert checked["rude", "kind"]
    assert checked["choice"]


def test_what_is_left_out_is_never_drawn(folder):
    one = mixture(folder, without=["manners/mail", "topic"])
    drawn = [one.draw(number) for number in range(800)]
    assert not any(plain_text(inputs).startswith("dear") for inputs, _ in drawn)
    assert not any(posed.task == "topic" for _, asked in drawn for posed in asked)
    assert all(not row.file.startswith("manners/mail") for rows in one.rows.values() for row in rows)


def test_held_back_groups_are_never_drawn_nor_made_from(folder):
    one = mixture(folder)
    kept = {row.group for row in one.held_back["grounded"]}
    assert kept
    assert not kept & {row.group for row in one.rows["grounded"]}


def test_a_share_of_the_rows_is_the_same_rows_always(folder):
    half = mixture(folder, share=0.5)
    groups = {row.group for row in half.rows["rude"] if row.file == "manners/forum"}
    assert 30 < len(groups) < 90
    assert groups <= {row.group for row in mixture(folder, share=0.8).rows["rude"] if row.file == "manners/forum"}
    labelled = [{row.group for row in one.held_back["rude"] if row.file.startswith("manners/")} for one in (half, mixture(folder))]
    assert labelled[0] == labelled[1] != set()


def test_without_instructions_the_tasks_name_is_asked_and_never_contradicts_a_label(folder):
    plain = mixture(folder, instructions=False)
    answers = {}
    for number in range(400):
        inputs, posed = plain.draw(number)
        assert len(posed) <= 1
        for one in posed:
            assert one.text == f"{one.task}:"
            answers.setdefault(one.task, set()).add((str(sorted(inputs.items())), one.answer))
    assert {"rude", "grounded", "written"} <= set(answers)
    for pairs in answers.values():
        texts = [text for text, _ in pairs]
        assert len(texts) == len(set(texts))


def test_faults_are_named(folder):
    with pytest.raises(OptionInvalid, match="nothing in the recipe is called 'manners/none'"):
        mixture(folder, without=["manners/none"])
    with pytest.raises(OptionInvalid, match="nothing is left"):
        mixture(folder, without=list(TASKS))
    (folder / "data" / "topics" / "shop.train.jsonl").unlink()
    with pytest.raises(OptionInvalid, match=r"shop\.train\.jsonl does not exist"):
        mixture(folder)
    (folder / "recipe.yaml").write_text("name: x\ntasks: {a: {weight: -1, qestions: [b]}}")
    with pytest.raises(OptionInvalid, match=r"tasks\.a\.weight.*; tasks\.a\.qestions"):
        read_recipe(folder / "recipe.yaml")
    (folder / "recipe.yaml").write_text("name: [")
    with pytest.raises(OptionInvalid, match="cannot read"):
        read_recipe(folder / "recipe.yaml")
    (folder / "texts.yaml").write_text("rows: []")
    with pytest.raises(OptionInvalid, match="rows: Tuple"):
        read_templates(folder / "texts.yaml")


def test_answer_words_stay_words():
    recipe = Recipe.model_validate({"name": "x", "tasks": {"a": {"words": [["yes", "no"]], "questions": ["b"]}}})
    assert recipe.tasks["a"].words == (("yes", "no"),)


def test_the_recipe_of_mini_asks_only_what_its_words_can_answer(mini):
    """Every wording fits the readout and every answer word is one token."""
    from snapjudge.curate.mixture import Posed
    from snapjudge.flows.pretrain import Asking

    asking = Asking(mini)
    recipe = read_recipe(Path(__file__).resolve().parents[2] / "recipes" / "mini" / "recipe.yaml")
    for name, task in recipe.tasks.items():
        for words in (("yes", "no"), *task.words):
            for text in (*task.questions, *task.opposites):
                assert asking.question(Posed(text, tuple(words), 0, name)) is not None, (name, text, words)
        for choice in task.choices:
            words = tuple(sorted(set(choice.names.values())))
            assert asking.question(Posed(choice.ask[0].format(options=", ".join(words[:9])), words, 0, name)) is not None, (name, words)


def test_the_recipe_of_mini_reads_every_file_that_may_train_a_published_model_and_no_other():
    table = shared("data/README.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ") and ".train.jsonl" in line]
    may = {name.removesuffix(".train.jsonl"): published == "yes" for name, *_, published in rows}
    read = set(read_recipe(Path(__file__).resolve().parents[2] / "recipes" / "mini" / "recipe.yaml").files)
    assert sum(may.values()) > 40
    assert read == {name for name, published in may.items() if published}


def test_templates_are_filled_and_unknown_slots_named(folder):
    path = folder / "texts.yaml"
    path.write_text(yaml.safe_dump({"invented": {"who": "name", "where": "city"}, "rows": [{"label": "True", "inputs": {"output": "{who} of {where} {{x}}"}}]}))
    rows = expanded(read_templates(path), 0)
    assert len({inputs["output"] for _, inputs, _, _ in rows}) > 100
    assert all(inputs["output"].endswith("{x}") and " of " in inputs["output"] for _, inputs, _, _ in rows)
    spec = {
        "invented": {"card": "credit_card_number_long_in_fours"},
        "slots": {"used": ["paid with {card}"]},
        "rows": [{"label": "True", "inputs": {"output": "I {used}."}}],
    }
    path.write_text(yaml.safe_dump(spec))
    assert all(re.fullmatch(r"I paid with (\d{4} ){3,}\d{1,4}\.", inputs["output"]) for _, inputs, _, _ in expanded(read_templates(path), 0))
    twice = {**spec, "slots": {**spec["slots"], "twice": ["have {used}"]}, "rows": [{"label": "True", "inputs": {"output": "I {twice}."}}]}
    path.write_text(yaml.safe_dump(twice))
    assert all(re.fullmatch(r"I have paid with (\d{4} ){3,}\d{1,4}\.", inputs["output"]) for _, inputs, _, _ in expanded(read_templates(path), 0))
    path.write_text(yaml.safe_dump({**twice, "slots": {"used": ["{twice} {card}"], "twice": ["have {used}"]}}))
    with pytest.raises(OptionInvalid, match=r"slots hold each other: '(used|twice)' in '(used|twice)' in '(used|twice)'"):
        read_templates(path)
    path.write_text(yaml.safe_dump({"rows": [{"label": "True", "inputs": {"output": "{whom}"}}]}))
    with pytest.raises(OptionInvalid, match="no slot is called 'whom'"):
        read_templates(path)
    path.write_text(yaml.safe_dump({"invented": {"who": "nobodys_name"}, "rows": [{"label": "True", "inputs": {"output": "{who}"}}]}))
    with pytest.raises(OptionInvalid, match="Faker makes no 'nobodys_name'"):
        expanded(read_templates(path), 0)
    path.write_text(yaml.safe_dump({"invented": {"who": "century_long"}, "rows": [{"label": "True", "inputs": {"output": "{who}"}}]}))
    with pytest.raises(OptionInvalid, match="no 'century' is as long as 14"):
        expanded(read_templates(path), 0)


def test_copied_sentences_are_of_the_context_or_foreign():
    parents = [({"context": f"The first note of {n} is long enough. The second note of {n} is long, too.", "output": "x"}, f"g{n}") for n in range(9)]
    rows = copied(parents, 40, random.Random(0))
    assert {grounded for _, grounded, _ in rows} == {True, False}
    assert all((inputs["output"] in inputs["context"]) == grounded for inputs, grounded, _ in rows)


def test_scopes_hold_the_topic_or_not():
    topics = [(f"text about {name}", name, name) for name in ("tea", "cars", "boats", "bread", "rain", "wood", "songs", "trams", "soap", "wool", "ink")]
    for inputs, off, group in scoped(topics, 60, random.Random(0)):
        assert (group in inputs["context"].split(": ")[-1].rstrip(".").replace("about ", "").split(", ") or f"about {group}" in inputs["context"]) != off, (
            inputs
        )


def test_surface_questions_are_answered_right():
    rng = random.Random(0)
    inputs = {"context": "x", "output": "Lanterns hang over 3 doors?"}
    answers = {surface_question(inputs, ["harbour"], rng) for _ in range(300)}
    truth = dict(answers)
    assert len(truth) == len(answers)  # one answer to each question
    assert truth["Does the output contain the word lanterns?"]
    assert not truth["Does the output contain the word harbour?"]
    assert truth["Is there a number in the output?"]
    assert truth["Does the output have a question mark?"]
    assert not truth["Does the output have more than 5 words?"]
