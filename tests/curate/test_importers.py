"""Importers, one contract: the same conversation and verdicts in every foreign format become the same examples and label events."""

import json
from contextlib import suppress

import pytest

from snapjudge.core.metric import Metric
from snapjudge.core.progress import Silent
from snapjudge.curate.dataset import Dataset, labelled
from snapjudge.curate.importers import IMPORTERS, sniff
from snapjudge.curate.labels import read_labels
from snapjudge.curate.times import moment
from snapjudge.errors import DataInvalid, OptionInvalid, SnapjudgeError
from snapjudge.flows.importing import ImportRequest, import_data

METRIC = Metric(name="toxic", version=1, type="boolean", inputs=("input", "output"), question="Is the answer toxic?", labels={"bad": ("yes",), "fine": ("no",)})
ASKED, ANSWERED = "How do I fix my code?", "Go away, you fool."
TALK = [{"role": "system", "content": "Be nice."}, {"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWERED}]


def _genai_span():
    def attribute(key, value):
        return {"key": key, "value": {"stringValue": value}}

    parts = [{"role": turn["role"], "parts": [{"type": "text", "content": turn["content"]}]} for turn in TALK[1:]]
    evaluation = {
        "name": "gen_ai.evaluation.result",
        "timeUnixNano": "1790000000000000000",
        "attributes": [attribute("gen_ai.evaluation.name", "toxic"), attribute("gen_ai.evaluation.score.label", "bad")],
    }
    span = {
        "traceId": "t1",
        "spanId": "s1",
        "startTimeUnixNano": "1790000000000000000",
        "attributes": [
            attribute("gen_ai.operation.name", "chat"),
            attribute("gen_ai.system_instructions", json.dumps([{"type": "text", "content": "Be nice."}])),
            attribute("gen_ai.input.messages", json.dumps(parts[:1])),
            attribute("gen_ai.output.messages", json.dumps(parts[1:])),
        ],
        "events": [evaluation],
    }
    other = {"traceId": "t1", "spanId": "s0", "attributes": [attribute("http.route", "/chat")]}
    resource = {"attributes": [attribute("service.name", "shop")]}
    return [{"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [other, span]}]}]}]


def _openinference_span():
    attributes = {"openinference.span.kind": "LLM", "session.id": "talk-7", "llm.output_messages.0.message.content": ANSWERED}
    attributes["llm.output_messages.0.message.role"] = "assistant"
    for place, turn in enumerate(TALK[:2]):
        attributes |= {f"llm.input_messages.{place}.message.role": turn["role"], f"llm.input_messages.{place}.message.content": turn["content"]}
    event = {"name": "gen_ai.evaluation.result", "attributes": {"gen_ai.evaluation.name": "toxic", "gen_ai.evaluation.score.label": "bad"}}
    return [{"context": {"trace_id": "t1", "span_id": "s1"}, "attributes": attributes, "events": [event]}]


STATE = {"input": ASKED, "output": ANSWERED}
PREDICATE = {"type": "predicate", "name": "toxic", "probability": 0.875}
FORMATS = {
    "records": [{"id": "1", "inputs": STATE, "label": "bad"}],
    "messages": [{"messages": TALK, "label": "bad"}],
    "spans": _genai_span(),
    "decisions": [
        {
            "request": {
                "model": "m",
                "input": TALK,
                "questions": [{"type": "predicate", "instructions": "else?"}, {"type": "predicate", "name": "toxic", "instructions": "?"}],
            },
            "response": {"model": "m-1", "answers": [{"type": "predicate", "probability": 0.1}, PREDICATE]},
        }
    ],
    "systemone": [
        {
            "request": {"state": STATE, "questions": {"q": {"type": "noul", "instructions": "Is the answer toxic?"}}},
            "response": {"model": "m-1", "answers": {"q": {"type": "noul", "noul": 0.875}}},
        }
    ],
    "label_studio": [
        {
            "id": 1,
            "data": STATE,
            "annotations": [
                {"completed_by": 3, "created_at": "2026-01-01T00:00:00Z", "result": [{"from_name": "toxic", "type": "choices", "value": {"choices": ["bad"]}}]},
                {"completed_by": 4, "was_cancelled": True, "result": []},
            ],
        }
    ],
    "argilla": [
        {"id": "1", "fields": STATE, "responses": {"toxic": [{"value": "bad", "user_id": "ana"}, {"value": "fine", "user_id": "b", "status": "draft"}]}}
    ],
}


def bring(tmp_path, path, metric=METRIC, **more):
    found = import_data(ImportRequest(path, Dataset(tmp_path / "ds"), metric, **more), Silent())
    return found, labelled(Dataset(tmp_path / "ds"), metric, disputed="shares").examples


def write(tmp_path, rows, name="in.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if name.endswith("l") else json.dumps(rows))
    return path


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_every_format_is_recognised_and_gives_the_same_example(name, tmp_path):
    path = write(tmp_path, FORMATS[name], "in.json" if name in ("label_studio", "argilla") else "in.jsonl")
    assert sniff(path) == name
    found, examples = bring(tmp_path, path)
    assert (found.format, found.added, found.labels, found.rejected) == (name, 1, 1, [])
    assert examples[0].inputs == STATE
    assert examples[0].label_index == 0
    again, _ = bring(tmp_path, path)
    assert (again.added, again.labels) == (0, 0)


def test_openinference_spans_give_the_conversation_its_session_and_its_evaluation(tmp_path):
    found, (example,) = bring(tmp_path, write(tmp_path, _openinference_span()))
    assert found.format == "spans"
    assert example.inputs == STATE
    assert (example.id, example.group) == ("t1:s1", "talk-7")


def test_documents_retrieved_in_a_trace_are_the_context(tmp_path):
    metric = METRIC.model_copy(update={"inputs": ("context", "output")})
    retriever = {"trace_id": "t1", "attributes": {"openinference.span.kind": "RETRIEVER", "retrieval.documents.0.document.content": "Fact one."}}
    call = {"trace_id": "t1", "span_id": "2", "attributes": {"openinference.span.kind": "LLM", "input.value": ASKED, "output.value": ANSWERED}}
    write(tmp_path, [retriever, call])
    import_data(ImportRequest(tmp_path / "in.jsonl", Dataset(tmp_path / "ds"), metric), Silent())
    row = json.loads(Dataset(tmp_path / "ds").examples.read_text())
    assert row["inputs"] == {"context": "Fact one.", "output": ANSWERED}


def test_a_decision_log_keeps_probabilities_as_shares_and_a_refusal_gives_no_vote(tmp_path):
    rows = FORMATS["decisions"]
    refused = json.loads(json.dumps(rows[0]).replace("Go away", "Stay away"))
    refused["response"]["answers"][1] = {"type": "refusal", "name": "toxic"}
    found, examples = bring(tmp_path, write(tmp_path, [*rows, refused]), label_source="production")
    assert (found.added, found.labels) == (2, 1)
    assert examples[0].target == (0.875, 0.125)
    (event,) = read_labels(Dataset(tmp_path / "ds").labels).events
    assert (event.labeler, event.source, event.label) == ("m-1", "production", "bad")


def test_tool_calls_and_parts_of_the_input_list_become_messages(tmp_path):
    metric = Metric(name="tools_right", version=1, type="boolean", level="span", inputs=("messages",), question="?", labels={"y": ("yes",), "n": ("no",)})
    listed = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "function_call", "name": "weather", "arguments": '{"city": "Bonn"}', "call_id": "1"},
        {"type": "function_call_output", "call_id": "1", "output": "rain"},
    ]
    row = {
        "request": {"input": listed, "questions": [{"type": "predicate", "name": "tools_right"}]},
        "response": {"answers": [{"type": "predicate", "probability": 1.0}]},
    }
    _, (example,) = bring(tmp_path, write(tmp_path, [row]), metric)
    assert [turn["role"] for turn in example.inputs["messages"]] == ["user", "assistant", "tool"]
    assert example.inputs["messages"][1]["tool_calls"][0]["function"]["name"] == "weather"


def test_a_score_of_a_decision_log_is_read_by_level(tmp_path):
    metric = Metric(name="care", version=1, type="score", inputs=("output",), question="?", labels={"low": ("1",), "mid": ("2",), "high": ("3",)})
    probabilities = [{"value": n, "label": name, "probability": p} for n, (name, p) in enumerate([("low", 0.1), ("mid", 0.2), ("high", 0.7)])]
    row = {
        "request": {"input": "text", "questions": [{"type": "score", "name": "care"}]},
        "response": {"answers": [{"type": "score", "probabilities": probabilities}]},
    }
    assert bring(tmp_path, write(tmp_path, [row]), metric)[1][0].target == pytest.approx((0.1, 0.2, 0.7))


def test_a_saved_datasets_folder_is_read_with_its_class_names(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    split = tmp_path / "saved" / "train"
    split.mkdir(parents=True)
    table = arrow.table({"input": [ASKED, "Hi?"], "output": [ANSWERED, "Hello."], "label": [0, 1]})
    with arrow.OSFile(str(split / "data-00000-of-00001.arrow"), "wb") as sink, arrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    (split / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (split / "dataset_info.json").write_text(
        json.dumps({"features": {"label": {"names": ["bad", "fine"], "_type": "ClassLabel"}, "input": {"dtype": "string", "_type": "Value"}}})
    )
    found, examples = bring(tmp_path, tmp_path / "saved")
    assert (found.format, [example.label_index for example in examples]) == ("datasets", [0, 1])
    assert examples[0].provenance.source == "saved/train"
    (split / "data-00000-of-00001.arrow").write_bytes(b"cut")
    with pytest.raises(DataInvalid):
        bring(tmp_path, tmp_path / "saved")


def test_annotators_of_label_studio_are_told_apart_and_ground_truth_settles(tmp_path):
    def annotation(who, label, **more):
        return {
            "completed_by": {"id": 1, "email": who},
            "created_at": "2026-01-01T00:00:00Z",
            "result": [{"from_name": "toxic", "value": {"choices": [label]}}],
            **more,
        }

    task = {"id": 9, "data": STATE, "annotations": [annotation("a@x", "bad"), annotation("b@x", "fine"), annotation("c@x", "fine", ground_truth=True)]}
    found, (example,) = bring(tmp_path, write(tmp_path, [task], "in.json"))
    assert found.labels == 3
    assert example.label_index == 1


@pytest.mark.parametrize("name", sorted(set(IMPORTERS) - {"datasets"}))
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}\n",
        "[]\n",
        '{"a": 1}\n',
        "not json\n",
        '{"request": {"questions": {"q": 3}}, "response": {"answers": []}}\n',
        '{"fields": {"x": [1]}, "data": {"x": {}}}\n',
        "\xff\n",
    ],
)
def test_no_importer_crashes_on_bad_input(name, text, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with suppress(SnapjudgeError):
        found, _ = bring(tmp_path, path, format=name)
        assert found.added == 0
        assert found.read in (0, len(found.rejected))


def test_an_unknown_format_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(OptionInvalid, match="no format"):
        bring(tmp_path, write(tmp_path, FORMATS["records"]), format="word")


def test_labels_of_a_decision_log_are_renamed_once(tmp_path):
    found, (example,) = bring(tmp_path, write(tmp_path, FORMATS["decisions"]), labels={"bad": "fine", "fine": "bad"})
    assert found.labels == 1
    assert example.target == (0.125, 0.875)


@pytest.mark.parametrize(("text", "year"), [("1712011512345", 2024), ("1700000000", 2023), ("2026-02-03", 2026), ("2026-02-03T04:05:06+02:00", 2026)])
def test_times_come_as_text_or_as_seconds_since_1970(text, year):
    assert moment(text).year == year
    assert moment("soon") is None


def test_what_is_no_unicode_is_rejected_and_the_rest_is_imported(tmp_path):
    path = tmp_path / "in.csv"
    path.write_bytes(b"id,input,output,label,labeler\n1,q,a,bad,ana\n" + b"2,q,b,bad,J\xfcrgen\n")
    found, _ = bring(tmp_path, path)
    assert (found.added, len(found.rejected)) == (1, 1)
    assert "Unicode" in found.rejected[0]
    rows = [{"id": "3", "inputs": STATE, "meta": {"category": "\ud83d"}}, {"id": "4", "inputs": {"input": "q", "output": "c"}}]
    assert len(bring(tmp_path, write(tmp_path, rows))[0].rejected) == 1


def test_rows_without_an_id_are_told_apart_by_all_their_fields(tmp_path):
    metric = METRIC.model_copy(update={"inputs": ("output",)})
    rows = [{"inputs": {"input": f"question {n}", "output": "I can't help with that."}, "label": "fine"} for n in range(3)]
    found, examples = bring(tmp_path, write(tmp_path, rows), metric)
    assert (found.added, found.rejected, len(examples)) == (3, [], 3)


def test_rationales_are_redacted_with_the_rows(tmp_path):
    why = {"from_name": "why", "value": {"text": ["gives john@example.com away"]}}
    task = {"id": 1, "data": STATE, "annotations": [{"completed_by": 1, "result": [{"from_name": "toxic", "value": {"choices": ["bad"]}}, why]}]}
    bring(tmp_path, write(tmp_path, [task], "in.json"), redact=True)
    (event,) = read_labels(Dataset(tmp_path / "ds").labels).events
    assert event.rationale == "gives [EMAIL] away"
