"""snapjudge show: what a bundle is and how good it is."""

from typing import Annotated

import typer

from snapjudge.cli.console import output, print_json, shown_errors


def show(
    judge: Annotated[str, typer.Argument(help="a bundle's folder, or a judge's name")],
    as_json: Annotated[bool, typer.Option("--json", help="print manifest, metric, calibration and proof as JSON")] = False,
) -> None:
    """Verify a bundle and show its metric, its figures and where it comes from."""
    with shown_errors(as_json=as_json):
        from snapjudge.flows.elsewhere import elsewhere, in_words
        from snapjudge.prove.plain import where_not_to_use_it
        from snapjudge.prove.proof import Proof
        from snapjudge.prove.report import show_figure
        from snapjudge.store.bundles import find_bundle, load_bundle

        bundle = load_bundle(find_bundle(judge))
        proof = Proof.model_validate_json((bundle.folder / "proof.json").read_bytes())
        if as_json:
            nouns = {"manifest": bundle.manifest, "metric": bundle.metric, "calibration": bundle.calibration, "proof": proof}
            told = {"folder": str(bundle.folder), "digest": bundle.digest, "elsewhere": [found.model_dump(mode="json") for found in elsewhere(bundle)]}
            print_json(told | {name: noun.model_dump(mode="json") for name, noun in nouns.items()})
            return
        manifest, metric, threshold = bundle.manifest, bundle.metric, bundle.calibration.threshold
        rows = {
            "judge": f"{manifest.judge}  ({bundle.folder})",
            "question": metric.question,
            "type": f"{metric.type}, level {metric.level}, criteria version {metric.version}",
            "inputs": metric.inputs_in_words,
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
        for name, figure in proof.judge_figures.items():
            output.print(f"[dim]{name:<19}[/dim]{show_figure(figure)}")
        if away := in_words(elsewhere(bundle)):
            output.print("On data that it did not learn from:")
            for line in away:
                output.print(f"- {line}", markup=False)
        output.print("Do not use it:")
        for limit in where_not_to_use_it(proof):
            output.print(f"- {limit}", markup=False)
