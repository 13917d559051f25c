"""Which judges there are, by name, with what their proofs say. Knows nothing of terminals."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from snapjudge.core.metric import Metric
from snapjudge.errors import SnapjudgeError
from snapjudge.prove.proof import Proof
from snapjudge.store.bundles import MANIFEST, Bundle, built_in, judge_roots, load_bundle, newest_version


@dataclass(frozen=True)
class Listed:
    """A judge that was found: its bundle and proof; or why it cannot be used."""

    name: str
    folder: Path
    built_in: bool
    bundle: Bundle | None = None
    proof: Proof | None = None
    problem: str = ""

    @property
    def metric(self) -> Metric | None:
        """Its question."""
        return None if self.bundle is None else self.bundle.metric


def list_judges() -> list[Listed]:
    """The newest version of every judge that a name finds, each name where it is found first."""
    found: dict[str, Listed] = {}
    for root in judge_roots():
        for folder in _newest(root):
            found.setdefault(folder.parent.name, _listed(folder, root == built_in()))
    return [found[name] for name in sorted(found)]


def _newest(root: Path) -> Iterator[Path]:
    for folder in sorted(root.iterdir()) if root.is_dir() else ():
        version = newest_version(folder)
        if version is not None and (folder / str(version) / MANIFEST).is_file():
            yield folder / str(version)


def _listed(folder: Path, ours: bool) -> Listed:  # noqa: FBT001
    name = f"{folder.parent.name}@{folder.name}"
    try:
        bundle = load_bundle(folder)
        proof = Proof.model_validate_json((folder / "proof.json").read_bytes())
    except (SnapjudgeError, ValueError) as error:
        return Listed(name, folder, ours, problem=str(error))
    return Listed(bundle.manifest.judge, folder, ours, bundle, proof)
