"""The output head: logits of a few answer tokens from last hidden states, always in float32.

Tensors: N logits wanted, B batch, L labels, D width, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from snapjudge.model.attention import steady
from snapjudge.model.readout import Readout, join_words
from snapjudge.model.tables import sent


class Head:
    """Only the rows of answer tokens are ever multiplied.

    Args:
        weight_VD: output embedding; `bias_V` its bias, if any.
        softcap: final logit soft cap (Gemma 2), if any; `scale` a constant factor on logits (Cohere, Granite).
    """

    def __init__(self, weight_VD: Tensor, bias_V: Tensor | None, softcap: float | None, scale: float) -> None:
        self.weight_VD, self._bias_V, self._softcap, self._scale = weight_VD, bias_V, softcap, scale

    def token_logits(self, hidden_ND: Tensor, tokens_N: Tensor) -> Tensor:
        """One logit [N] of each hidden state."""
        logits_N = (hidden_ND.float() * self.weight_VD[tokens_N].float()).sum(-1) * self._scale
        if self._bias_V is not None:
            logits_N = logits_N + self._bias_V[tokens_N].float()
        if self._softcap is not None:
            logits_N = steady(torch.tanh, logits_N / self._softcap) * self._softcap
        return logits_N

    def label_logits(self, hidden_BD: Tensor, readout: Readout) -> Tensor:
        """Label logits [B, L] of hidden states that all end the same readout."""
        tokens = torch.tensor([token for label in readout.label_tokens for token in label], device=hidden_BD.device)
        batch, wanted = len(hidden_BD), len(tokens)
        logits_N = self.token_logits(hidden_BD.repeat_interleave(wanted, 0), tokens.repeat(batch))
        return join_words(logits_N.view(batch, wanted), [len(label) for label in readout.label_tokens])

    def differentiable(self, hidden_TD: Tensor, readouts: Sequence[Readout], rows: Sequence[int]) -> Tensor:
        """Label logits [R, L] of all readouts, -inf behind those of fewer labels, with gradients for the hidden states and the answer tokens' rows of the head.

        Args:
            rows: the row of each readout's last token.
        """
        index = sent(_wanted(readouts, rows), hidden_TD.device)
        sizes = [len(label) for readout in readouts for label in readout.label_tokens]
        flat_N = self.token_logits(hidden_TD[index[:, 0]], index[:, 1])
        places = [(number, label) for number, readout in enumerate(readouts) for label in range(len(readout.label_tokens))]
        at = sent(torch.tensor(places), hidden_TD.device)
        padded_RL = flat_N.new_full((len(readouts), max(len(readout.label_tokens) for readout in readouts)), float("-inf"))
        return padded_RL.index_put((at[:, 0], at[:, 1]), join_words(flat_N, sizes))

    def step_logits(self, hidden_TD: Tensor, readouts: Sequence[Readout], rows: Sequence[int]) -> list[Tensor]:
        """Label logits [L] of each readout of a step, on the host: everything is brought over at once.

        Args:
            rows: the row of each readout's last token.
        """
        if not readouts:
            return []
        index = sent(_wanted(readouts, rows), hidden_TD.device)
        missing = -len(index) % 16 if hidden_TD.device.type != "cpu" else 0  # there the order of a sum depends on how few sums there are
        index = torch.cat((index, index[:1].expand(missing, -1))) if missing else index
        flat = self.token_logits(hidden_TD[index[:, 0]], index[:, 1]).cpu()  # the step's one wait for the device
        return _joined(flat[: len(flat) - missing], readouts)


def _wanted(readouts: Sequence[Readout], rows: Sequence[int]) -> Tensor:
    """(row, token) of every logit that is wanted, [N, 2], readout by readout."""
    return torch.tensor([[row, token] for row, readout in zip(rows, readouts, strict=True) for label in readout.label_tokens for token in label])


def _joined(flat_N: Tensor, readouts: Sequence[Readout]) -> list[Tensor]:
    """Label logits [L] of each readout from the logits of all their answer tokens."""
    sizes = [[len(label) for label in readout.label_tokens] for readout in readouts]
    return [join_words(part, some) for part, some in zip(flat_N.split([sum(some) for some in sizes]), sizes, strict=True)]
