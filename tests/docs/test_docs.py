"""Docs fail the build: every command, option, error code and figure of speech the code knows stands in docs/, and the README's examples run."""

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer

from snapjudge import errors
from snapjudge.core.metric import Metric
from snapjudge.curate.recipe import Choice, Facet, Made, MadeKind, Recipe, Task, Templates
from snapjudge.flows.demo import example_folder
from snapjudge.flows.train_judge import train_judge
from snapjudge.flows.train_terms import TrainRequest
from tests.workshop import CONFIG

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_error_code_is_documented():
    page = (DOCS / "errors.md").read_text()
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.SnapjudgeError) and kind is not errors.SnapjudgeError and not kind.__name__.startswith("_"):
            assert f"`{kind.code}`" in page


def test_every_command_and_option_is_documented():
    from snapjudge.cli.main import app

    page = " ".join((DOCS / "cli.md").read_text().split())
    listed = dict(re.findall(r"`([a-z ]+)`: `(--[^`]+)`", page))
    root = typer.main.get_command(app)
    commands = {}
    for name, command in root.commands.items():
        within = getattr(command, "commands", None)
        commands |= {name: command} if within is None else {f"{name} {inner}": one for inner, one in within.items()}
    for name, command in commands.items():
        assert name.split()[-1] in page
        options = {option for parameter in command.params for option in parameter.opts if option.startswith("--") and option != "--help"}
        assert options == set(listed.get(name, "").split()), name


def test_every_path_of_the_server_is_documented():
    from snapjudge.serve.app import make_routes
    from snapjudge.serve.service import Service
    from snapjudge.serve.settings import ServeSettings

    page = (DOCS / "serving.md").read_text()
    for path, methods in make_routes(Service(ServeSettings())).openapi()["paths"].items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in page, (method, path)


def test_every_key_of_the_metric_file_is_documented():
    page = (DOCS / "metrics.md").read_text()
    for name in Metric.model_fields:
        assert f"`{name}`" in page


def test_every_key_of_a_recipe_is_documented():
    page = (DOCS / "pretraining.md").read_text()
    for noun in (Recipe, Task, Facet, Choice, Made, Templates):
        for name in noun.model_fields:
            assert f"`{name}`" in page or f"`{name}:" in page, (noun.__name__, name)
    for kind in get_args(MadeKind):
        assert f"`{kind}`" in page


def test_every_link_in_the_docs_leads_somewhere():
    for page in [ROOT / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.flow
def test_the_readmes_python_runs(tmp_path):
    """On a judge of the demo's name, trained on few of its examples."""
    lines = (example_folder() / "train.jsonl").read_text().splitlines()[:150]
    (tmp_path / "few.jsonl").write_text("\n".join(lines))
    train_judge(TrainRequest(example_folder() / "metric.yaml", [tmp_path / "few.jsonl"], tmp_path / "judges"), CONFIG)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_the_shipped_examples_are_what_the_readme_says():
    rows = {name: [json.loads(line) for line in (example_folder() / f"{name}.jsonl").read_text().splitlines()] for name in ("train", "test")}
    everything = rows["train"] + rows["test"]
    texts = {json.dumps(row["inputs"], sort_keys=True) for row in everything}
    assert len(rows["test"]) == 150
    assert len(texts) == len(everything) >= 800
    hard = [row for row in everything if row["label"] == "complies" and row["meta"]["category"] != "easy"]
    assert len(hard) >= 200
    for row in everything:
        assert {"source", "labeler", "date", "criteria_version", "group", "licence", "category"} <= set(row["meta"])
        assert row["label"] in ("violates", "complies")
    readme = (ROOT / "README.md").read_text()
    assert f"{len(everything)} examples" in readme
    assert f"{len(hard)} of them are hard negatives" in readme
