"""Synthetic rows: made, cleaned, judged again, verified by a person, and only then used."""

import json
import random

import pytest
from typer.testing import CliRunner

from snapjudge.cli.main import app
from snapjudge.core.metric import Metric
from snapjudge.core.metric_file import dump_metric
from snapjudge.core.progress import Silent
from snapjudge.curate.batches import add_verdict, batch_of, open_sample, read_rows
from snapjudge.curate.dataset import Dataset, labelled
from snapjudge.curate.labels import read_labels
from snapjudge.errors import BudgetSpent, OptionInvalid, RunConflict
from snapjudge.flows.importing import ImportRequest, import_data
from snapjudge.flows.splitting import split_data, splits_of
from snapjudge.flows.synthesis import PerturbRequest, WriteRequest, accept, perturb_data, write_data
from snapjudge.llm.endpoints import Endpoint, Price
from snapjudge.llm.generating import Plan, read_examples, read_plan, wishes
from snapjudge.llm.memory import Memory
from tests.standin import StandIn

METRIC = Metric(
    name="grounded", version=1, type="boolean", inputs=("context", "output"), question="Is it grounded?", labels={"yes": ("yes",), "no": ("no",)}, positive="no"
)
TOWNS = ["Lisbon", "Oslo", "Bonn", "Rome", "Graz", "Lyon", "Turin", "Ghent"]


@pytest.fixture
def dataset(tmp_path):
    rng = random.Random(0)
    lines = []
    for n in range(240):
        town, other = rng.sample(TOWNS, 2)
        context = f"Report {n}: the {town} office, not the one in {other}, sold {n + 20} chairs and {7 * n + 3} desks in {1990 + n % 30}."
        output = (
            f"According to report {n}, {town} sold {n + 20} chairs in {1990 + n % 30}."
            if n % 2
            else f"Report {n} says that {other} sold all its {n + 99} lamps."
        )
        lines.append(json.dumps({"id": str(n), "inputs": {"context": context, "output": output}, "label": n % 2 == 1, "meta": {"group": f"g{n}"}}))
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    found = Dataset(tmp_path / "ds")
    import_data(ImportRequest(tmp_path / "in.jsonl", found, METRIC), Silent())
    found.metric.write_text(dump_metric(METRIC))
    return found


def verified(dataset, name, wrong=0):
    batch = batch_of(dataset, name)
    for number, row in enumerate(open_sample(batch)):
        add_verdict(batch, row["id"], right=number >= wrong, by="ana")
    return batch


def test_perturbed_rows_wait_for_a_person_and_are_then_labelled(dataset):
    found = perturb_data(PerturbRequest(dataset, METRIC, "grounding", "g1", of="yes", label="no", count=60, sample=20))
    assert (found.rows, found.labels, found.sample) == (60, {"no": 60}, 20)
    assert len(found.methods) >= 3
    assert len(labelled(dataset, METRIC).examples) == 240
    with pytest.raises(OptionInvalid, match="not verified"):
        accept(dataset, METRIC, batch_of(dataset, "g1"), fewest=0.75)
    done = accept(dataset, METRIC, verified(dataset, "g1", wrong=1), fewest=0.75)
    assert (done.opens, done.verified, done.right, done.added) == (True, 20, 19, 59)
    assert accept(dataset, METRIC, batch_of(dataset, "g1"), fewest=0.75).added == 0
    rows = labelled(dataset, METRIC).examples
    assert len(rows) == 299
    assert rows[-1].provenance.parent
    events = read_labels(dataset.labels).events[240:]
    assert {(event.source, event.labeler) for event in events} == {("expert", "ana"), ("synthetic", "batch g1")}


def test_a_batch_that_a_person_finds_wrong_too_often_stays_out(dataset):
    perturb_data(PerturbRequest(dataset, METRIC, "grounding", "g1", of="yes", label="no", count=60, sample=20))
    done = accept(dataset, METRIC, verified(dataset, "g1", wrong=4), fewest=0.75)
    assert not done.opens
    assert done.low < 0.75 < done.high
    assert len(labelled(dataset, METRIC).examples) == 240


def test_rows_are_never_made_from_the_test_or_near_it(dataset):
    split_data(dataset, METRIC, size=60)
    splits = splits_of(dataset, METRIC)
    perturb_data(PerturbRequest(dataset, METRIC, "noise", "n1", count=200))
    parents = {row["meta"]["parent"] for row in read_rows(batch_of(dataset, "n1"))}
    assert parents
    assert all(splits[parent] not in ("test", "held") for parent in parents)
    accept(dataset, METRIC, verified(dataset, "n1"), fewest=0.5)
    after = splits_of(dataset, METRIC)
    assert {name: after[name] for name in splits} == splits
    assert sum(split == "test" for split in after.values()) == sum(split == "test" for split in splits.values())
    assert all(after[row["id"]] in (splits[row["meta"]["parent"]], "held") for row in read_rows(batch_of(dataset, "n1")))


def test_what_cannot_be_perturbed_is_said(dataset):
    with pytest.raises(OptionInvalid, match="changes what a row is"):
        perturb_data(PerturbRequest(dataset, METRIC, "grounding", "x"))
    with pytest.raises(OptionInvalid, match="no such label"):
        perturb_data(PerturbRequest(dataset, METRIC, "grounding", "x", of="maybe", label="no"))
    with pytest.raises(OptionInvalid, match="no rows"):
        perturb_data(PerturbRequest(dataset, METRIC, "tools", "x", label="no"))
    perturb_data(PerturbRequest(dataset, METRIC, "noise", "x", count=10))
    with pytest.raises(RunConflict):
        perturb_data(PerturbRequest(dataset, METRIC, "noise", "x", count=10))
    with pytest.raises(OptionInvalid, match="cannot be a batch"):
        perturb_data(PerturbRequest(dataset, METRIC, "noise", "../../escaped", count=10))
    with pytest.raises(OptionInvalid, match="no batch"):
        batch_of(dataset, "y")


class Writer:
    """A model that writes rows for the metric, now and then a wrong, a broken or a repeated one; and judges them by their numbers."""

    def __init__(self, wrong=0.15):
        self.rng, self.wrong, self.count = random.Random(1), wrong, 0

    def __call__(self, body):
        if "write realistic examples" not in body["messages"][0]["content"]:
            text = body["messages"][1]["content"]
            facts, claim = text.split("</context", 1)
            number = claim.split(" sold ")[1].split(" ")[0]
            return json.dumps({"label": "yes" if f"sold {number} " in facts else "no"})
        rows = []
        for pair in range(2):
            for label in ("yes", "no"):
                self.count += 1
                town = self.rng.choice(TOWNS)
                number = self.rng.randrange(1000)
                said = number if label == "yes" else number + 7
                claimed = label if self.rng.random() >= self.wrong else {"yes": "no", "no": "yes"}[label]
                names = f"{self.rng.randrange(10**9):x} {self.rng.randrange(10**9):x} {self.rng.randrange(10**9):x}"
                rows.append(
                    {
                        "inputs": {"context": f"Note {names}: {town} sold {number} cups.", "output": f"By note {names}, {town} sold {said} cups."},
                        "label": claimed,
                        "pair": pair,
                    }
                )
        rows.append({"inputs": {"output": "no context"}, "label": "yes"})
        rows.append({"inputs": rows[0]["inputs"], "label": "perhaps"})
        return json.dumps({"examples": rows})


def write(dataset, endpoints, **more):
    with Memory(dataset.folder / "answers.sqlite") as memory:
        return write_data(WriteRequest(dataset, METRIC, endpoints[0], endpoints[1:], Plan(), "w1", **{"count": 80, **more}), memory, Silent())


def test_written_rows_are_judged_again_cleaned_and_traced(dataset):
    trouble = {"html": 0.03, "prose": 0.03, "refusal": 0.03, "rate_limit": 0.05}
    with StandIn(Writer(), trouble=trouble, seed=4) as writer, StandIn(Writer()) as second:
        names = Endpoint(name="w", base_url=writer.url, model="m", timeout=5), Endpoint(name="s", base_url=second.url, model="m2", timeout=5)
        found = write(dataset, names)
    assert found.counts["taken back by the writer"] > 3
    assert found.counts["unusable"] >= 30
    assert 40 < found.rows < 80
    rows = read_rows(batch_of(dataset, "w1"))
    for row in rows:
        number = row["inputs"]["output"].split(" sold ")[1].split(" ")[0]
        assert (row["label"] == "yes") == (f"sold {number} " in row["inputs"]["context"])
        assert row["meta"]["method"] == "written pair"
        assert row["meta"]["seed"].startswith("0.")
    assert set(found.labels) == {"yes", "no"}


def test_a_row_that_other_judges_see_otherwise_goes_to_review(dataset):
    with StandIn(Writer(wrong=0)) as writer, StandIn(lambda body: '{"label": "yes"}') as other:
        names = Endpoint(name="w", base_url=writer.url, model="m"), Endpoint(name="o", base_url=other.url, model="m2")
        found = write(dataset, names, count=20)
    assert set(found.labels) == {"yes"}
    queue = [json.loads(line) for line in (dataset.folder / "review.jsonl").read_text().splitlines()]
    assert len(queue) == found.counts["to review"] > 0
    assert queue[0]["votes"] == {"w": "no", "o": "yes"}


def test_near_duplicates_of_the_data_are_dropped(dataset):
    known = labelled(dataset, METRIC).examples[1].inputs
    reply = {"examples": [{"inputs": {name: text + "!" for name, text in known.items()}, "label": "yes"}]}
    with StandIn(lambda body: json.dumps(reply)) as server, pytest.raises(OptionInvalid, match="no rows"):
        write(dataset, [Endpoint(name="w", base_url=server.url, model="m")], count=4)


def test_writing_is_paid_for_within_the_budget_and_goes_on(dataset):
    with StandIn(Writer(wrong=0)) as server:
        priced = Endpoint(name="w", base_url=server.url, model="m", price=Price(input=50, output=50), concurrency=1)
        with pytest.raises(BudgetSpent, match="no budget"):
            write(dataset, [priced], count=20)
        with pytest.raises(BudgetSpent, match="spent"):
            write(dataset, [priced], count=20, max_cost=0.08)
        asked = sum(server.asked.values())
        assert asked > 0
        found = write(dataset, [priced], count=20, max_cost=5)
        assert found.rows == 20
        assert max(server.asked.values()) == 1, "nothing was asked twice"


def test_a_plan_covers_its_cells_and_is_checked(tmp_path):
    plan = Plan(topics=("loans", "taxes"), styles=("plain",), languages=("English", "German"), lengths=("short",), pair_share=0.5)
    asked = wishes(plan, METRIC, 160, 0)
    assert len(asked) == 40
    assert {(one.topic, one.language) for one in asked} == {(t, lang) for t in plan.topics for lang in plan.languages}
    assert {one.label for one in asked} == {"yes", "no"}
    assert 10 < sum(one.shape == "pair" for one in asked) < 30
    (tmp_path / "p.yaml").write_text("topics: []\nstyle: x")
    with pytest.raises(OptionInvalid, match="topics"):
        read_plan(tmp_path / "p.yaml")
    assert read_examples("[]", METRIC) == ([], 1)
    assert read_examples('{"examples": [3, {"inputs": {}, "label": "yes"}]}', METRIC) == ([], 2)


def test_a_person_verifies_in_the_terminal_leaves_and_comes_back(dataset):
    run = CliRunner().invoke
    made = run(app, ["data", "synthesise", str(dataset.folder), "--perturb", "noise", "--count", "20", "--sample", "10", "--name", "n"])
    assert made.exit_code == 0, made.output
    assert "20 rows wait in batch n" in made.output
    first = run(app, ["data", "verify", str(dataset.folder), "n", "--labeler", "ana"], input="y\nx\ny\nq\n")
    assert first.exit_code == 0
    assert "goes on" in first.output
    rest = run(app, ["data", "verify", str(dataset.folder), "n", "--labeler", "ana", "--min-acceptance", "0.6"], input="y\n" * 8)
    assert "1 of 8" in rest.output
    assert "20 rows are in the data set" in rest.output
    refused = run(app, ["data", "synthesise", str(dataset.folder), "--perturb", "sound"])
    assert refused.exit_code == 2
