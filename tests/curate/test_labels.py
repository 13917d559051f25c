"""Labels as events: nothing lost, nothing twice, the current label derived."""

import json
import multiprocessing
from datetime import UTC, datetime, timedelta

import pytest

from snapjudge.curate.agreement import MISSING
from snapjudge.curate.labels import LabelEvent, append_labels, current_labels, read_labels, vote_matrix
from snapjudge.errors import DataInvalid, InputInvalid, StorageFailed

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def event(example, label, labeler="ana", minutes=0, **more):
    return LabelEvent(example=example, label=label, labeler=labeler, time=NOON + timedelta(minutes=minutes), **more)


def test_what_is_appended_is_read_and_counts_once(tmp_path):
    path = tmp_path / "set" / "labels.jsonl"
    events = [event("1", "bad", rationale="Ärger ☕"), event("2", "fine", confidence=0.5), event("1", "fine", "ben")]
    assert append_labels(path, events) == 3
    assert append_labels(path, [*events, event("3", "bad")]) == 1
    assert read_labels(path).events == (*events, event("3", "bad"))
    assert read_labels(tmp_path / "none.jsonl").events == ()


def test_a_file_cut_in_the_middle_keeps_everything_before_it(tmp_path):
    path = tmp_path / "labels.jsonl"
    append_labels(path, [event("1", "bad"), event("2", "fine")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    file = read_labels(path)
    assert [one.example for one in file.events] == ["1"]
    assert file.cut
    assert append_labels(path, [event("2", "fine")]) == 1
    assert path.read_bytes() == whole
    assert file.cut in (tmp_path / "labels.jsonl.cut").read_text()


def _append(path, labeler):
    for number in range(40):
        append_labels(path, [event(str(number), "bad", labeler, number)])


def test_several_processes_at_once_lose_nothing(tmp_path):
    path = tmp_path / "labels.jsonl"
    context = multiprocessing.get_context("spawn")
    people = [context.Process(target=_append, args=(path, name)) for name in ("ana", "ben", "cy")]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert len(read_labels(path).events) == 120
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_lines_that_are_no_events_are_all_named_and_nothing_is_added(tmp_path):
    path = tmp_path / "labels.jsonl"
    append_labels(path, [event("1", "bad")])
    with path.open("a") as file:
        file.write('{"example": "2"}\nnot json\n')
    before = path.read_bytes()
    with pytest.raises(DataInvalid) as raised:
        append_labels(path, [event("3", "fine")])
    assert {problem.path.split(":")[1] for problem in raised.value.problems} == {"2", "3"}
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageFailed, match="cannot add"):
        append_labels(tmp_path / "file" / "labels.jsonl", [event("1", "bad")])


def test_the_current_label_is_settled_agreed_single_or_disputed():
    events = [
        event("agreed", "bad"), event("agreed", "bad", "ben"), event("single", "fine"), event("disputed", "bad"), event("disputed", "fine", "ben"),
        event("changed", "bad"), event("changed", "fine", minutes=5), event("changed", "fine", "ben"),
        event("settled", "bad"), event("settled", "fine", "ben"), event("settled", "bad", "eve", 9, adjudication=True), event("settled", "fine", "cy", 20),
    ]  # fmt: skip
    now = current_labels(events)
    assert {name: (one.label, one.state) for name, one in now.items()} == {
        "agreed": ("bad", "agreed"),
        "single": ("fine", "single"),
        "disputed": (None, "disputed"),
        "changed": ("fine", "agreed"),
        "settled": ("bad", "adjudicated"),
    }
    assert now["changed"].votes == {"ana": "fine", "ben": "fine"}


def test_labels_under_older_criteria_are_stale_until_everyone_who_counts_looked_again():
    events = [event("1", "bad", criteria_version=1), event("1", "bad", "ben", criteria_version=2), event("2", "fine")]
    assert {name: one.stale for name, one in current_labels(events, 2).items()} == {"1": True, "2": True}
    again = [*events, event("1", "bad", minutes=3, criteria_version=2)]
    assert not current_labels(again, 2)["1"].stale
    assert not current_labels(events)["2"].stale


def test_the_latest_vote_of_each_labeler_counts():
    events = [event("1", "bad"), event("1", "fine", minutes=2), event("2", "bad", "ben"), event("2", "bad", "eve", adjudication=True)]
    examples, labelers, votes = vote_matrix(events, ["bad", "fine"])
    assert (examples, labelers) == (["1", "2"], ["ana", "ben"])
    assert votes.tolist() == [[1, MISSING], [MISSING, 0]]
    with pytest.raises(InputInvalid, match="bad"):
        vote_matrix(events, ["fine"])
