"""Fitting adapters: content states once, readouts every epoch. Knows nothing of files of data, calibration or reports."""
