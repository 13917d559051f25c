"""Write the model cards and reports of the built-in judges anew from their proofs, after the words of either have changed; no figure is made here.

    python scripts/render_judges.py

Each bundle gets a new manifest, and the files that name bundles by their digest are told the new one.
"""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from snapjudge.flows.card import model_card
from snapjudge.prove.proof import Proof
from snapjudge.prove.report import render_report
from snapjudge.store.bundles import MANIFEST, Bundle, built_in, load_bundle, write_bundle

NAMING = (*(Path(__file__).resolve().parents[1] / "benchmarks" / "results").glob("*.json"), built_in() / "elsewhere.json")


def main() -> None:
    """Every built-in judge."""
    for folder in sorted(path.parent for path in built_in().glob(f"*/*/{MANIFEST}")):
        bundle = load_bundle(folder)
        before = bundle.digest
        render(bundle)
        after = load_bundle(folder).digest
        for path in NAMING if after != before else ():
            path.write_text(path.read_text().replace(before, after))
        print(bundle.manifest.judge, "as it was" if after == before else f"{before[:12]} -> {after[:12]}")


def render(bundle: Bundle) -> None:
    """Put a bundle with a new card and report in its place, where they differ."""
    files = {name: (bundle.folder / name).read_bytes() for name in bundle.manifest.files}
    proof = Proof.model_validate_json(files["proof.json"])
    files["README.md"] = model_card(bundle.metric, proof, sources(files["README.md"].decode())).encode()
    files["report.html"] = render_report(proof).encode()
    with TemporaryDirectory() as out:
        new = load_bundle(write_bundle(Path(out), bundle.manifest, files))
        if new.manifest.files != bundle.manifest.files:
            shutil.rmtree(bundle.folder)
            shutil.copytree(new.folder, bundle.folder)


def sources(card: str) -> dict[str, str]:
    """The training sources and their licences, as a card lists them."""
    _, _, rest = card.partition("Training sources and their licences:\n\n")
    lines = [line.removeprefix("- ") for line in rest.partition("\n\n")[0].splitlines()]
    return dict(line.split(": ", 1) for line in lines)


if __name__ == "__main__":
    main()
