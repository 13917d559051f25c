"""The backbone: encode contents to content states, read readouts against them to label logits.

One interface for the embedded default and for any decoder in the Hugging Face layout. Knows nothing of text, fields or metrics.

Rows of every pack are padded to a multiple of `row_tile`: matrix libraries pick another summation order for very few rows, and with
the padding a row's result does not depend on what it is packed with (docs/design/0006, tested).

Tensors: T packed tokens, D width, L labels, B batch, S readout tokens, C content tokens.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from snapjudge.errors import BackboneUnsupported
from snapjudge.model.adapter import Adapter
from snapjudge.model.attention import TILE, ContentState, LayerState, Pass, Switch
from snapjudge.model.grouped import RowAdapters, batched
from snapjudge.model.head import Head
from snapjudge.model.linears import adapt_linears
from snapjudge.model.packing import Ask, NewTokens, Pack, Step
from snapjudge.model.passes import StepPass
from snapjudge.model.prompt_rules import ContentMask, PromptRules, PromptStyle
from snapjudge.model.readout import Readout
from snapjudge.model.tables import sent
from snapjudge.model.tokens import Ids, TextTokens
from snapjudge.model.training_passes import EncodePass, Packed, TrainPass, WholePass

if TYPE_CHECKING:
    from snapjudge.model.recorder import Recorder


class Backbone:
    """A frozen decoder all judges share.

    Args:
        rules: how text becomes its token ids; `digest` identifies its weights and tokenizer.
        model: module tree whose linears take adapters; `forward` maps (ids, positions) to last hidden states.
        head_VD: output embedding; only the rows of answer tokens are ever multiplied. `head_bias_V` its bias, if any.
        softcap: final logit soft cap (Gemma 2), if any; `logit_scale` a constant factor on logits (Cohere, Granite).
        depth: how many attention layers it has.
        int8: whether its linear layers are computed in int8 (`products`); everything else is in the type of its weights.
    """

    def __init__(
        self,
        *,
        rules: PromptRules,
        digest: str,
        model: nn.Module,
        forward: Callable[[Tensor, Tensor], Tensor],
        head_VD: Tensor,
        depth: int,
        switch: Switch,
        head_bias_V: Tensor | None = None,
        softcap: float | None = None,
        logit_scale: float = 1.0,
        skip: nn.Module | None = None,
        int8: bool = False,
    ) -> None:
        self.rules, self.digest, self.depth = rules, digest, depth
        self.content_mask: ContentMask = rules.content_mask
        self.switch = switch
        self._forward = forward
        self.head = Head(head_VD, head_bias_V, softcap, logit_scale)
        self.model = model
        self.linears = adapt_linears(model, switch, int8=int8, skip=skip)
        self.device, self.dtype = head_VD.device, head_VD.dtype
        self.precision = "int8" if int8 else str(self.dtype).removeprefix("torch.")
        self._lock = threading.RLock()
        switch.kernels = self.device.type == "cuda" and find_spec("triton") is not None
        self._recorder = self._recorder_of_steps() if switch.kernels else None

    def _recorder_of_steps(self) -> "Recorder":
        from snapjudge.model.recorder import Recorder  # noqa: PLC0415 - Triton is there where there is an accelerator

        return Recorder(self._run_recorded, self.switch, self.device)

    @property
    def name(self) -> str:
        """How people name it."""
        return self.rules.name

    @property
    def tokens(self) -> TextTokens:
        """Its tokenizer."""
        return self.rules.tokens

    @property
    def style(self) -> PromptStyle:
        """How it wants its fields marked."""
        return self.rules.style

    @property
    def width(self) -> int:
        """Length of a hidden state, and so of a content's summary."""
        return int(self.head.weight_VD.shape[1])

    @property
    def vocabulary(self) -> int:
        """Token ids are below this."""
        return len(self.head.weight_VD)

    @property
    def content_tokens(self) -> int:
        """How many tokens a content may have."""
        return self.rules.content_tokens

    @property
    def readout_tokens(self) -> int:
        """How many tokens a readout may have."""
        return self.rules.readout_tokens

    def step(self, contents: Sequence[NewTokens], asks: Sequence[Ask], *, summaries: bool = False) -> Step:
        """One pass over new tokens of contents and readouts of any judges, whatever their adapters and lengths.

        Args:
            asks: each against one of the step's contents, by index, or against a state at hand.
            summaries: whether the contents' mean hidden states are wanted; they cost the last layer of every content token.
        """
        pack = Pack(contents, asks, self.dtype, self.device)
        with self._lock, torch.inference_mode(), torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
            hidden_TD, captured = (self._by_kernels if self.switch.kernels else self._plainly)(pack, summaries)
            assert len(captured) == self.depth, "an attention layer did not ask the pass"
            logits = self.head.step_logits(hidden_TD, [ask.readout for ask in asks], [pack.last_rows[index] for index in range(len(asks))])
        rows = [slice(span.start, span.end) for span in pack.contents]
        states = [ContentState([(keys[:, own], values[:, own]) for keys, values in captured], own.stop - own.start) for own in rows]
        return Step(states, [hidden_TD[own].float().mean(0) for own in rows] if summaries else [], logits, pack.total)

    def encode(self, contents: Sequence[Ids], adapter: Adapter | None = None) -> list[ContentState]:
        """Content states of token id sequences, computed in one pass."""
        return self.step([NewTokens(ids, adapter=adapter) for ids in contents], []).states

    def append(self, state: ContentState, ids: Ids, adapter: Adapter | None = None) -> ContentState:
        """The state of a content that goes on: only the new tokens are computed. Streaming and sessions are built on it.

        Raises:
            BackboneUnsupported: the backbone's tokens see what comes after them, so that nothing computed before stays valid.
        """
        if self.content_mask != "causal":
            raise BackboneUnsupported(
                f"{self.name} reads contents in both directions and cannot append", hint="encode the whole content, or use a causal backbone"
            )
        (new,) = self.step([NewTokens(ids, state, adapter)], []).states
        pairs = zip(state.layers, new.layers, strict=True)
        layers = [(torch.cat((old[0], more[0]), 1), torch.cat((old[1], more[1]), 1)) for old, more in pairs]
        return ContentState(layers, state.length + len(ids))

    def read(self, asks: Sequence[Ask]) -> list[Tensor]:
        """Label logits [L] in float32 of every ask against states at hand, computed in one pass, in the order asked."""
        return self.step([], asks).logits

    def encode_for_training(self, contents: Sequence[Ids], adapter: Adapter) -> list[ContentState]:
        """Content states under an adapter on every token, differentiable in it."""
        segments, total = _segments([len(ids) for ids in contents])
        one = EncodePass(segments, causal=self.content_mask == "causal")
        ids = [i for content in contents for i in content]
        places = [place for content in contents for place in range(len(content))]
        self._run(one, ids, places, total, trained=adapter)
        return [ContentState([(keys[:, start:end], values[:, start:end]) for keys, values in one.captured], end - start) for start, end in segments]

    def read_batch(self, layers: Callable[[int], LayerState], lengths_B: Tensor, readout: Readout, adapter: Adapter) -> Tensor:
        """Label logits [B, L] of one readout against B padded contents: the differentiable form that training uses."""
        batch, steps = len(lengths_B), len(readout.token_ids)
        ids_BS = torch.tensor(readout.token_ids, device=self.device).expand(batch, steps)
        places_BS = lengths_B[:, None] + torch.arange(steps, device=self.device)
        with self._pass(TrainPass(layers, lengths_B), trained=adapter):
            hidden_BSD = self._forward(ids_BS, places_BS)
        return self.head.label_logits(hidden_BSD[:, -1], readout)

    def unfreeze(self) -> dict[str, Tensor]:
        """Make every weight trainable; name -> weight, tied ones once. The backbone is then read through `read_whole`."""
        return {name: weight.requires_grad_() for name, weight in self.model.named_parameters()}

    def read_whole(self, contents: Sequence[tuple[Ids, Sequence[Readout]]]) -> tuple[Tensor, Tensor]:
        """Label logits [R, L] of all readouts, content by content (-inf behind those of fewer labels), and the contents' mean hidden states [C, D].

        Differentiable in all weights: the form that training a backbone uses.
        """
        packed, at = list[Packed](), 0
        for content, readouts in contents:
            packed.append(Packed(at, len(content), tuple(len(readout.token_ids) for readout in readouts)))
            at = packed[-1].end
        ids = [i for content, readouts in contents for part in (content, *(readout.token_ids for readout in readouts)) for i in part]
        places = [place for one in packed for place in one.places]
        both_2T = sent(torch.tensor([ids, places]), self.device)
        with self._pass(WholePass(packed, self.content_mask == "causal", self.device, fused=self.device.type != "cpu"), whole=True):
            hidden_TD = self._forward(both_2T[:1], both_2T[1:])[0]
        rows = [row for one in packed for row in one.last_rows]
        readouts = [readout for _, some in contents for readout in some]
        logits_RL = self.head.differentiable(hidden_TD, readouts, rows) if readouts else hidden_TD.new_empty(0, 0)
        return logits_RL, self._means(hidden_TD, packed)

    def _means(self, hidden_TD: Tensor, packed: Sequence[Packed]) -> Tensor:
        """The contents' mean hidden states [C, D]."""
        sizes_C = torch.tensor([one.content for one in packed])
        owner_N = sent(torch.arange(len(packed)).repeat_interleave(sizes_C), self.device)
        row_N = sent(torch.cat([torch.arange(one.start, one.start + one.content) for one in packed]), self.device)
        sums_CD = hidden_TD.new_zeros(len(packed), hidden_TD.shape[1], dtype=torch.float32).index_add(0, owner_N, hidden_TD[row_N].float())
        return sums_CD / sent(sizes_C.float(), self.device)[:, None]

    def _plainly(self, pack: Pack, keep_contents: bool) -> tuple[Tensor, list[LayerState]]:  # noqa: FBT001
        """A step's hidden states [T, D] and each layer's keys and values."""
        one = StepPass(
            contents=pack.contents,
            reads=pack.reads,
            equal=pack.equal,
            reads_from=pack.reads_from,
            reads_to=pack.reads_to,
            causal=self.content_mask == "causal",
            depth=self.depth,
            keep_contents=keep_contents,
            switch=self.switch,
        )
        owners = [rows for some in pack.owners for rows in batched(some, self.dtype, self.device)]
        return self._run(one, pack.ids, pack.places, pack.total, owners=owners), one.captured

    def _by_kernels(self, pack: Pack, keep_contents: bool) -> tuple[Tensor, list[LayerState]]:  # noqa: FBT001
        """The same with our own kernels; small steps from a recording."""
        from snapjudge.model.kernel_pass import AdapterTiles, KernelPass, laid_out  # noqa: PLC0415 - see _recorder_of_steps

        at_hand = laid_out(pack.at_hand)
        spans, readouts = pack.laid_out(at_hand.blocks)
        one = KernelPass(
            spans=spans,
            readouts=readouts,
            pool=at_hand.pool,
            pool_owner=at_hand.owner,
            page=at_hand.page,
            rows=pack.total,
            reads_from=pack.reads_from,
            causal=self.content_mask == "causal",
            depth=self.depth,
            keep_contents=keep_contents,
            switch=self.switch,
        )
        adapters = AdapterTiles.of([owner for some in pack.owners for owner in some], self.linears, self.dtype, self.device)
        if self._recorder is not None and not keep_contents:
            recorded = self._recorder.step(one, pack.ids, pack.places, adapters)
            if recorded is not None:
                return recorded
        return self._run(one, pack.ids, pack.places, pack.total, owners=adapters), one.captured

    def _run(self, one: Pass, ids: list[int], places: list[int], total: int, *, owners: Sequence[RowAdapters] = (), trained: Adapter | None = None) -> Tensor:
        """One packed forward pass over `total` rows; returns hidden states [T, D]."""
        padding = [0] * (total - len(ids))
        both_2T = sent(torch.tensor([ids + padding, places + padding]), self.device)
        with self._pass(one, owners=owners, trained=trained):
            return self._forward(both_2T[:1], both_2T[1:])[0]

    def _run_recorded(self, one: Pass, ids_1T: Tensor, places_1T: Tensor, adapters: RowAdapters | None) -> Tensor:
        """The same for token ids and positions that lie on the device."""
        with self._pass(one, owners=() if adapters is None else (adapters,)):
            return self._forward(ids_1T, places_1T)[0]

    @contextmanager
    def _pass(self, one: Pass, *, owners: Sequence[RowAdapters] = (), trained: Adapter | None = None, whole: bool = False) -> Iterator[None]:
        with self._lock:  # threads take turns: the modules find the pass on the switch
            assert self.switch.current is None, "a pass inside a pass"
            self.switch.current, self.switch.adapters, self.switch.trained, self.switch.whole = one, owners, trained, whole
            try:
                yield
            finally:
                self.switch.reset()


def _segments(lengths: Sequence[int]) -> tuple[list[tuple[int, int]], int]:
    """Start and end of each item in a pack, and the pack's padded length."""
    segments, at = [], 0
    for length in lengths:
        segments.append((at, at + length))
        at += length
    return segments, at + (-at % TILE)
