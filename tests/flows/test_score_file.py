"""Scoring files: streaming, abstaining, resuming after a kill without losing or repeating a line."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from snapjudge.core.progress import Silent
from snapjudge.errors import Interrupted, OptionInvalid, RunConflict, StorageFailed
from snapjudge.flows.claims import alone
from snapjudge.flows.score_file import ScoreRequest, score_file
from snapjudge.judge import Judge, Panel


@pytest.fixture(scope="module")
def panel(workshop):
    return Panel([Judge.load(workshop[1].folder)])


class Told(Silent):
    """What a run says."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def many(count):
    return [{"id": f"r{n}", "inputs": {"output": f"please answer {n} {'buy' if n % 3 == 0 else 'no'}"}} for n in range(count)]


def test_every_line_of_output_has_the_promised_fields(panel, tmp_path):
    score_file(panel, ScoreRequest(write(tmp_path / "in.jsonl", many(3)), tmp_path / "out.jsonl"))
    for number, line in enumerate(lines_of(tmp_path / "out.jsonl")):
        assert list(line) == ["id", "judge", "label", "score", "probabilities", "confidence", "p_max", "flagged", "windows", "escalate", "zero_shot"]
        assert line["id"] == f"r{number}"
        assert sum(line["probabilities"].values()) == pytest.approx(1.0, abs=1e-12)


def test_a_bad_line_abstains_with_its_reason_and_the_rest_go_on(panel, tmp_path):
    rows = [*many(1), "{broken", {"id": "e", "inputs": {"output": " "}}, {"id": "m", "inputs": {"input": "x"}}, {"id": "n"}, "[]", many(2)[1]]
    result = score_file(panel, ScoreRequest(write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"))
    found = lines_of(tmp_path / "out.jsonl")
    assert [line["id"] for line in found] == ["r0", "line 2", "e", "m", "n", "line 6", "r1"]
    assert result.abstained == 5
    assert "abstained" not in found[0]
    assert "abstained" not in found[-1]
    reasons = [line["abstained"]["message"] for line in found[1:-1]]
    for part, reason in zip(("broken JSON", "empty text", "inputs.output", "inputs.output", "list"), reasons, strict=True):
        assert part in reason
    assert [line["abstained"]["line"] for line in found[1:-1]] == [2, 3, 4, 5, 6]
    told = {"id", "judge", "abstained"}
    assert all(line.keys() == found[0].keys() | told and all(line[name] is None for name in line.keys() - told) for line in found[1:-1])


def test_a_stopped_run_goes_on_and_gives_the_same_file(panel, tmp_path):
    source = write(tmp_path / "in.jsonl", many(400))
    score_file(panel, ScoreRequest(source, tmp_path / "whole.jsonl"))
    for _ in range(2):
        with pytest.raises(Interrupted):
            score_file(panel, ScoreRequest(source, tmp_path / "out.jsonl"), stop=lambda: True)
        assert not (tmp_path / "out.jsonl").exists()
    result = score_file(panel, ScoreRequest(source, tmp_path / "out.jsonl"))
    assert (result.records, result.resumed) == (400, 256)
    assert result.flagged == sum(line["flagged"] for line in lines_of(tmp_path / "out.jsonl")), "of the whole output, not of this run"
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl", "whole.jsonl"]


def test_a_mapped_column_that_no_record_has_is_told(panel, tmp_path):
    rows = [{"id": row["id"], "text": row["inputs"]["output"]} for row in many(150)]
    source = write(tmp_path / "in.jsonl", rows)
    told = Told()
    result = score_file(panel, ScoreRequest(source, tmp_path / "a.jsonl", {"output": "text", "input": "request"}), told)
    assert result.absent == ("request",)
    assert any("request" in line for line in told.lines)
    write(source, [*rows, {"id": "last", "text": "buy", "request": "what?"}])
    assert not score_file(panel, ScoreRequest(source, tmp_path / "b.jsonl", {"output": "text", "input": "request"})).absent


def test_a_run_that_could_judge_nothing_says_so_and_leaves_with_one(workshop, tmp_path):
    source, out = write(tmp_path / "in.jsonl", [{"id": "1", "text": "buy"}]), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "snapjudge.cli", "score", str(source), "--judge", str(workshop[1].folder)]
    for where in (str(out), "-"):
        found = subprocess.run([*command, "--map", "output=txet", "--out", where], capture_output=True, text=True)
        told = found.stderr.replace("\n", " ")
        assert found.returncode == 1
        assert "none of them could be judged" in told
        assert "txet" in told
    assert subprocess.run([*command, "--map", "output=text", "--out", str(out), "--overwrite"], capture_output=True).returncode == 0


def test_output_past_the_record_of_a_killed_run_is_cut_off_not_repeated(panel, tmp_path):
    source = write(tmp_path / "in.jsonl", many(300))
    with pytest.raises(Interrupted):
        score_file(panel, ScoreRequest(source, tmp_path / "out.jsonl"), stop=lambda: True)
    with (tmp_path / "out.jsonl.partial").open("a") as partial:
        partial.write('{"id": "r128", "judge": "says_b')
    score_file(panel, ScoreRequest(source, tmp_path / "out.jsonl"))
    assert [line["id"] for line in lines_of(tmp_path / "out.jsonl")] == [f"r{n}" for n in range(300)]


def test_a_real_kill_in_the_middle_loses_and_repeats_nothing(workshop, tmp_path):
    source, out = write(tmp_path / "in.jsonl", many(6000)), tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "snapjudge.cli", "score", str(source), "--judge", str(workshop[1].folder), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    mark = tmp_path / "out.jsonl.partial.json"
    for _ in range(600):
        if mark.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists(), "the kill came too late to show anything"
    done = json.loads(mark.read_text())["records"]
    assert 0 < done < 6000
    subprocess.run(command, check=True, capture_output=True)
    assert [line["id"] for line in lines_of(out)] == [f"r{n}" for n in range(6000)]


def test_an_existing_output_and_another_runs_partial_are_never_written_over(panel, tmp_path):
    source, out = write(tmp_path / "in.jsonl", many(200)), tmp_path / "out.jsonl"
    out.write_text("precious")
    with pytest.raises(RunConflict, match="exists"):
        score_file(panel, ScoreRequest(source, out))
    assert out.read_text() == "precious"
    score_file(panel, ScoreRequest(source, out, overwrite=True))
    other = tmp_path / "other.jsonl"
    with pytest.raises(Interrupted):
        score_file(panel, ScoreRequest(source, other), stop=lambda: True)
    write(source, [{**many(1)[0], "id": "changed"}, *many(200)[1:]])
    with pytest.raises(RunConflict, match="not those"):
        score_file(panel, ScoreRequest(source, other))
    with pytest.raises(RunConflict, match="another input"):
        score_file(panel, ScoreRequest(write(tmp_path / "in2.jsonl", many(200)), other))
    (tmp_path / "other.jsonl.partial.json").write_text("{")
    with pytest.raises(RunConflict, match="record is broken"):
        score_file(panel, ScoreRequest(source, other))
    with alone(tmp_path / "other.jsonl.partial.lock", "it"), pytest.raises(RunConflict, match="another process is at work on"):
        score_file(panel, ScoreRequest(source, other, restart=True))
    assert score_file(panel, ScoreRequest(source, other, restart=True)).records == 200
    assert not list(tmp_path.glob("*.lock"))
    with pytest.raises(OptionInvalid, match="is what is to be scored"):
        score_file(panel, ScoreRequest(source, source, overwrite=True))


def test_a_file_that_has_grown_is_gone_on_with(panel, tmp_path):
    source, out = write(tmp_path / "in.jsonl", many(140)), tmp_path / "out.jsonl"
    with pytest.raises(Interrupted):
        score_file(panel, ScoreRequest(source, out), stop=lambda: True)
    score_file(panel, ScoreRequest(write(source, many(150)), out))
    assert [line["id"] for line in lines_of(out)] == [f"r{n}" for n in range(150)]


def test_rows_after_a_broken_csv_row_are_scored(panel, tmp_path):
    (tmp_path / "in.csv").write_text('id,output\na,yes\nb,"hel"lo\nc,no\n')
    score_file(panel, ScoreRequest(tmp_path / "in.csv", tmp_path / "out.jsonl"))
    found = lines_of(tmp_path / "out.jsonl")
    assert [line["id"] for line in found] == ["a", "line 3", "c"]
    assert "abstained" in found[1]


NASTY = [
    '{"id": "\\ud800", "inputs": {"output": "fine"}}',
    '{"id": "s", "inputs": {"output": "\\ud800"}}',
    '{"id": "u", "inputs": {"\\ud800": "x"}}',
    '{"id": "z", "inputs": {"output": "\u200b"}}',
    '{"id": ' + "9" * 5000 + ', "inputs": {"output": "x"}}',
    "[" * 100_000,
    '{"id": "l", "inputs": [1]}',
    '{"id": {"a": 1}, "inputs": {"output": "fine"}}',
    '{"id": 7, "inputs": {"output": "fine"}}',
]


def test_nothing_a_line_can_hold_stops_the_run(panel, tmp_path):
    score_file(panel, ScoreRequest(write(tmp_path / "in.jsonl", [*NASTY, many(1)[0]]), tmp_path / "out.jsonl"))
    found = lines_of(tmp_path / "out.jsonl")
    assert len(found) == len(NASTY) + 1
    assert [number for number, line in enumerate(found) if "abstained" not in line] == [0, 7, 8, 9]
    assert found[8]["id"] == 7


def test_a_full_disk_stops_with_an_error_and_the_run_goes_on_later(panel, tmp_path, monkeypatch):
    import errno

    source, out = write(tmp_path / "in.jsonl", many(300)), tmp_path / "out.jsonl"
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(1)
        if len(calls) == 3:  # the second chunk of output
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StorageFailed, match="disk is full"):
            score_file(panel, ScoreRequest(source, out))
    assert score_file(panel, ScoreRequest(source, out)).resumed == 128
    assert [line["id"] for line in lines_of(out)] == [f"r{n}" for n in range(300)]


def test_csv_with_a_column_map_scores_like_json_lines(panel, tmp_path):
    write(tmp_path / "in.jsonl", many(5))
    (tmp_path / "in.csv").write_text("id,text\n" + "".join(f"{row['id']},{row['inputs']['output']}\n" for row in many(5)))
    score_file(panel, ScoreRequest(tmp_path / "in.jsonl", tmp_path / "a.jsonl"))
    score_file(panel, ScoreRequest(tmp_path / "in.csv", tmp_path / "b.jsonl", {"output": "text"}))
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_standard_input_and_output_stream(workshop):
    command = [sys.executable, "-m", "snapjudge.cli", "score", "-", "--judge", str(workshop[1].folder)]
    text = "".join(json.dumps(row) + "\n" for row in many(3)) + "{broken\n"
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["r0", "r1", "r2", "line 4"]


def test_memory_does_not_grow_with_the_file(panel, tmp_path):
    """Records are read and written chunk by chunk: the source is never further ahead than one chunk of the output."""
    ahead = []
    from snapjudge.flows import score_file as module

    real = module.records

    def counted(path, mapping):
        for number, record in enumerate(real(path, mapping), 1):
            written = (tmp_path / "out.jsonl.partial").read_text().count("\n")
            ahead.append(number - written)
            yield record

    module.records = counted
    try:
        score_file(panel, ScoreRequest(write(tmp_path / "in.jsonl", many(500)), tmp_path / "out.jsonl"))
    finally:
        module.records = real
    assert max(ahead) <= module.CHUNK
