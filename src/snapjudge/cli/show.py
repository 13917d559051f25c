"""snapjudge show: what a bundle is and how good it is."""

import json
from typing import Annotated

import typer

from snapjudge.cli.console import output, print_json, shown_errors


def show(
    judge: Annotated[str, typer.Argument(help="a bundle's folder, or a judge's name")],
    as_json: Annotated[bool, typer.Option("--json", help="print manifest, metric, calibration and proof as JSON")] = False,
) -> None:
    """Verify a bundle and show its metric, its figures and where it comes from."""
    with shown_errors(as_json=as_json):
        from snapjudge.store.bundles import find_bundle, load_bundle

        bundle = load_bundle(find_bundle(judge))
        proof = json.loads((bundle.folder / "proof.json").read_bytes())
        if as_json:
            found = {"folder": str(bundle.folder), "digest": bundle.digest, "manifest": bundle.manifest.model_dump(mode="json")}
            print_json({**found, "metric": bundle.metric.model_dump(mode="json"), "calibration": bundle.calibration.model_dump(mode="json"), "proof": proof})
            return
        manifest, metric, threshold = bundle.manifest, bundle.metric, bundle.calibration.threshold
        rows = {
            "judge": f"{manifest.judge}  ({bundle.folder})",
            "question": metric.question,
            "type": f"{metric.type}, level {metric.level}, criteria version {metric.version}",
            "inputs": ", ".join(metric.ordered_inputs),
            "labels": ", ".join(f"{name}{' (flagged)' if name in metric.positive_labels else ''}" for name in metric.labels),
            "backbone": f"{manifest.backbone.name} {manifest.backbone.digest[:12]}, scope {manifest.scope}",
            "threshold": f"{threshold.value:.3f}" + (f", {threshold.rule} guaranteed" if threshold.guaranteed else ""),
            "calibration": f"{bundle.calibration.kind} on {bundle.calibration.examples} examples",
            "created": f"{manifest.created} by snapjudge {manifest.snapjudge}",
            "digest": f"{bundle.digest[:16]} (all {len(manifest.files)} files verified)",
        }
        for name, text in rows.items():
            output.print(f"[dim]{name:<12}[/dim]", end="")
            output.print(text, markup=False)
        for name, figure in proof["contenders"][0]["figures"].items():
            output.print(f"[dim]{name:<16}[/dim]{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]", markup=True)
