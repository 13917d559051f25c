"""In what numbers a backbone's layers are computed. Label logits and normalisation are always in float32."""

from enum import StrEnum


class Precision(StrEnum):
    """`int8`: the linear layers, with one scale per output channel and one per row of activations; everything else of it in bfloat16."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"
    int8 = "int8"
