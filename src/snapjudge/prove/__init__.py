"""Figures with intervals, calibrators, thresholds with guarantees, baselines, the report. Knows nothing of torch or of files' places."""
