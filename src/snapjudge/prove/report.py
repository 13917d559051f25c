"""report.html: the proof for people, one self-contained page without scripts. Knows nothing of how figures are made."""

from markupsafe import Markup

from snapjudge.pages import render_page
from snapjudge.pages.pictures import histogram, intervals, plot
from snapjudge.prove.figures import Figure
from snapjudge.prove.plain import COUNTED, how_often_it_errs, more_labels, what_it_does, what_it_promises, where_not_to_use_it
from snapjudge.prove.proof import Proof

NAMES = {
    "f1": "F1",
    "precision": "Precision",
    "recall": "Recall",
    "fpr": "False-positive rate",
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "recall_at_1_fpr": "Recall at 1 % FPR",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "macro_auroc": "Macro AUROC",
    "mae": "Mean absolute error",
    "weighted_kappa": "Quadratic kappa",
    "pearson": "Pearson r",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "ECE",
}


def render_report(proof: Proof) -> str:
    """The page of one proof."""
    shown = [one for one in proof.probes if one.expect == "stays" and one.rate is not None]
    rows = [(one.name, one.rate.value, one.rate.low, one.rate.high) for one in shown if one.rate is not None]
    slice_names = [name for name in ("f1", "recall", "fpr", "auroc", "accuracy", "macro_f1", "mae") if name in proof.judge_figures]
    return render_page(
        "proof.html.j2",
        proof=proof,
        names=NAMES,
        pictures=_pictures(proof),
        slice_names=slice_names,
        threshold=threshold_text(proof),
        figure=show_figure,
        does=what_it_does(proof),
        errs=how_often_it_errs(proof),
        promised=what_it_promises(proof),
        limits=where_not_to_use_it(proof),
        gates=proof.gates,
        left={"fpr": "recall", "recall": "false-positive rate", "agreement": "coverage"},
        counted={"fpr": "negatives", "recall": "positives", "agreement": "examples"},
        probes=intervals("Share of verdicts that moved, 95 % interval", rows, span=(0.0, 0.5), marks=(0.03,)) if rows else "",
    )


def show_figure(figure: Figure | None) -> str:
    """`0.912 [0.861, 0.949]`, or - where the data cannot give it."""
    return "-" if figure is None else f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def threshold_text(proof: Proof) -> str:
    """One sentence on where the flag is raised and what is promised."""
    threshold = proof.calibration.threshold
    if not proof.positive:
        return "This metric flags nothing; the label is the most likely one."
    if threshold.rule is None:
        return f"Flagged from a score of {threshold.value:.3f}: no guarantee was asked for."
    counted = COUNTED[threshold.rule.figure]
    if threshold.guaranteed:
        bound = "a Hoeffding-Bentkus bound" if threshold.rule.figure == "cost" else "an exact binomial bound"
        return f"Flagged from a score of {threshold.value:.3f}: {threshold.rule} holds by {bound} on {threshold.counted} calibration {counted}."
    return (
        f"Flagged from a score of {threshold.value:.3f}: the calibration data ({threshold.counted} {counted}) cannot support {threshold.rule}; "
        f"{more_labels(threshold.needed, counted)}."
    )


def _pictures(proof: Proof) -> list[Markup]:
    curves, figures = proof.curves, proof.judge_figures
    if not curves.roc:
        return []
    share = sum(proof.labels[name] for name in proof.positive) / max(1, sum(proof.labels.values()))
    return [
        plot("ROC", "false-positive rate", "recall", {"judge": curves.roc}, diagonal=True, note=f"AUROC {show_figure(figures.get('auroc'))}"),
        plot("Precision and recall", "recall", "precision", {"judge": curves.precision_recall, "share of positives": [(0, share), (1, share)]}),
        plot(
            "Reliability",
            "claimed probability",
            "observed share",
            {"ten bins of equal size, 95 % intervals": [(b.claimed, b.observed) for b in curves.reliability]},
            diagonal=True,
            dots=True,
            ranges=[(b.claimed, b.low, b.high) for b in curves.reliability],
        ),
        histogram("Scores", "calibrated probability of the flagged label", curves.histogram, mark=proof.calibration.threshold.value),
    ]
