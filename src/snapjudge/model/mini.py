"""The embedded default's network: MiniLM's layers in plain torch, under the names they have in `transformers`.

It exists so that the offline default starts in a second: importing transformers alone takes three (docs/design/0002).
The contract suite holds it to `transformers.BertModel` to 1e-4. Knows nothing of text or adapters.

Tensors: B batch, T tokens, D width, Q heads, d head width.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from snapjudge.model.attention import Shape, Switch


def _empty_embedding(rows: int, width: int) -> nn.Embedding:
    """An embedding without initial values: drawing them on the meta device would import a second of torch's compiler."""
    return nn.Embedding(rows, width, _weight=torch.empty(rows, width))


class _Embeddings(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.word_embeddings = _empty_embedding(config["vocab_size"], width)
        self.position_embeddings = _empty_embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = _empty_embedding(config["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, config["layer_norm_eps"])

    def forward(self, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        words_BTD = self.word_embeddings(ids_BT) + self.token_type_embeddings.weight[0]
        normed: Tensor = self.LayerNorm(words_BTD + self.position_embeddings(positions_BT))
        return normed


class _SelfAttention(nn.Module):
    def __init__(self, config: dict[str, Any], layer: int, switch: Switch) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.heads, self.layer, self.switch = config["num_attention_heads"], layer, switch
        self.query, self.key, self.value = nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        def split(y_BTD: Tensor) -> Tensor:
            heads: Tensor = y_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            return heads

        query, key, value = split(self.query(x_BTD)), split(self.key(x_BTD)), split(self.value(x_BTD))
        assert self.switch.current is not None, "forward outside a pass"
        out_BTQd = self.switch.current.attend(self.layer, query, key, value, Shape(query.shape[-1] ** -0.5))
        return out_BTQd.flatten(2)


class _Projected(nn.Module):
    """A linear layer, the residual added, normalised: MiniLM's output block after attention and after the MLP."""

    def __init__(self, inputs: int, config: dict[str, Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, config["hidden_size"])
        self.LayerNorm = nn.LayerNorm(config["hidden_size"], config["layer_norm_eps"])

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        normed: Tensor = self.LayerNorm(self.dense(x) + residual)
        return normed


class _Intermediate(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(config["hidden_size"], config["intermediate_size"])

    def forward(self, x: Tensor) -> Tensor:
        return functional.gelu(self.dense(x))


class _Attention(nn.Module):
    def __init__(self, config: dict[str, Any], layer: int, switch: Switch) -> None:
        super().__init__()
        self.self = _SelfAttention(config, layer, switch)
        self.output = _Projected(config["hidden_size"], config)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output(self.self(x), x)
        return out


class _Layer(nn.Module):
    def __init__(self, config: dict[str, Any], layer: int, switch: Switch) -> None:
        super().__init__()
        self.attention = _Attention(config, layer, switch)
        self.intermediate = _Intermediate(config)
        self.output = _Projected(config["intermediate_size"], config)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(x)
        out: Tensor = self.output(self.intermediate(attended), attended)
        return out


class _Encoder(nn.Module):
    def __init__(self, config: dict[str, Any], switch: Switch) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config, index, switch) for index in range(config["num_hidden_layers"]))


class _Bert(nn.Module):
    def __init__(self, config: dict[str, Any], switch: Switch) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config, switch)


class MiniDecoder(nn.Module):
    """MiniLM as a prefix language model; which token sees which is decided by the pass on the switch."""

    def __init__(self, config: dict[str, Any], switch: Switch) -> None:
        super().__init__()
        self.bert = _Bert(config, switch)

    def forward(self, ids_BT: Tensor, positions_BT: Tensor) -> Tensor:
        """Return the last layer's hidden states, [B, T, D]."""
        hidden: Tensor = self.bert.embeddings(ids_BT, positions_BT)
        for layer in self.bert.encoder.layer:
            hidden = layer(hidden)
        return hidden

    @property
    def head_VD(self) -> Tensor:
        """The output embedding, tied to the input's."""
        return self.bert.embeddings.word_embeddings.weight


def build_mini(config: dict[str, Any], tensors: dict[str, Tensor], switch: Switch, dtype: torch.dtype) -> MiniDecoder:
    """Build the network around loaded tensors without initialising any weight twice."""
    with torch.device("meta"):
        decoder = MiniDecoder(config, switch)
    decoder.load_state_dict({name: tensor.to(dtype) for name, tensor in tensors.items()}, assign=True)
    return decoder.eval().requires_grad_(False)
