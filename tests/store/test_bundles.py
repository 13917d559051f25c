"""Bundles: immutable, verified, refused when damaged; writes that a full disk or a kill cannot halve."""

import errno
import hashlib
import json
import pickle
import shutil
import subprocess
import sys

import pytest

from snapjudge.core.calibration import Calibration
from snapjudge.core.manifest import BackboneId, Manifest
from snapjudge.core.metric import Metric
from snapjudge.core.metric_file import dump_metric
from snapjudge.errors import BundleInvalid, BundleNotFound, PickleRefused, RunConflict, StorageFailed
from snapjudge.store.bundles import MANIFEST, find_bundle, load_bundle, next_version, write_bundle
from snapjudge.store.files import write_file, write_folder

METRIC = Metric(name="tone", version=1, type="boolean", inputs=("output",), question="?", labels={"rude": ("yes",), "kind": ("no",)})
FILES = {
    "metric.yaml": dump_metric(METRIC).encode(),
    "adapter/adapter_config.json": b"{}",
    "adapter/adapter_model.safetensors": (8).to_bytes(8, "little") + b"{}      ",
    "calibration.json": Calibration().model_dump_json().encode(),
    "proof.json": b"{}",
    "run.json": b"{}",
}


def manifest(version=1):
    return Manifest(name="tone", version=version, backbone=BackboneId(name="mini", digest="d"), scope="readout", created="now", snapjudge="0", files={})


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path, manifest(), dict(FILES))


def test_a_bundle_reads_back_and_its_digest_names_every_file(bundle):
    found = load_bundle(bundle)
    assert found.metric == METRIC
    assert found.manifest.judge == "tone@1"
    assert set(found.manifest.files) == set(FILES)
    assert json.loads((bundle / MANIFEST).read_text())["format"] == 1
    assert next(iter(json.loads((bundle / MANIFEST).read_text()))) == "format"


def test_a_changed_manifest_is_refused(bundle):
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace('"version": 1', '"version": 7'))
    with pytest.raises(BundleInvalid, match=r"manifest\.json has changed"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_changed_byte_in_any_file_is_refused(bundle, name):
    raw = bytearray((bundle / name).read_bytes())
    raw[-1] ^= 1
    (bundle / name).write_bytes(raw)
    with pytest.raises(BundleInvalid, match=f"{name} has changed"):
        load_bundle(bundle)


def test_a_missing_an_added_and_an_unlisted_file_are_refused(bundle):
    (bundle / "extra.txt").write_text("x")
    with pytest.raises(BundleInvalid, match=r"extra\.txt"):
        load_bundle(bundle)
    (bundle / "extra.txt").unlink()
    (bundle / "run.json").unlink()
    with pytest.raises(BundleInvalid, match=r"run\.json is missing"):
        load_bundle(bundle)


def test_a_pickle_in_place_of_the_weights_is_refused_unopened(bundle):
    weights = bundle / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(pickle.dumps({"evil": 1}))
    with pytest.raises(PickleRefused, match="pickle"):
        load_bundle(bundle)


def test_a_pickle_beside_the_weights_is_refused_even_with_a_matching_manifest(tmp_path):
    folder = write_bundle(tmp_path, manifest(), {**FILES, "adapter/adapter_model.bin": pickle.dumps([1])})
    with pytest.raises(PickleRefused, match=r"adapter_model\.bin"):
        load_bundle(folder)


def test_a_manifest_of_a_newer_format_names_the_next_step(bundle):
    data = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps({**data, "format": 99}))
    with pytest.raises(BundleInvalid) as caught:
        load_bundle(bundle)
    assert "newer" in caught.value.hint


def test_an_existing_version_is_never_written_over(tmp_path, bundle):
    before = hashlib.sha256((bundle / MANIFEST).read_bytes()).digest()
    with pytest.raises(RunConflict):
        write_bundle(tmp_path, manifest(), dict(FILES))
    assert hashlib.sha256((bundle / MANIFEST).read_bytes()).digest() == before
    assert next_version(tmp_path / "tone") == 2


def test_names_find_the_newest_version_or_the_one_asked_for(tmp_path, monkeypatch):
    for version in (1, 2, 10):
        write_bundle(tmp_path, manifest(version), dict(FILES))
    monkeypatch.setenv("SNAPJUDGE_JUDGES", str(tmp_path))
    assert find_bundle("tone").name == "10"
    assert find_bundle("tone@2").name == "2"
    assert find_bundle(tmp_path / "tone").name == "10"
    assert find_bundle(tmp_path / "tone" / "1").name == "1"
    for name in ("tone@3", "nobody", "Not A Name", tmp_path):
        with pytest.raises(BundleNotFound):
            find_bundle(name)


@pytest.mark.parametrize(
    ("name", "hint"), [("tnoe", "did you mean tone?"), ("tone@3", "did you mean tone@10?"), ("nobody", "`snapjudge judges` lists what there is")]
)
def test_a_judge_that_is_not_there_is_answered_with_what_is(tmp_path, name, hint):
    for version in (1, 10):
        write_bundle(tmp_path, manifest(version), dict(FILES))
    with pytest.raises(BundleNotFound) as caught:
        find_bundle(name, [tmp_path])
    assert str(caught.value.hint).startswith(hint)


def failing_disk(monkeypatch, after):
    """The operating system says "no space" at the `after`-th fsync: the last moment at which a full disk can show."""
    import os

    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("after", [0, 3, 6])
def test_a_full_disk_leaves_no_half_bundle_and_says_so(tmp_path, monkeypatch, after):
    failing_disk(monkeypatch, after)
    with pytest.raises(StorageFailed, match="the disk is full"):
        write_bundle(tmp_path, manifest(), dict(FILES))
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_full_disk_keeps_the_file_that_was_there(tmp_path, monkeypatch):
    write_file(tmp_path / "f", "old")
    failing_disk(monkeypatch, 0)
    with pytest.raises(StorageFailed):
        write_file(tmp_path / "f", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_text() == "old"


def test_the_last_file_is_written_last(tmp_path, monkeypatch):
    written = []
    from pathlib import Path

    real = Path.open

    def opened(self, *args, **kwargs):
        written.append(self.name)
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    write_folder(tmp_path / "x", {"a": b"", "last": b"", "z": b""}, last="last")
    assert written == ["a", "z", "last"]
    shutil.rmtree(tmp_path / "x")


def test_the_operating_systems_own_limit_on_a_files_size_is_told_and_leaves_nothing(tmp_path):
    """Not simulated: the process may write at most 20,000 bytes into a file."""
    code = """
import resource, sys
from pathlib import Path
from snapjudge.errors import StorageFailed
from snapjudge.store.files import write_file, write_folder
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
folder, much = Path(sys.argv[1]), b"x" * 50_000
for work in (lambda: write_file(folder / "f", much), lambda: write_folder(folder / "d", {"a": much, "m": b""}, "m")):
    try:
        work()
    except StorageFailed as error:
        print(error.message)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.count("too large") == 2
    assert not list(tmp_path.iterdir())
