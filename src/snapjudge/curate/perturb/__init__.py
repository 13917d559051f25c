"""Perturbations of real rows: noise that keeps the label, and corruptions that change it. Each names its method; all follow from a seed."""
