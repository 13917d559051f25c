"""A data set's folder: rows in once, labels joined, nothing lost; splits that never move."""

import json
import multiprocessing
import random
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.curate.dataset import Dataset, labelled, read_dataset, writing
from snapjudge.curate.frozen import assign, check_frozen, freeze
from snapjudge.curate.labels import LabelEvent, append_labels, read_labels
from snapjudge.curate.near import NearIndex, near_groups
from snapjudge.curate.personal import personal_spans, redacted
from snapjudge.errors import CriteriaChanged, DataInvalid, InputInvalid, OptionInvalid, TestSetChanged, TooFewExamples
from snapjudge.flows.exporting import export_data
from snapjudge.flows.importing import ImportRequest, import_data
from snapjudge.flows.labelling import add_label
from snapjudge.flows.splitting import split_data, splits_of
from snapjudge.testing import make_examples
from tests.workshop import as_line

METRIC = Metric(name="says_buy", version=1, type="boolean", inputs=("output",), question="Buy?", labels={"bad": ("yes",), "fine": ("no",)})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def bring(path, folder, **more):
    return import_data(ImportRequest(path, Dataset(folder), METRIC, **more), Silent())


@pytest.fixture
def filled(tmp_path):
    (tmp_path / "in.jsonl").write_text("\n".join(as_line(e) for e in make_examples(300)) + "\n")
    bring(tmp_path / "in.jsonl", tmp_path / "ds")
    return Dataset(tmp_path / "ds")


def test_the_same_import_twice_adds_nothing(filled, tmp_path):
    again = bring(tmp_path / "in.jsonl", filled.folder)
    assert (again.read, again.added, again.known, again.labels) == (300, 0, 300, 0)
    found = labelled(filled, METRIC)
    assert len(found.examples) == 300
    assert found.examples[0].target == make_examples(300)[0].target


def test_an_import_killed_between_rows_and_labels_goes_on(filled, tmp_path):
    lines = filled.labels.read_bytes().splitlines(keepends=True)
    filled.labels.write_bytes(b"".join(lines[:100]) + lines[100][:20])
    filled.examples.write_bytes(filled.examples.read_bytes()[:-30])
    again = bring(tmp_path / "in.jsonl", filled.folder)
    assert (again.added, again.labels) == (1, 200)
    assert len(labelled(filled, METRIC).examples) == 300
    assert filled.labels.with_name("labels.jsonl.cut").exists()


def test_rows_that_cannot_be_used_are_kept_with_their_reason_and_the_rest_is_imported(tmp_path):
    rows = [
        {"id": "1", "inputs": {"output": "fine text"}, "label": "bad"},
        {"id": "2", "inputs": {"output": ""}},
        {"id": "3", "inputs": {"output": "x"}, "label": "odd"},
    ]
    found = bring(write(tmp_path / "in.jsonl", [*rows, {"id": "1", "inputs": {"output": "another"}}]), tmp_path / "ds")
    assert (found.read, found.added, len(found.rejected)) == (4, 1, 3)
    kept = [json.loads(line) for line in Dataset(tmp_path / "ds").rejected.read_text().splitlines()]
    assert [one["line"] for one in kept] == [2, 3, 4]
    assert "another text" in kept[2]["problems"][0]
    assert len(bring(tmp_path / "in.jsonl", tmp_path / "ds").rejected) == 3
    assert len(Dataset(tmp_path / "ds").rejected.read_text().splitlines()) == 3
    write(tmp_path / "in.jsonl", [rows[0], {**rows[1], "inputs": {"output": "now filled"}}])
    assert not bring(tmp_path / "in.jsonl", tmp_path / "ds").rejected
    assert Dataset(tmp_path / "ds").rejected.read_text() == ""


def test_labels_are_renamed_and_other_fields_kept(tmp_path):
    rows = [{"inputs": {"output": "a text", "context": "seen"}, "label": "toxic"}]
    found = bring(write(tmp_path / "in.jsonl", rows), tmp_path / "ds", labels={"toxic": "bad"}, labeler="ana")
    assert found.labels == 1
    row = json.loads(Dataset(tmp_path / "ds").examples.read_text())
    assert row["inputs"] == {"context": "seen", "output": "a text"}
    assert len(row["id"]) == 16


def test_a_policy_that_changes_needs_a_new_version_and_makes_labels_stale(filled):
    changed = METRIC.model_copy(update={"policy": "something else"})
    with pytest.raises(CriteriaChanged, match="policy"):
        add_label(filled.folder, changed, "e1", "bad", "ana")
    raised = changed.model_copy(update={"version": 2})
    add_label(filled.folder, raised, "e1", "bad", "ana")
    assert labelled(filled, raised, leave_stale=True).stale > 290
    with pytest.raises(InputInvalid, match="no example"):
        add_label(filled.folder, raised, "nobody", "bad", "ana")


def test_disputed_examples_are_left_out_or_get_their_shares(filled):
    wrong = "fine" if labelled(filled, METRIC).examples[0].label_index == 0 else "bad"
    add_label(filled.folder, METRIC, "e0", wrong, "ana")
    assert labelled(filled, METRIC).disputed == 1
    assert labelled(filled, METRIC, disputed="shares").examples[0].target == (0.5, 0.5)


def _label_many(folder, who):
    for number in range(40):
        add_label(folder, METRIC, f"e{number}", "bad", who)


def test_two_processes_labelling_at_once_lose_nothing(filled):
    before = len(filled.labels.read_text().splitlines())
    workers = [multiprocessing.get_context("spawn").Process(target=_label_many, args=(filled.folder, f"p{n}")) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(filled.labels.read_text().splitlines()) == before + 80


def test_redaction_happens_before_anything_is_stored(tmp_path):
    rows = [{"id": "1", "inputs": {"output": "write to ana@example.org or call +49 170 1234567"}, "label": "bad"}]
    found = bring(write(tmp_path / "in.jsonl", rows), tmp_path / "ds", redact=True)
    assert found.redacted == 1
    assert "write to [EMAIL] or call [PHONE]" in Dataset(tmp_path / "ds").examples.read_text()


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("mail bob.smith@mail.example.com", ["email"]),
        ("card 4111 1111 1111 1111 here", ["card"]),
        ("card 4111 1111 1111 1112 here", []),
        ("IBAN DE89 3704 0044 0532 0130 00.", ["iban"]),
        ("ssn 123-45-6789", ["us_ssn"]),
        ("server 203.0.113.7 and version 1.2.3", ["ip_address"]),
        ("call (555) 123-4567 now", ["phone"]),
        ("on 2024-01-02 at 10:30 we sold 1,200,000 units", []),
        ("", []),
    ],
)
def test_personal_data_is_found_by_its_format(text, kinds):
    assert [kind for _, _, kind in personal_spans(text)] == kinds
    if not kinds:
        assert redacted(text) == text


def test_export_and_import_are_inverse(filled, tmp_path):
    for ending in (".jsonl", ".csv", ".parquet"):
        out = tmp_path / f"out{ending}"
        assert export_data(labelled(filled, METRIC).examples, METRIC, {}, out) == 300
        bring(out, tmp_path / ending[1:])
        assert {e.id: e.target for e in labelled(Dataset(tmp_path / ending[1:]), METRIC).examples} == {
            e.id: e.target for e in labelled(filled, METRIC).examples
        }
    with pytest.raises(OptionInvalid):
        export_data([], METRIC, {}, tmp_path / "x.doc")


def test_a_row_never_changes_its_split_when_others_are_added(filled, tmp_path):
    split_data(filled, METRIC, size=60)
    before = splits_of(filled, METRIC)
    more = [e.model_copy(update={"id": f"m{e.id}"}) for e in make_examples(400, seed=5)]
    (tmp_path / "more.jsonl").write_text("\n".join(as_line(e) for e in more) + "\n")
    bring(tmp_path / "more.jsonl", filled.folder)
    after = splits_of(filled, METRIC)
    assert {name: after[name] for name in before} == before
    assert set(after.values()) >= {"train", "validation", "calibration", "test"}
    assert sum(split == "test" for split in after.values()) == sum(split == "test" for split in before.values())
    test = [e for e in labelled(filled, METRIC).examples if after[e.id] == "test"]
    assert 0.4 < sum(e.label_index for e in test) / len(test) < 0.6


def test_rows_near_the_test_or_of_its_groups_are_held_out_of_training(filled):
    rows = read_dataset(filled, METRIC)
    test = freeze(labelled(filled, METRIC).examples, METRIC, size=60)
    member = next(row for row in rows if row.id in test.members)
    longer = member.inputs["output"] + " one more"
    near = member.model_copy(update={"id": "near", "inputs": {"output": member.inputs["output"].upper() + "!"}})
    alike = member.model_copy(update={"id": "alike", "inputs": {"output": longer if len(longer) > 60 else member.inputs["output"] + " x"}})
    grouped = rows[0].model_copy(
        update={"id": "grouped", "inputs": {"output": "quite another"}, "provenance": member.provenance.model_copy(update={"group": member.group})}
    )
    dealt = assign([*rows, near, alike, grouped], test)
    assert dealt["near"][0] == dealt["grouped"][0] == "held"
    assert "near test row" in dealt["near"][1] or "text of a test row" in dealt["near"][1]
    assert all(split != "held" for name, (split, _) in dealt.items() if name.startswith("e"))


def test_a_split_by_time_keeps_the_newest_for_the_test_and_later_rows_out_of_training():
    rows = [
        e.model_copy(update={"provenance": e.provenance.model_copy(update={"date": f"2026-01-{1 + n % 28:02d}T00:{n // 28:02d}:00Z"})})
        for n, e in enumerate(make_examples(280))
    ]
    test = freeze(rows, METRIC, size=50, by_time=True)
    dates = {row.id: row.provenance.date for row in rows}
    assert min(dates[name] for name in test.members) >= max(date for name, date in dates.items() if name not in test.members)
    later = rows[0].model_copy(
        update={"id": "late", "inputs": {"output": "a new one"}, "provenance": rows[0].provenance.model_copy(update={"date": "2026-03-01"})}
    )
    assert assign([*rows, later], test)["late"] == ("held", "not older than the test")
    with pytest.raises(OptionInvalid, match="no date"):
        freeze(make_examples(200), METRIC, size=50, by_time=True)


def test_a_frozen_test_that_was_touched_is_refused(filled):
    split_data(filled, METRIC, size=60)
    rows = read_dataset(filled, METRIC)
    text = filled.test.read_text()
    filled.test.write_text(text.replace('"labels"', '"labels" ', 1).replace("bad", "fine", 1))
    with pytest.raises(TestSetChanged):
        splits_of(filled, METRIC)
    filled.test.write_text(text)
    with pytest.raises(TestSetChanged, match="missing"):
        check_frozen(freeze(labelled(filled, METRIC).examples, METRIC, size=60), rows[:10])
    with pytest.raises(TooFewExamples):
        freeze(rows[:30], METRIC, size=60)


def test_near_duplicates_are_texts_that_share_most_of_their_letters():
    base = "The quick brown fox jumps over the lazy dog and then goes home to sleep for the night."
    pairs = list(near_groups([("a", base), ("b", base.replace("night", "day")), ("c", base.upper() + "!!"), ("d", "Nothing like it at all.")]))
    assert [(name, other) for name, other, _ in pairs] == [("b", "a"), ("c", "a")]
    assert pairs[1][2] == 1.0
    index = NearIndex()
    index.add("empty", "")
    assert index.near("😀😀😀") is None
    index.add("first", base)
    index.add("second", base.replace("night", "day"))
    assert index.near(base.replace("night", "day")) == ("second", 1.0), "a text near one that is there is kept all the same"


def test_a_shared_context_makes_no_two_rows_near_each_other():
    context = " ".join(f"rule {n} of the policy says so" for n in range(150))
    rng = random.Random(0)
    rows = [(str(n), f"{context}\n" + " ".join(f"{rng.randrange(10**6):x}" for _ in range(40))) for n in range(60)]
    assert list(near_groups(rows)) == []
    assert [name for name, _, _ in near_groups([*rows, ("twin", rows[3][1] + " again")])] == ["twin"]


def test_a_broken_line_in_the_folder_is_named(filled):
    with filled.examples.open("a") as file:
        file.write("[]\n")
    with pytest.raises(DataInvalid, match="line 301"):
        read_dataset(filled, METRIC)


def test_freezing_the_test_leaves_the_other_splits_their_shares(tmp_path):
    (tmp_path / "in.jsonl").write_text("\n".join(as_line(e) for e in make_examples(1000)) + "\n")
    bring(tmp_path / "in.jsonl", tmp_path / "ds")
    split_data(Dataset(tmp_path / "ds"), METRIC, size=400)
    splits = list(splits_of(Dataset(tmp_path / "ds"), METRIC).values())
    counts = {name: splits.count(name) for name in ("train", "validation", "calibration")}
    assert counts["validation"] / 600 == pytest.approx(0.12, abs=0.04)
    assert counts["calibration"] / 600 == pytest.approx(0.22, abs=0.05)


def test_synthetic_rows_are_never_in_the_test(filled):
    rows = [e.model_copy(update={"id": f"s{e.id}"}) for e in make_examples(300, seed=3)]
    with writing(filled) as writer:
        writer.add({"id": row.id, "inputs": row.inputs, "meta": {"method": "typos", "parent": "e1"}} for row in rows)
    now = datetime.now(UTC)
    append_labels(filled.labels, [LabelEvent(example=row.id, label="bad", labeler="b", time=now, criteria_version=1, source="synthetic") for row in rows])
    split_data(filled, METRIC, size=60)
    assert all(name.startswith("e") for name in json.loads(filled.test.read_text())["members"])


def test_an_undated_label_may_be_taken_back_and_given_again(tmp_path):
    for label in ("bad", "fine", "bad"):
        bring(write(tmp_path / "in.jsonl", [{"id": "1", "inputs": {"output": "a text"}, "label": label}]), tmp_path / "ds")
    assert labelled(Dataset(tmp_path / "ds"), METRIC).examples[0].label_index == 0
    bring(tmp_path / "in.jsonl", tmp_path / "ds", criteria_version=2)
    assert read_labels(Dataset(tmp_path / "ds").labels).events[-1].criteria_version == 2


def test_a_disk_that_fills_up_leaves_no_fragment(filled):
    before = filled.labels.read_bytes()
    code = (
        "import resource, sys; from pathlib import Path; from datetime import datetime, UTC\n"
        "from snapjudge.curate.labels import LabelEvent, append_labels\n"
        f"path = Path({str(filled.labels)!r}); size = path.stat().st_size\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, size + 1000))\n"
        "events = [LabelEvent(example=str(n), label='x' * 50, labeler='y', time=datetime.now(UTC)) for n in range(100)]\n"
        "try:\n    append_labels(path, events)\nexcept Exception as error:\n    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "StorageFailed", done.stderr
    assert filled.labels.read_bytes() == before


def test_rows_of_other_files_never_stand_for_rows_of_the_test(filled, tmp_path):
    from snapjudge.flows.train_terms import TrainConfig, TrainRequest
    from snapjudge.flows.training_data import read_splits

    split_data(filled, METRIC, size=60)
    (tmp_path / "other.jsonl").write_text("\n".join(as_line(e) for e in make_examples(50, seed=9)) + "\n")
    request = TrainRequest(tmp_path / "m.yaml", [filled.folder, tmp_path / "other.jsonl"], tmp_path)
    with pytest.raises(DataInvalid, match="another text"):
        read_splits(request, TrainConfig(), METRIC, lambda _: None)
    copies = [e.model_copy(update={"id": f"c{e.id}"}) for e in make_examples(300)]
    (tmp_path / "other.jsonl").write_text("\n".join(as_line(e) for e in copies) + "\n")
    found = read_splits(request, TrainConfig(), METRIC, lambda _: None)
    assert {e.id for e in found.test} == set(json.loads(filled.test.read_text())["members"])
    tested = {e.content_key for e in found.test}
    assert not any(e.content_key in tested for e in (*found.train, *found.validation, *found.calibration))


@pytest.mark.parametrize(
    "text", ["card 4111 1111 1111 1111 12/27", "pay 4111111111111111 123", "IBAN DE89370400440532013000 BIC COBADEFFXXX", "DE89 3704 0044 0532 0130 00 EUR 500"]
)
def test_what_follows_personal_data_does_not_hide_it(text):
    assert [kind for _, _, kind in personal_spans(text)] in (["card"], ["iban"])


def test_soft_labels_go_out_to_tables_and_come_back(filled, tmp_path):
    add_label(filled.folder, METRIC, "e0", "fine" if labelled(filled, METRIC).examples[0].label_index == 0 else "bad", "ana")
    for ending in (".csv", ".parquet"):
        export_data(labelled(filled, METRIC, disputed="shares").examples, METRIC, {}, tmp_path / f"o{ending}")
        assert bring(tmp_path / f"o{ending}", tmp_path / ending[1:]).rejected == []
        assert labelled(Dataset(tmp_path / ending[1:]), METRIC).examples[0].target == (0.5, 0.5)
