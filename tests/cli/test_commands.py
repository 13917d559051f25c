"""The command line through its public door: exit statuses, messages with a next step, JSON."""

import json
import subprocess
import sys

import pytest

from snapjudge import __version__
from tests.workshop import METRIC_YAML


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "snapjudge.cli", *map(str, arguments)], capture_output=True, text=True, **options)


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


HEAVY = ("torch", "transformers", "numpy", "scipy", "sklearn", "safetensors", "tokenizers")


@pytest.mark.parametrize(
    "code",
    ["import snapjudge", "import snapjudge.errors", "import snapjudge.core.metric_file", "import snapjudge.cli.main", "import snapjudge.flows.metric_files"],
)
def test_light_imports_load_no_model_library(code):
    assert python(f"{code}; import sys; print([name for name in {HEAVY} if name in sys.modules])").strip() == "[]"


def test_importing_the_package_loads_nothing_else():
    """What makes it fast, held without a clock: not even pydantic is loaded. The seconds are in benchmarks/startup.py."""
    loaded = python("import sys, snapjudge; import json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))")
    assert not {"pydantic", "yaml", "typer", "rich", "numpy", "torch"} & set(json.loads(loaded))
    assert python("import sys, snapjudge; print([name for name in sys.modules if name.startswith('snapjudge.')])").strip() == "[]"


def test_help_names_every_command_and_loads_no_torch():
    shown = run("--help")
    assert shown.returncode == 0
    for name in ("train", "prove", "show", "score", "ask", "words", "demo", "metric"):
        assert name in shown.stdout
    loaded = python(
        "import sys; sys.argv=['snapjudge','--help']\ntry:\n import snapjudge.cli.main as m; m.main()\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    )
    assert loaded.strip().endswith("False")
    assert __version__ in run("--version").stdout


def test_metric_new_then_check_then_new_again(tmp_path):
    assert run("metric", "new", "my_metric", "--out", tmp_path).returncode == 0
    assert run("metric", "check", tmp_path / "my_metric.yaml").returncode == 0
    assert (tmp_path / "my_metric.jsonl").read_text() == ""
    again = run("metric", "new", "my_metric", "--out", tmp_path)
    assert again.returncode == 2
    assert "exists already" in again.stderr
    assert run("metric", "new", "Bad Name", "--out", tmp_path).returncode == 2


def test_metric_check_tells_all_problems_with_exit_status_two(tmp_path):
    (tmp_path / "m.yaml").write_text(METRIC_YAML.replace('["yes"]', "[yes]").replace("boolean", "bool"))
    found = run("metric", "check", tmp_path / "m.yaml")
    assert found.returncode == 2
    assert "unquoted yes" in found.stderr
    assert "type" in found.stderr
    told = run("metric", "check", tmp_path / "m.yaml", "--json")
    problems = json.loads(told.stdout)["error"]["problems"]
    assert {problem["path"] for problem in problems} == {"type", "labels.bad[0]"}


def test_words_tells_which_fit():
    found = run("words", "yes", "unbelievablywrong", "--json")
    assert found.returncode == 1
    assert [word["fits"] for word in json.loads(found.stdout)] == [True, False]
    assert run("words", "yes", "no").returncode == 0


def test_the_schema_in_the_docs_is_the_one_the_code_gives():
    from pathlib import Path

    published = Path(__file__).parents[2] / "docs" / "metric.schema.json"
    assert run("metric", "schema").stdout == published.read_text()


def test_labels_are_added_shown_and_compared(tmp_path):
    (tmp_path / "m.yaml").write_text(METRIC_YAML)
    labels, common = tmp_path / "labels.jsonl", ("--metric", tmp_path / "m.yaml")
    votes = {"1": "bad bad", "2": "bad fine", "3": "fine fine"}
    for example, two in votes.items():
        for labeler, value in zip(("ana", "ben"), two.split(), strict=True):
            added = run("data", "label", labels, *common, "--example", example, "--label", value, "--labeler", labeler)
            assert added.returncode == 0, added.stderr
    shown = json.loads(run("data", "show", labels, *common, "--json").stdout)
    assert shown["states"] == {"agreed": 2, "disputed": 1}
    assert shown["to_adjudicate"] == ["2"]
    found = json.loads(run("data", "agreement", labels, *common, "--json").stdout)
    assert found["figures"]["raw"]["value"] == pytest.approx(2 / 3)
    told = run("data", "agreement", labels, *common).stdout
    assert "Gwet's AC1" in told
    assert "ben says fine where most others say bad: 1" in told
    assert "there is no file" in run("data", "show", tmp_path / "none.jsonl", *common).stderr
    wrong = run("data", "label", labels, *common, "--example", "4", "--label", "awful", "--labeler", "ana")
    assert wrong.returncode == 2
    assert "bad, fine" in wrong.stderr
    assert "--source" in run("data", "label", labels, *common, "--example", "4", "--label", "bad", "--labeler", "ana", "--source", "rumour").stderr


@pytest.mark.flow
def test_train_gates_show_prove_ask_score(workshop, tmp_path):
    folder, result = workshop
    command = ("train", folder / "metric.yaml", "--data", folder / "data.jsonl", "--out", tmp_path, "--scope", "readout", "--epochs", 1, "--rank", 4)
    missed = run(*command, "--gate", "log_loss<=0", "--json")
    assert missed.returncode == 1, missed.stderr
    told = json.loads(missed.stdout)
    assert told["judge"] == "says_buy@1"
    assert not told["gates"][0]["passed"]
    shown = run("show", result.folder)
    assert "says_buy@1" in shown.stdout
    assert "On traffic unlike the test" in shown.stdout, "where not to use it"
    assert json.loads(run("show", result.folder, "--json").stdout)["manifest"]["name"] == "says_buy"
    proved = run("prove", result.folder, "--data", folder / "new.jsonl", "--gate", "auroc>=0.5", "--out", tmp_path / "p")
    assert proved.returncode == 0, proved.stderr
    assert "met" in proved.stdout
    asked = run("ask", "--judge", result.folder, "please buy")
    assert "says_buy@1" in asked.stdout
    assert run("ask", "--judge", result.folder, "-", input="please buy").stdout == asked.stdout
    odd = subprocess.run(
        [sys.executable, "-m", "snapjudge.cli", "ask", "--judge", str(result.folder), "-"], input=b"\xff\xfe", capture_output=True, check=False
    )
    assert b"not UTF-8" in odd.stderr
    quick = run("ask", "--judge", result.folder, "--precision", "int8", "--json", "please buy")
    exact = run("ask", "--judge", result.folder, "--json", "please buy")
    near, true = (json.loads(found.stdout)["says_buy@1"]["probabilities"]["bad"] for found in (quick, exact))
    assert near != true
    assert near == pytest.approx(true, abs=0.25)
    again = run("prove", result.folder, "--data", folder / "new.jsonl", "--precision", "bfloat16", "--json")
    assert any("bfloat16" in note for note in json.loads(again.stdout)["notes"])
    assert "bfloat16" in run("ask", "--judge", result.folder, "--precision", "int4", "x").stderr
    scored = run("score", folder / "new.jsonl", "--judge", result.folder, "--out", tmp_path / "o.jsonl", "--json")
    assert json.loads(scored.stdout)["records"] == 60


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("show", "nobody"), "no judge 'nobody'"),
        (("ask", "--field", "tools=[]"), "no judge was named"),
        (("ask", "--judge", "{judge}", "--field", "colour=red"), "--field"),
        (("ask", "--judge", "{judge}", "  "), "empty text"),
        (("ask", ""), "an empty text"),
        (("ask",), "no text was given"),
        (("ask", "--judge", "", "text"), "--judge names no judge"),
        (("score", "{data}", "--judge", ",", "--out", "x.jsonl"), "--judge names no judge"),
        (("score", "{data}", "--judge", "{judge}", "--out", "."), "is a folder"),
        (("prove", "{judge}", "--data", "{data}", "--allow-leak", "--out", "{data}"), "cannot write"),
        (("merge", "a", "b", "--data", "a=x.jsonl", "--method", "average"), "method 'average'"),
        (("train", "{metric}", "--data", "{data}", "--calibrate-by", "colour"), "'length' or 'source'"),
        (("train", "{metric}", "--data", "{data}", "--gate", "f1>=80"), "f1 is never above 1"),
        (("train", "{metric}", "--data", "{data}", "--suite", "nosuch.jsonl"), "nosuch.jsonl is not there"),
        (("train", "{metric}", "--data", "{data}", "--out", ".", "--teacher", "tone"), "and says_buy has"),
        (("ask", "--question", "What is it?", "--options", "", "text"), "--options names no answers"),
        (("train", "{metric}", "--data", "{data}", "--out", ".", "--resume", "--restart"), "--resume and --restart cannot both be meant"),
        (("train", "{metric}", "--data", "{data}", "--out", ".", "--drop-optional", "0.5"), "has no optional inputs to drop"),
        (("ask", "--judge", "{judge}", "--backbone", "nowhere/model", "x"), "nowhere/model"),
        (("score", "missing.jsonl", "--judge", "{judge}", "--out", "x.jsonl"), "missing.jsonl"),
        (("train", "{metric}", "--data", "{data}", "--rank", "0", "--scope", "some"), "--rank 0"),
        (("train", "{metric}", "--data", "{data}", "--threshold", "fpr"), "threshold"),
        (("train", "{metric}", "--data", "{data}", "--gate", "good"), "gate"),
        (("train", "{metric}", "--data", "{data}", "--map", "output"), "--map"),
        (("train", "{metric}", "--data", "{data}", "--out", ".", "--teacher", "nosuch"), "nosuch"),
        (("train", "{metric}", "--data", "{data}", "--teacher-share", "0"), "--teacher-share does nothing without --teacher"),
        (("pretrain", "recipe.yaml", "--data", ".", "--out", "o", "--anchor-weight", "2"), "--anchor-weight does nothing without --anchor"),
        (("ask", "--judge", "{judge}", "--field", "output=you fool", "dear friend"), "would not read the text"),
        (("ask", "--judge", "{judge}", "--field", "output=you fool", "--field", "output=dear friend"), "given twice"),
        (("ask", "--question", "What is it?", "--options", "a,b,a", "text"), "'a' stands there twice"),
        (("pretrain", "recipe.yaml", "--data", ".", "--out", "o", "--rate", "0"), "--rate 0"),
    ],
)
def test_bad_arguments_give_exit_status_two_a_message_and_a_next_step(workshop, tmp_path, arguments, part):
    folder, result = workshop
    names = {"judge": result.folder, "metric": folder / "metric.yaml", "data": folder / "data.jsonl"}
    found = run(*(argument.format(**names) for argument in arguments), cwd=tmp_path)
    assert found.returncode == 2, found.stderr
    assert part in found.stderr.replace("\n", " ")
    assert "next:" in found.stderr
    assert "Traceback" not in found.stderr
    assert not list(tmp_path.iterdir()), "nothing is left behind"


@pytest.mark.flow
def test_control_c_in_training_keeps_the_state_and_resume_ends_it(workshop, tmp_path):
    import signal
    import time

    folder, _ = workshop
    command = [sys.executable, "-m", "snapjudge.cli", "train", folder / "metric.yaml", "--data", folder / "data.jsonl", "--out", tmp_path, "--scope", "readout"]
    process = subprocess.Popen([str(part) for part in [*command, "--epochs", "200"]], stderr=subprocess.PIPE, text=True)
    state = tmp_path / "says_buy" / ".training" / "fit-readout.safetensors"
    for _ in range(600):
        if state.exists():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130, told
    assert "--resume" in told
    assert state.exists()


def test_a_bare_install_explains_what_is_missing(tmp_path):
    """Without the local extra (here: torch hidden) the commands that need it say what to install."""
    code = "import sys; sys.modules['torch'] = None; sys.argv = ['snapjudge', 'ask', '--judge', 'x', 'y']; import snapjudge.cli.main as m; m.main()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 2
    assert "snapjudge[local]" in found.stderr


def test_a_first_import_brings_its_metric_along_and_rejected_rows_are_told(tmp_path):
    metric, rows = tmp_path / "m.yaml", tmp_path / "in.jsonl"
    metric.write_text('name: m\nversion: 1\ntype: boolean\ninputs: [output]\nquestion: Q?\nlabels: {bad: ["yes"], fine: ["no"]}\n')
    rows.write_text('{"id": "1", "inputs": {"output": "a"}, "label": "bad"}\n{"id": "2", "inputs": {}}\n')
    done = run("data", "import", rows, tmp_path / "ds", "--metric", metric)
    assert done.returncode == 1
    assert "1 new, 0 known, 1 rejected" in done.stdout
    assert (tmp_path / "ds" / "metric.yaml").read_text() == metric.read_text()
    shown = run("data", "show", tmp_path / "ds", "--json")
    assert json.loads(shown.stdout)["rejected"] == 1
    nothing = run("data", "show", tmp_path / "none")
    assert "there is no data set" in nothing.stderr


def test_open_questions_are_asked_on_the_command_line():
    done = run("ask", "--question", "Is it about money?", "--json", "I want my money back")
    assert done.returncode == 0, done.stderr
    (answer,) = json.loads(done.stdout).values()
    assert answer["zero_shot"]
    assert set(answer["probabilities"]) == {"yes", "no"}
    assert answer["nearest"]["question"]
    assert answer["trained_judge"] is None
    known = run("ask", "--question", "is the text TOXIC", "you idiot")
    assert "the judge toxicity was trained for this question; ask it with --judge toxicity" in known.stdout.replace("\n", " ")
    listed = run("ask", "--question", "What is it about?", "--options", "money, rain", "Where is my refund?")
    assert "zero-shot" in listed.stdout
    plain, reworded = (
        json.loads(run("ask", "--question", "Is it about money?", *more, "--json", "Where is my refund?").stdout)["Is it about money?"]
        for more in ((), ("--reworded", "Is it about the weather?"))
    )
    assert reworded["probabilities"]["yes"] < plain["probabilities"]["yes"], "half of it is asked about the weather"
    for wrong in (
        ("--options", "a,b"),
        ("--reworded", "a"),
        ("--question", "?", "--question", "!", "--reworded", "a"),
        ("--question", "?", "--options", "a"),
        ("--question", "?", "--options", "a,b", "--levels", "a,b"),
    ):
        refused = run("ask", *wrong, "text")
        assert refused.returncode == 2
        assert "next:" in refused.stderr


def test_judges_are_listed_with_what_their_proofs_say(workshop, monkeypatch):
    folder, result = workshop
    monkeypatch.setenv("SNAPJUDGE_JUDGES", str(folder / "judges"))
    listed = {one["judge"]: one for one in json.loads(run("judges", "--json").stdout)}
    assert listed["says_buy@1"]["figures"]["auroc"]["value"] == result.proof.judge_figures["auroc"].value
    assert not listed["says_buy@1"]["built_in"]
    told = run("judges").stdout
    assert "says_buy@1" in told
    assert f"AUROC {result.proof.judge_figures['auroc'].value:.3f}" in told, "whole lines, whatever the terminal's width"


def test_a_backbone_is_trained_by_a_recipe_and_used(tmp_path):
    rows = [{"inputs": {"output": f"{'rude' if n % 2 else 'kind'} words {n}"}, "label": bool(n % 2), "meta": {"group": f"g{n}"}} for n in range(120)]
    (tmp_path / "data" / "manners").mkdir(parents=True)
    (tmp_path / "data" / "manners" / "forum.train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "recipe.yaml").write_text("name: small\ntasks:\n  manners: {files: [manners/forum], questions: ['Is it rude?'], opposites: ['Is it kind?']}\n")
    common = ("pretrain", tmp_path / "recipe.yaml", "--data", tmp_path / "data", "--out", tmp_path / "out", "--steps", "2", "--batch", "4")
    assert "nothing in the recipe is called 'x'" in run(*common, "--without", "x").stderr
    done = run(*common, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["questions"] >= 8
    record = json.loads((tmp_path / "out" / "pretraining.json").read_text())
    assert record["rows"]["manners"] > 100
    assert "already holds" in run(*common).stderr
    asked = run("ask", "--question", "Is it rude?", "--backbone", tmp_path / "out", "--json", "rude words")
    assert json.loads(asked.stdout)["Is it rude?"]["judge"].endswith("out")


def test_merging_says_what_it_needs(workshop, tmp_path):
    folder, result = workshop
    one = run("merge", result.folder, "--data", f"says_buy={folder / 'new.jsonl'}", "--out", tmp_path)
    assert one.returncode == 2
    assert "one judge alone" in one.stderr
    stated = run("merge", result.folder, "--data", f"says_buy={folder / 'new.jsonl'}", "--out", tmp_path, "--method", "linear")
    assert "one judge alone" in stated.stderr
    assert "--data toxicity=a.jsonl" in run("merge", result.folder, result.folder, "--data", "new.jsonl").stderr
    odd = run("merge", result.folder, result.folder, "--data", "says_buy=x", "--method", "average")
    assert "an option cannot be read: method" in odd.stderr
    for more, said in (
        (("--weights", "1,2"), "--weights does nothing without a --method of its own"),
        (("--floor", "says_buy=1.5"), "reaches 1.5"),
        (("--method", "linear", "--weights", "1"), "--weights '1': one number for each of the 2 judges"),
        (("--method", "linear", "--weights", "a,b"), "--weights 'a,b': one number for each of the 2 judges"),
        (("--method", "linear", "--trials", "9"), "--trials does nothing without --method auto"),
        (("--method", "linear", "--density", "0.2"), "--density does nothing without --method ties"),
    ):
        assert said in run("merge", result.folder, result.folder, "--data", "says_buy=x", *more).stderr
