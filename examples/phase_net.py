"""Many one-layer transformers at once, along a leading axis, and the optimiser that trains them.

Each is `models.Transformer(p, p, n_layers=1)`. Only the last position answers, so it alone asks,
and what it attends to takes 2p + 2 distinct values: a in the first place, the operator, b in the
third, the sign "=". Keys, values and their weights are computed once for each of these rows; an
equation is then a sum of four of them, which is one matrix product with its one-hot code.
"""

from __future__ import annotations

import math

import torch
from models import Transformer
from tasks import equations, split
from torch import Tensor
from torch.nn import functional as F

BETAS, EPSILON, WARM_UP = (0.9, 0.98), 1e-8, 10
_BLOCK = "blocks.0."


class Net:
    """The network of every run of a sweep: shapes, no weights.

    Args:
        p: modulus; also the number of classes.
        width: size of the residual stream.
        n_heads: number of heads.

    >>> net = Net(5, 8)
    >>> weights = torch.stack([net.start(seed) for seed in range(3)])
    >>> net(weights, net.code(torch.tensor([[0, 1], [4, 4]])).expand(3, -1, -1)).shape
    torch.Size([3, 2, 5])
    """

    def __init__(self, p: int, width: int, n_heads: int = 4) -> None:
        self.p, self.width, self.n_heads = p, width, n_heads
        parameters = Transformer(p, p, 1, n_heads, width).named_parameters()
        self._shapes = {name: one.shape for name, one in parameters}
        self._sizes = [shape.numel() for shape in self._shapes.values()]

    def start(self, seed: int) -> Tensor:
        """Weights of one run as `models.Transformer` draws them, flat."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = Transformer(self.p, self.p, 1, self.n_heads, self.width)
        return torch.cat([one.detach().flatten() for one in model.parameters()])

    def code(self, pairs: Tensor) -> Tensor:
        """One-hot codes of pairs, shape (n, 2): the four table rows each attends to."""
        n, p = len(pairs), self.p
        code = torch.zeros(n, 2 * p + 2)
        at = torch.arange(n)
        code[at, pairs[:, 0]] = code[at, p + 1 + pairs[:, 1]] = 1.0
        code[:, p] = code[:, -1] = 1.0
        return code

    def __call__(self, weights: Tensor, code: Tensor) -> Tensor:
        """Logits, shape (runs, n, p), from flat weights (runs, size) and codes (runs, n, rows)."""
        runs, n = code.shape[:2]
        p, d, heads = self.p, self.width, self.n_heads
        parts = zip(self._shapes.items(), weights.split(self._sizes, 1), strict=True)
        of = {name: part.view(runs, *shape) for (name, shape), part in parts}
        token, place = of["embedding.weight"], of["position"]
        table = torch.cat(
            [
                token[:, :p] + place[:, 0:1],
                token[:, p : p + 1] + place[:, 1:2],
                token[:, :p] + place[:, 2:3],
                token[:, p + 1 :] + place[:, 3:4],
            ],
            dim=1,
        )
        last = table[:, -1:]
        qkv = of[_BLOCK + "attention.qkv.weight"]
        query = torch.bmm(last, qkv[:, :d].mT).view(runs, 1, heads, d // heads)
        keys, values = (
            torch.bmm(table, qkv[:, d:].mT).view(runs, -1, 2, heads, d // heads).unbind(2)
        )
        scores = (keys * query).sum(-1) / math.sqrt(d // heads)
        # A softmax over four rows is a ratio of sums; the largest of all rows cancels in it.
        shares = (scores - scores.detach().amax(1, keepdim=True)).exp()
        summands = torch.cat([(shares[..., None] * values).flatten(2), shares], dim=2)
        sums = torch.bmm(code, summands)
        mixed = sums[..., :d].view(runs, n, heads, -1) / sums[..., d:, None]
        x = torch.baddbmm(last, mixed.view(runs, n, d), of[_BLOCK + "attention.out.weight"].mT)
        x = self._norm(x, of, 0)
        hidden = self._linear(x, of, 0).relu()
        x = self._norm(x + self._linear(hidden, of, 2), of, 1)
        return torch.bmm(x, of["head.weight"].mT)

    def _norm(self, x: Tensor, of: dict[str, Tensor], which: int) -> Tensor:
        name = f"{_BLOCK}norms.{which}."
        return (
            F.layer_norm(x, (self.width,)) * of[name + "weight"][:, None]
            + of[name + "bias"][:, None]
        )

    def _linear(self, x: Tensor, of: dict[str, Tensor], which: int) -> Tensor:
        name = f"{_BLOCK}feed_forward.{which}."
        return torch.baddbmm(of[name + "bias"][:, None], x, of[name + "weight"].mT)


class AdamW:
    """AdamW on the rows of a matrix, each with its own rates and its own count of steps.

    Args:
        weights: shape (runs, size); changed in place.
        rates: learning rate of each run, shape (runs,); the first steps warm up linearly.
        decays: weight decay of each run.
        clips: largest norm of each run's gradient; infinity for none.

    >>> weights = torch.ones(1, 2)
    >>> optimizer = AdamW(weights, *(torch.tensor([x]) for x in (0.1, 0.0, math.inf)))
    >>> optimizer.step(torch.tensor([[1.0, -1.0]]))
    >>> weights
    tensor([[0.9900, 1.0100]])
    """

    def __init__(self, weights: Tensor, rates: Tensor, decays: Tensor, clips: Tensor) -> None:
        self.weights, self.rates, self.decays, self.clips = weights, rates, decays, clips
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)
        self.steps = torch.zeros(len(weights), dtype=torch.float64)

    def keep(self, rows: Tensor) -> None:
        """Only these runs go on."""
        for name in ("weights", "rates", "decays", "clips", "first", "second", "steps"):
            setattr(self, name, getattr(self, name)[rows])

    def join(self, other: AdamW) -> None:
        """Take another's runs in, behind one's own."""
        for name in ("weights", "rates", "decays", "clips", "first", "second", "steps"):
            setattr(self, name, torch.cat([getattr(self, name), getattr(other, name)]))

    @torch.no_grad()
    def step(self, gradient: Tensor) -> None:
        """One update from the gradient, shape (runs, size)."""
        self.steps += 1
        if torch.isfinite(self.clips).any():
            norms = gradient.norm(dim=1)
            shrunk = torch.where(norms > self.clips, self.clips / norms, 1.0)
            gradient = gradient * shrunk.to(gradient)[:, None]
        rates = self.rates * (self.steps / WARM_UP).clamp(max=1.0)
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        scale = (1 - BETAS[1] ** self.steps).rsqrt().float()[:, None]
        size = self.second.sqrt().mul_(scale).add_(EPSILON)
        self.weights.mul_((1 - rates * self.decays).float()[:, None])
        pace = (rates / (1 - BETAS[0] ** self.steps)).float()[:, None]
        self.weights.sub_((self.first / size).mul_(pace))


def symmetric_split(p: int, fraction: float, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each sum a + b mod p once, a <= b, as in Notsawo et al. 2023, split at random.

    Returns:
        Training pairs (n, 2) and answers (n,), validation pairs and answers.

    >>> train, _, val, _ = symmetric_split(97, 0.5, 0)
    >>> len(train), len(val)
    (2376, 2377)
    """
    pairs, answers, _ = equations("+", p)
    once = pairs[:, 0] <= pairs[:, 1]
    x, y = torch.from_numpy(pairs[once]), torch.from_numpy(answers[once])
    train, val = (torch.from_numpy(part) for part in split(len(x), fraction, seed))
    return x[train], y[train], x[val], y[val]
