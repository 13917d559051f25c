"""Data files in, problems named with file, line and field; splits that never cut a group or a text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapjudge.core.example import Example, Provenance
from snapjudge.core.metric import Metric
from snapjudge.curate.read import parse_map, read_examples, records
from snapjudge.curate.split import check_enough, check_leak, contradictory, deduplicated, split
from snapjudge.errors import DataInvalid, DataLeak, OptionInvalid, StorageFailed, TooFewExamples
from snapjudge.testing import make_examples

METRIC = Metric(name="m", version=1, type="boolean", inputs=("output",), question="?", labels={"bad": ("yes",), "fine": ("no",)})


def lines(path, *rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8")
    return path


def row(number, label="bad", **more):
    return {"id": f"r{number}", "inputs": {"output": f"text {number}"}, "label": label, **more}


def test_every_bad_line_is_named_in_one_error(tmp_path):
    path = lines(
        tmp_path / "d.jsonl",
        row(1),
        "{broken",
        {"id": "r3", "inputs": {"output": ""}, "label": "bad"},
        {"id": "r4", "inputs": {}, "label": "bad"},
        row(5, "maybe"),
        {"id": "r6", "inputs": {"output": "x"}},
        "[1, 2]",
        '{"id": "r8", "inputs": {"output": "x"}, "label": NaN}',
        "",
        row(10, "fine"),
    )
    with pytest.raises(DataInvalid) as caught:
        read_examples([path], METRIC)
    assert [problem.line for problem in caught.value.problems] == [2, 3, 4, 5, 6, 7, 8]
    text = caught.value.message
    for part in ("d.jsonl", "broken JSON", "an empty text", "inputs.output: found nothing", "'maybe'", "NaN"):
        assert part in text


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_bytes(b'{"id": "a", "inputs": {"output": "\xff"}, "label": true}\n')
    with pytest.raises(DataInvalid, match="not UTF-8"):
        read_examples([path], METRIC)


def test_the_same_id_with_different_labels_names_both_places(tmp_path):
    path = lines(tmp_path / "d.jsonl", row(1), row(2), {**row(1), "label": "fine"})
    with pytest.raises(DataInvalid, match=r"d\.jsonl:3: id.*d\.jsonl:1 with different labels"):
        read_examples([path], METRIC)


def test_at_most_twenty_problems_are_listed_and_the_rest_counted(tmp_path):
    path = lines(tmp_path / "d.jsonl", *["{"] * 50)
    with pytest.raises(DataInvalid, match="50 problems") as caught:
        read_examples([path], METRIC)
    assert len(caught.value.problems) == 20
    assert "and 30 more" in caught.value.message


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageFailed, match=r"nowhere\.jsonl"):
        read_examples([tmp_path / "nowhere.jsonl"], METRIC)


def test_csv_parquet_and_json_lines_read_to_the_same_examples(tmp_path):
    import pyarrow
    from pyarrow import parquet

    texts, labels = ['one, "two"', "three\nfour"], [True, False]
    table = pyarrow.table({"key": ["a", "b"], "text": texts, "verdict": labels, "source": ["s", "s"]})
    parquet.write_table(table, tmp_path / "d.parquet")
    (tmp_path / "d.csv").write_text('key,text,verdict,source\na,"one, ""two""",true,s\nb,"three\nfour",false,s\n', encoding="utf-8")
    lines(tmp_path / "d.jsonl", *({"key": k, "text": t, "verdict": v, "source": "s"} for k, t, v in zip("ab", texts, labels, strict=True)))
    mapping = parse_map(["output=text", "label=verdict", "id=key"])
    found = [read_examples([tmp_path / f"d.{kind}"], METRIC, mapping) for kind in ("parquet", "jsonl")]
    from_csv = read_examples([tmp_path / "d.csv"], METRIC, {**mapping})
    for some in (*found, from_csv):
        assert [(e.id, e.inputs, e.target, e.provenance.source) for e in some] == [
            ("a", {"output": texts[0]}, (1.0, 0.0), "s"),
            ("b", {"output": texts[1]}, (0.0, 1.0), "s"),
        ]


def test_a_csv_without_the_column_says_which_columns_there_are(tmp_path):
    (tmp_path / "d.csv").write_text("text,label\nhello,bad\n")
    with pytest.raises(DataInvalid, match="columns text, label"):
        read_examples([tmp_path / "d.csv"], METRIC)
    with pytest.raises(DataInvalid, match="output=body"):
        read_examples([tmp_path / "d.csv"], METRIC, {"output": "body"})


def test_a_mapped_column_that_no_json_line_has_is_named_first(tmp_path):
    rows = [{"id": str(n), "text": "hello", "label": "bad"} for n in range(30)]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataInvalid) as caught:
        read_examples([tmp_path / "d.jsonl"], METRIC, {"output": "body"})
    assert "--map" in caught.value.problems[0].path
    assert "body" in caught.value.problems[0].found


def test_a_mapped_column_may_be_missing_from_some_json_lines(tmp_path):
    rows = [{"id": "1", "text": "hello", "label": "bad"}, {"id": "2", "text": "hi", "label": "bad", "who": "g"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [e.provenance.group for e in read_examples([tmp_path / "d.jsonl"], METRIC, {"output": "text", "group": "who"})] == ["", "g"]


def test_a_csv_row_with_a_cell_too_many_is_named(tmp_path):
    (tmp_path / "d.csv").write_text("id,output,label\n1,hello,bad\n2,hel,lo,bad\n")
    with pytest.raises(DataInvalid) as caught:
        read_examples([tmp_path / "d.csv"], METRIC)
    assert caught.value.problems[0].line == 3


def test_a_file_that_is_no_parquet_is_refused(tmp_path):
    (tmp_path / "d.parquet").write_text("not parquet")
    with pytest.raises(DataInvalid, match=r"d\.parquet"):
        list(records(tmp_path / "d.parquet"))


@pytest.mark.parametrize("pair", ["output", "=text", "colour=text", "output="])
def test_a_mapping_that_cannot_be_read_names_the_fields(pair):
    with pytest.raises(OptionInvalid, match="--map"):
        parse_map([pair])


def test_provenance_is_kept(tmp_path):
    meta = {"source": "s", "labeler": "ann", "date": "2026-11-01", "criteria_version": 3, "group": "g", "votes": [1, 0]}
    (example,) = read_examples([lines(tmp_path / "d.jsonl", row(1, meta=meta))], METRIC)
    assert example.provenance == Provenance(source="s", labeler="ann", date="2026-11-01", criteria_version=3, group="g")


def test_verdicts_are_labels_or_shares_in_several_forms(tmp_path):
    shares = {"bad": 0.9, "fine": 0.1}
    forms = {"plain": "bad", "shares": shares, "inside": {"label": shares}, "answer": {"label": "bad", "probabilities": shares, "cost": 0.5}, "none": "odd"}
    (example,) = read_examples([lines(tmp_path / "d.jsonl", row(1, verdicts=forms))], METRIC)
    found = {name: (verdict.label, verdict.shares) for name, verdict in example.verdicts.items()}
    assert found == {"plain": ("bad", (1.0, 0.0)), **dict.fromkeys(("shares", "inside", "answer"), ("bad", (0.9, 0.1)))}
    assert example.verdicts["answer"].cost == 0.5


def test_too_few_and_one_class_are_refused():
    with pytest.raises(TooFewExamples, match="19 examples"):
        check_enough(make_examples(19), METRIC, "data")
    with pytest.raises(DataInvalid, match="all bad"):
        check_enough([e for e in make_examples(60) if e.label_index == 0], METRIC, "data")


def test_a_text_or_group_shared_by_train_and_test_is_refused_unless_allowed():
    train = make_examples(30)
    test = [train[3].model_copy(update={"id": "other", "where": "t:1"})]
    with pytest.raises(DataLeak, match="t:1"):
        check_leak(train, test, allow=False)
    assert check_leak(train, test, allow=True) == 1
    grouped = [Example(id="x", inputs={"output": "new"}, target=(1.0, 0.0), provenance=Provenance(group="g"), where="t:2")]
    holder = [Example(id="y", inputs={"output": "old"}, target=(1.0, 0.0), provenance=Provenance(group="g"), where="d:1")]
    with pytest.raises(DataLeak, match="t:2"):
        check_leak(holder, grouped, allow=False)


def test_the_same_text_with_different_labels_is_found():
    examples = make_examples(10)
    other = examples[0].model_copy(update={"id": "other", "target": examples[0].target[::-1]})
    assert contradictory(examples) == []
    assert contradictory([*examples, other]) == [[examples[0], other]]


def test_repeats_are_left_out_once():
    examples = make_examples(10)
    kept, repeated = deduplicated([*examples, examples[0].model_copy(update={"id": "again"})])
    assert (len(kept), repeated) == (10, 1)


SHARES = {"train": 0.6, "validation": 0.1, "calibration": 0.15, "test": 0.15}
ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30), st.booleans()), min_size=1, max_size=80)


@settings(max_examples=60)
@given(rows=ROWS, seed=st.integers(0, 3))
def test_no_group_and_no_text_falls_on_two_sides_and_nothing_is_lost(rows, seed):
    examples = [
        Example(
            id=str(n), inputs={"output": f"text {text}"}, target=(1.0, 0.0) if flag else (0.0, 1.0), provenance=Provenance(group=f"g{group}" if group else "")
        )
        for n, (group, text, flag) in enumerate(rows)
    ]
    parts = split(examples, SHARES, seed)
    assert sorted(e.id for part in parts.values() for e in part) == sorted(e.id for e in examples)
    for key in ("group", "content_key"):
        sides = {}
        for name, part in parts.items():
            for example in part:
                assert sides.setdefault(getattr(example, key), name) == name


def test_many_small_sources_still_fill_every_part():
    examples = [e.model_copy(update={"provenance": Provenance(source=f"s{n // 4}")}) for n, e in enumerate(make_examples(400))]
    for name, part in split(examples, SHARES, 0).items():
        assert len(part) == pytest.approx(400 * SHARES[name], abs=4)


def test_splits_keep_the_shares_of_labels_and_are_repeatable():
    examples = make_examples(400)
    parts = split(examples, SHARES, 0)
    assert parts == split(examples, SHARES, 0)
    assert parts != split(examples, SHARES, 1)
    for name, part in parts.items():
        assert len(part) == pytest.approx(400 * SHARES[name], abs=3)
        assert sum(e.label_index for e in part) == pytest.approx(len(part) / 2, abs=2)
