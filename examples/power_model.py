"""The transformer of Power et al. 2022, computed without doing anything twice.

A decoder reads `<eos> a op b =` and continues with the answer. Its attention looks back only, so
what the positions `<eos> a op` hold depends on a alone: they are computed once for every a, not
once for every equation, and the equations of a batch look up their keys and values there. In the
last layer only the positions that answer ask a query. Neither changes the function.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Equations(NamedTuple):
    """Sequences of tokens, cut into what many of them begin with and the rest of each.

    Attributes:
        prefixes: the different beginnings, shape (n_prefixes, m).
        which: the beginning of each sequence, shape (n,).
        rest: what follows it, up to the last token that answers, shape (n, r).
        answers: the tokens to be predicted, shape (n, k): by the last k positions of the rest.
    """

    prefixes: Tensor
    which: Tensor
    rest: Tensor
    answers: Tensor

    def take(self, chosen: Tensor) -> Equations:
        """Those at the indices ``chosen``."""
        return Equations(self.prefixes, self.which[chosen], self.rest[chosen], self.answers[chosen])

    def whole(self) -> Equations:
        """The same sequences with nothing shared, as one would feed them to any decoder."""
        rows = torch.cat([self.prefixes[self.which], self.rest], dim=1)
        return Equations(rows[:0, :0], self.which, rows, self.answers)

    def to(self, device: str) -> Equations:
        """The same on another device."""
        return Equations(*(part.to(device) for part in self))


def sinusoids(length: int, width: int) -> Tensor:
    """Position encoding of Vaswani et al. 2017, § 3.5, shape (length, width).

    >>> sinusoids(2, 4)[0].tolist()
    [0.0, 1.0, 0.0, 1.0]
    """
    at = torch.arange(length)[:, None] / 10_000 ** (torch.arange(0, width, 2) / width)
    return torch.stack([at.sin(), at.cos()], dim=2).flatten(1)[:, :width]


class _Block(nn.Module):
    """Attention and a 4x ReLU layer without biases, LayerNorm after each residual sum."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False),
            nn.ReLU(),
            nn.Linear(4 * width, width, bias=False),
        )
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def keys_values(self, x: Tensor) -> Tensor:
        """Keys and values of x, shape (n, positions, width), beside each other."""
        found: Tensor = self.key_value(x)
        return found

    def forward(self, x: Tensor, keys_values: Tensor) -> Tensor:
        """Transform x, the last positions of those that ``keys_values`` belong to."""
        asking, width = x.shape[1:]
        q = self._heads(self.query(x))[:, :, None]
        k, v = self._heads(keys_values[..., :width]), self._heads(keys_values[..., width:])
        seen = k.shape[1]
        # A handful of positions: sums of products beat the batched and the fused kernels by far.
        scores = (q * k[:, None]).sum(-1) / math.sqrt(q.shape[-1])  # n, asking, seen, heads
        if asking > 1:
            future = torch.ones(asking, seen, dtype=torch.bool, device=x.device)
            scores = scores.masked_fill(future.triu(seen - asking + 1)[:, :, None], -math.inf)
        mixed = (scores.softmax(2)[..., None] * v[:, None]).sum(2)
        x = self.attention_norm(x + self.out(mixed.flatten(2)))
        transformed: Tensor = self.feed_forward_norm(x + self.feed_forward(x))
        return transformed

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1))


class Decoder(nn.Module):
    """The network of Power et al. 2022: 394,240 parameters in its blocks with the defaults.

    Args:
        n_tokens: size of the vocabulary, signs included.
        n_layers: number of blocks.
        n_heads: heads of each.
        width: of the residual stream, divisible by n_heads.
        longest: sequence that the position encoding covers.
        scale: of the initial embeddings and of the positions; 1 is the paper's, and the smaller
            it is, the sooner the embeddings are learnt and not only used.

    Raises:
        ValueError: if the width is not a multiple of n_heads.

    >>> model = Decoder(100)
    >>> sum(w.numel() for w in model.blocks.parameters())
    394240
    """

    def __init__(
        self,
        n_tokens: int,
        n_layers: int = 2,
        n_heads: int = 4,
        width: int = 128,
        longest: int = 16,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(f"width must be a multiple of n_heads = {n_heads} but got {width}.")
        self.embedding = nn.Embedding(n_tokens, width)
        with torch.no_grad():
            self.embedding.weight.mul_(scale)
        self.register_buffer("position", scale * sinusoids(longest, width))
        self.blocks = nn.ModuleList(_Block(width, n_heads) for _ in range(n_layers))
        self.head = nn.Linear(width, n_tokens, bias=False)

    def forward(self, batch: Equations) -> Tensor:
        """Logits of the answers, shape (n, k, n_tokens)."""
        m, (_, r), k = batch.prefixes.shape[1], batch.rest.shape, batch.answers.shape[1]
        position: Tensor = self.get_buffer("position")
        shared = self.embedding(batch.prefixes) + position[:m]
        x = self.embedding(batch.rest) + position[m : m + r]
        for layer, block in enumerate(self.blocks):
            last = layer == len(self.blocks) - 1
            keys_values = block.keys_values(x)
            if m:
                before = block.keys_values(shared)
                if not last:
                    shared = block(shared, before)
                keys_values = torch.cat([before[batch.which], keys_values], dim=1)
            x = block(x[:, r - k :] if last else x, keys_values)
        logits: Tensor = self.head(x)
        return logits
