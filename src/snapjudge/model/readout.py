"""The readout: a metric's question as token ids, the token ids of its labels, and how windows and orders combine.

Knows nothing of backbones' layers. With z the next-token logits at the last readout position and V_c the answer tokens of label c,
the label logit is log sum_{v in V_c} exp z_v; a softmax over label logits is the p(c) of DESIGN.md section 1.

Tensors: L labels, W reads of one example, E examples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from snapjudge.core.metric import Metric
from snapjudge.errors import LabelNotOneToken
from snapjudge.model.tokens import Ids, TextTokens


@dataclass(frozen=True)
class Readout:
    """What is read at the end of a content: the question's token ids and each label's answer token ids, in label order."""

    token_ids: Ids
    label_tokens: tuple[Ids, ...]


def label_tokens(metric: Metric, tokens: TextTokens, before: str, backbone: str) -> tuple[Ids, ...]:
    """Each label's answer words as single token ids.

    Raises:
        LabelNotOneToken: naming every word that is several tokens, or two words that are the same token.
    """
    problems, owner, found = [], dict[int, str](), []
    for label, words in metric.labels.items():
        ids = []
        for word in words:
            identity, pieces = tokens.one_token(word, before)
            if identity is None:
                problems.append(f"{label}: {word!r} is {len(pieces)} tokens {tokens.text_of(pieces)}")
            elif identity in owner:
                problems.append(f"{label}: {word!r} is the same token as {owner[identity]}")
            else:
                owner[identity] = f"{label}: {word!r}"
                ids.append(identity)
        found.append(tuple(ids))
    if problems:
        raise LabelNotOneToken(
            f"metric {metric.name}: answer words must be one token each, and distinct, under {backbone}: " + "; ".join(problems),
            hint=f"`snapjudge words --backbone {backbone} WORD...` tells which words fit",
        )
    return tuple(found)


def join_words(token_logits: Tensor, label_sizes: Sequence[int]) -> Tensor:
    """Label logits [..., L] from the logits of all answer tokens in label order [..., sum(label_sizes)]."""
    if max(label_sizes) == 1:  # each is the sum of one
        return token_logits
    return torch.stack([part.logsumexp(-1) for part in token_logits.split(list(label_sizes), -1)], -1)


def combine_windows(log_p_WL: Tensor, how: str, toward_L: Tensor) -> Tensor:
    """One example's label log-probabilities [L] from those of its windows.

    `any` takes the window that leans most toward `toward_L` (the positive label, or high levels), `all` the one that leans least,
    `mean` the mean probability.
    """
    if len(log_p_WL) == 1:
        return log_p_WL[0]
    if how == "mean":
        return log_p_WL.logsumexp(0) - torch.log(torch.tensor(float(len(log_p_WL))))
    lean_W = (log_p_WL.detach().exp() * toward_L).sum(-1)
    return log_p_WL[int(lean_W.argmax() if how == "any" else lean_W.argmin())]


def combine_orders(forward_L: Tensor, swapped_L: Tensor, swap: Sequence[int]) -> Tensor:
    """Mean probability of a pair asked in both orders; `swap` maps each label to its mirror (a <-> b)."""
    return torch.logaddexp(forward_L, swapped_L[list(swap)]) - torch.log(torch.tensor(2.0))


def combine(label_logits: Sequence[Tensor], orders: int, metric: Metric) -> Tensor:
    """One example's label log-probabilities [L] from the label logits of all its reads (orders x windows, order by order)."""
    log_p_WL = torch.stack(list(label_logits)).float().log_softmax(-1)
    toward_L = torch.tensor(metric.leaning, device=log_p_WL.device)
    if orders == 1:
        return combine_windows(log_p_WL, metric.window_rule, toward_L)
    forward_WL, swapped_WL = log_p_WL.chunk(2)
    mirrored_L = toward_L[list(metric.mirror)]
    forward_L, swapped_L = (combine_windows(part, metric.window_rule, toward) for part, toward in ((forward_WL, toward_L), (swapped_WL, mirrored_L)))
    return combine_orders(forward_L, swapped_L, metric.mirror)
