"""Learning from a teacher's probabilities beside (or instead of) labels. Knows nothing of who the teacher is.

With q the teacher's probabilities, z the student's label logits and t the temperature, the loss of an example is

    (1 - share) * CE(label, softmax z) + share * t^2 * CE(softmax(ln q / t), softmax(z / t))          (Hinton et al., 2015)

Tensors: E examples, L labels.
"""

import torch
from torch import Tensor

_FLOOR = 1e-6


def distillation_loss(log_p_EL: Tensor, own_E: Tensor, teacher_EL: Tensor, share_E: Tensor, temperature: float) -> Tensor:
    """Loss per example, [E].

    Args:
        own_E: the loss against the labels.
        teacher_EL: the teacher's probabilities; rows without a teacher are all zero, and their share must be 0.
        share_E: how much the teacher counts for each example.
    """
    soft_EL = (teacher_EL.clamp_min(_FLOOR).log() / temperature).softmax(-1)
    student_EL = (log_p_EL / temperature).log_softmax(-1)
    taught_E = -(soft_EL * student_EL).sum(-1) * temperature**2
    return (1 - share_E) * own_E + share_E * torch.where(share_E > 0, taught_E, torch.zeros_like(taught_E))
