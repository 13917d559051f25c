"""Judge bundles: immutable folders with a manifest, verified on load.

    NAME/VERSION/  manifest.json, metric.yaml, adapter/, calibration.json, proof.json, report.html, run.json, README.md

Knows nothing of what the numbers mean; the adapter's weights are handed on as a folder.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from snapjudge.core.calibration import Calibration
from snapjudge.core.manifest import FORMAT, Manifest
from snapjudge.core.metric import Metric
from snapjudge.core.metric_file import parse_metric
from snapjudge.errors import BundleInvalid, BundleNotFound, PickleRefused, RunConflict
from snapjudge.store.files import read_record, write_folder

MANIFEST = "manifest.json"
MINI = "mini"
REFERENCE, REFERENCES = "reference.safetensors", "references"
NEEDED = ("metric.yaml", "adapter/adapter_config.json", "adapter/adapter_model.safetensors", "calibration.json", "proof.json", "run.json")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
_CHANGED = "the folder was changed after training; restore it from its source or train again"
_NAMED = re.compile(r"^([a-z][a-z0-9_]{0,63})(?:@(\d+))?$")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle: the values a judge needs and where its folder is."""

    folder: Path
    manifest: Manifest
    metric: Metric
    calibration: Calibration

    @property
    def adapter_folder(self) -> Path:
        """Where the adapter lies in PEFT's layout."""
        return self.folder / "adapter"

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages that it was proved on; of judges on `mini`, which knows English alone, that. Empty where it is not known."""
        told = read_record(self.folder / "run.json").get("languages")
        if isinstance(told, dict):
            return tuple(told)
        return ("en",) if self.manifest.backbone.name == MINI else ()

    @property
    def reference(self) -> Path | None:
        """The file that tells what it was calibrated on: its own, or, of judges that come with the package, the one beside them."""
        own, beside = self.folder / REFERENCE, built_in() / REFERENCES / f"{self.manifest.judge}.{self.digest[:12]}.safetensors"
        return own if own.is_file() else beside if beside.is_file() else None

    @property
    def digest(self) -> str:
        """sha256 of the manifest, which names every other file's."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()


def built_in() -> Path:
    """Where the judges that come with the package lie."""
    return Path(str(resources.files("snapjudge.store") / "judges"))


def judge_roots() -> list[Path]:
    """Where judges are looked up by name: $SNAPJUDGE_JUDGES (several, separated as in PATH), ./judges, the user's data folder, the built-in ones."""
    stated = [Path(part) for part in os.environ.get("SNAPJUDGE_JUDGES", "").split(os.pathsep) if part]
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return [*stated, Path("judges"), data / "snapjudge" / "judges", built_in()]


def find_bundle(name: str | Path, roots: Sequence[Path] | None = None) -> Path:
    """A bundle's folder from a path (a version, or a judge whose newest version is meant) or a name such as `tone` or `tone@3`.

    Raises:
        BundleNotFound: saying where it was looked for.
    """
    try:
        path = Path(name).expanduser()
        there = (path / MANIFEST).is_file()
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a home of nobody
        raise BundleNotFound(f"{str(name)[:200]!r} is no path: {error}", hint="a name such as tone@3, or a bundle's folder", received=str(name)[:200]) from None
    if there:
        return path
    if path.is_dir() and (newest := newest_version(path)):
        return path / str(newest)
    match = _NAMED.match(str(name))
    places = judge_roots() if roots is None else roots
    if match:
        for root in places:
            versions = root / match[1]
            version = int(match[2]) if match[2] else newest_version(versions)
            if version and (versions / str(version) / MANIFEST).is_file():
                return versions / str(version)
    if path.is_dir():
        raise BundleNotFound(
            f"{name} is a folder without {MANIFEST}", hint="a bundle folder is NAME/VERSION, as `snapjudge train --out` writes it", received=str(name)
        )
    raise BundleNotFound(
        f"no judge {str(name)!r} in {', '.join(str(place) for place in places)}",
        hint=f"{_near(str(name), places)}`snapjudge judges` lists what there is; SNAPJUDGE_JUDGES names other places to look in",
        received=str(name),
    )


def _near(name: str, roots: Sequence[Path]) -> str:
    """What a judge's name that is not there was probably meant to be, to stand before a hint; empty where nothing is like it."""
    known = {folder.name: version for root in roots[::-1] if root.is_dir() for folder in root.iterdir() if (version := newest_version(folder))}
    meant = name.partition("@")[0]
    found = [f"{meant}@{known[meant]}"] if meant in known else get_close_matches(meant, known, 3)
    return f"did you mean {' or '.join(found)}? " if found else ""


def newest_version(folder: Path) -> int | None:
    """The highest version number among a judge's folders."""
    if not folder.is_dir():
        return None
    return max((int(child.name) for child in folder.iterdir() if child.name.isdigit() and (child / MANIFEST).is_file()), default=None)


def next_version(folder: Path) -> int:
    """The version a new bundle of this judge gets; any numbered folder counts, whole or not."""
    if not folder.is_dir():
        return 1
    return max((int(child.name) for child in folder.iterdir() if child.name.isdigit()), default=0) + 1


def write_bundle(folder: Path, manifest: Manifest, files: dict[str, bytes]) -> Path:
    """Write a bundle to NAME/VERSION under `folder`; the digests in the manifest are made here.

    Raises:
        RunConflict: that version exists already.
        StorageFailed: disk full and the like; nothing is left behind.
    """
    target = folder / manifest.name / str(manifest.version)
    if target.exists():
        raise RunConflict(f"{target} exists already", hint="bundles never change; a new training writes the next version")
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}
    full = manifest.model_copy(update={"files": digests}).sealed()
    write_folder(target, {**files, MANIFEST: (full.model_dump_json(indent=2) + "\n").encode()}, last=MANIFEST)
    return target


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle.

    Raises:
        PickleRefused: a pickle lies in it, or in place of one of its files.
        BundleInvalid: a file is missing, unknown or changed, or the format is newer than this version.
    """
    manifest = _manifest(folder)
    contents = _verified(folder, manifest)
    try:
        calibration = Calibration.model_validate_json(contents["calibration.json"])
    except ValidationError as error:
        raise BundleInvalid(f"{folder}: calibration.json cannot be read: {error.errors()[0]['msg']}", hint=_CHANGED) from error
    metric = parse_metric(contents["metric.yaml"].decode(), f"{folder}/metric.yaml")
    return Bundle(folder, manifest, metric, calibration)


def _verified(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """The content of every file, each held to its digest; the manifest to its own."""
    present = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    for name, path in present.items():
        if path.suffix in _PICKLES or _looks_pickled(path):
            raise PickleRefused(f"{folder}: {name} is a pickle; it was not opened", hint="bundles hold safetensors only, since loading a pickle runs code")
    if manifest.sealed().digest != manifest.digest:
        raise BundleInvalid(f"{folder}: {MANIFEST} has changed", hint=_CHANGED)
    for name in (*NEEDED, *manifest.files):
        if name not in manifest.files:
            raise BundleInvalid(f"{folder}: the manifest does not list {name}", hint=_CHANGED)
        if name not in present:
            raise BundleInvalid(f"{folder}: {name} is missing", hint=_CHANGED)
    unknown = sorted(set(present) - set(manifest.files) - {MANIFEST})
    if unknown:
        raise BundleInvalid(f"{folder}: files the manifest does not list: {', '.join(unknown[:4])}", hint=_CHANGED)
    contents = {name: present[name].read_bytes() for name in manifest.files}
    for name, content in contents.items():
        found = hashlib.sha256(content).hexdigest()
        if found != manifest.files[name]:
            raise BundleInvalid(f"{folder}: {name} has changed: sha256 {found[:12]}..., the manifest says {manifest.files[name][:12]}...", hint=_CHANGED)
    return contents


def _manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.is_file():
        raise BundleNotFound(f"{folder} has no {MANIFEST}", hint="a bundle folder is NAME/VERSION, as `snapjudge train --out` writes it")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        hint = f"this snapjudge reads format {FORMAT}; install a newer one" if where == "format" else _CHANGED
        raise BundleInvalid(f"{path}: {f'{where}: ' if where else ''}{first['msg']}", hint=hint) from error


def _looks_pickled(path: Path) -> bool:
    """A pickle of protocol 2 and later, or the zip archive torch wraps one in; a safetensors file has an opening brace at byte 8."""
    with path.open("rb") as file:
        start = file.read(9)
    protocol = start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return start[:4] == b"PK\x03\x04" or (protocol and start[8:9] != b"{")
