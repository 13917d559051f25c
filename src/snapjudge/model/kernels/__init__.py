"""Triton kernels for accelerators: attention of a step, grouped adapters, and frozen products whose rows do not depend on how many there are.

Each has a plain torch form beside it that says what it computes, and that the tests hold it to (in Triton's interpreter where there is no accelerator).
"""
