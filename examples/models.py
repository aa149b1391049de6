"""The two small networks of the examples: an MLP on two operands and a decoder transformer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "quadratic": torch.square,
}


class MLP(nn.Module):
    """Embed both operands, combine them, one hidden layer, answer.

    Args:
        n_tokens: Number of different operands.
        width: Number of hidden units.
        n_classes: Number of answers.
        embedding: Size of an operand's embedding.
        activation: "relu", "gelu" or "quadratic" (x²).
        combine: "concat", or "sum", which cannot tell a∘b from b∘a: a pair whose mirror image is
            in the training set then comes for free.

    Raises:
        ValueError: If the activation or the way to combine is unknown.

    >>> MLP(53, 128, 53)(torch.tensor([[3, 5], [1, 2]])).shape
    torch.Size([2, 53])
    """

    def __init__(
        self,
        n_tokens: int,
        width: int,
        n_classes: int,
        embedding: int = 32,
        activation: str = "relu",
        combine: Literal["concat", "sum"] = "concat",
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be in {sorted(ACTIVATIONS)} but got {activation!r}.")
        if combine not in ("concat", "sum"):
            raise ValueError(f"combine must be 'concat' or 'sum' but got {combine!r}.")
        self.activation = ACTIVATIONS[activation]
        self.combine = combine
        self.embedding = nn.Embedding(n_tokens, embedding)
        nn.init.normal_(self.embedding.weight, std=embedding**-0.5)
        self.hidden = nn.Linear(2 * embedding if combine == "concat" else embedding, width)
        self.head = nn.Linear(width, n_classes, bias=False)

    def forward(self, pairs: Tensor) -> Tensor:
        """Map pairs of shape (n, 2) to logits of shape (n, n_classes)."""
        operands = self.embedding(pairs)
        combined = operands.flatten(1) if self.combine == "concat" else operands.sum(1)
        logits: Tensor = self.head(self.activation(self.hidden(combined)))
        return logits


class Attention(nn.Module):
    """Causal self-attention, written out so that Hessian-vector products can pass through it.

    Args:
        width: Size of the residual stream, divisible by n_heads.
        n_heads: Number of heads.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        if width % n_heads:
            raise ValueError(f"width must be a multiple of n_heads = {n_heads} but got {width}.")
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix positions of x, shape (n, positions, width)."""
        n, positions, width = x.shape
        heads = self.qkv(x).view(n, positions, 3, self.n_heads, width // self.n_heads)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        # The fused kernel has no second derivative, which curvature probes need.
        scores = q @ k.transpose(-2, -1) / math.sqrt(width // self.n_heads)
        future = torch.ones(positions, positions, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(future, float("-inf")).softmax(-1) @ v
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(n, positions, width))
        return out


class Block(nn.Module):
    """Attention and a 4x ReLU layer, each with a residual connection and a LayerNorm.

    Args:
        width: Size of the residual stream.
        n_heads: Number of heads.
        norm: "pre" normalises what enters a sublayer, "post" the sum that leaves it.
    """

    def __init__(self, width: int, n_heads: int, norm: Literal["pre", "post"]) -> None:
        super().__init__()
        self.pre = norm == "pre"
        self.attention = Attention(width, n_heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x: Tensor) -> Tensor:
        """Transform x of shape (n, positions, width)."""
        for sublayer, norm in zip((self.attention, self.feed_forward), self.norms, strict=True):
            x = x + sublayer(norm(x)) if self.pre else norm(x + sublayer(x))
        return x


class Transformer(nn.Module):
    """A decoder on the sequence [a, op, b, =] that answers at the last position.

    Positions are learned. With the defaults and p = 97 it has about 421 000 parameters, close
    to the network of Power et al. 2022.

    Args:
        n_tokens: Number of different operands; the signs "op" and "=" are added here.
        n_classes: Number of answers.
        n_layers: Number of blocks.
        n_heads: Heads per block.
        width: Size of the residual stream, divisible by n_heads.
        norm: "pre" or "post" LayerNorm.

    Raises:
        ValueError: If the width is not a multiple of n_heads or the norm is unknown.

    >>> Transformer(29, 29, width=32)(torch.tensor([[3, 5], [1, 2]])).shape
    torch.Size([2, 29])
    """

    def __init__(
        self,
        n_tokens: int,
        n_classes: int,
        n_layers: int = 2,
        n_heads: int = 4,
        width: int = 128,
        norm: Literal["pre", "post"] = "post",
    ) -> None:
        super().__init__()
        if norm not in ("pre", "post"):
            raise ValueError(f"norm must be 'pre' or 'post' but got {norm!r}.")
        self.operator_token, self.equals_token = n_tokens, n_tokens + 1
        self.embedding = nn.Embedding(n_tokens + 2, width)
        self.position = nn.Parameter(torch.empty(4, width))
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        nn.init.normal_(self.position, std=width**-0.5)
        self.blocks = nn.Sequential(*(Block(width, n_heads, norm) for _ in range(n_layers)))
        self.final_norm = nn.LayerNorm(width) if norm == "pre" else nn.Identity()
        self.head = nn.Linear(width, n_classes, bias=False)

    def forward(self, pairs: Tensor) -> Tensor:
        """Map pairs of shape (n, 2) to logits of shape (n, n_classes)."""
        a, b = pairs.unbind(1)
        sequence = torch.stack(
            [a, torch.full_like(a, self.operator_token), b, torch.full_like(a, self.equals_token)],
            dim=1,
        )
        x = self.blocks(self.embedding(sequence) + self.position)
        logits: Tensor = self.head(self.final_norm(x[:, -1]))
        return logits
