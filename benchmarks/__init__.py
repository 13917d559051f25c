"""Measurements; each script names what it measures and writes to benchmarks/results."""
