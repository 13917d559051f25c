"""Training losses on label distributions. Knows nothing of models.

Tensors: E examples, L labels.
"""

from torch import Tensor

from snapjudge.core.metric import MetricType


def loss_of(kind: MetricType, log_p_EL: Tensor, target_EL: Tensor) -> Tensor:
    """Loss per example, [E].

    Cross-entropy against the (possibly soft) target; for `score` the squared earth mover's distance between the cumulative
    distributions of the ordered levels (Hou et al., 2016), which counts a miss by two levels more than a miss by one.
    """
    if kind == "score":
        gap_EL = (log_p_EL.exp() - target_EL).cumsum(-1)
        return gap_EL.square().sum(-1)
    return -(target_EL * log_p_EL).sum(-1)
