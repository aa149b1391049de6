"""Networks that learn a concealed parity, several side by side (Miller et al. 2024, section 3.2).

Linear(n, 1000), ReLU, Linear(1000, 2) without bias, cross-entropy, plain SGD. One network is too
small to keep a processor busy, so that all runs of one input size are trained in one batch of
matrix products, with the gradient written out: it has only two products of matrices.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from tasks import concealed_parity, split
from torch import Tensor

HIDDEN_BITS = 3  # k: the label is their parity
N_EXAMPLES, N_TRAIN = 1000, 750
WIDTH = 1000
RATE, DECAY = 1e-2, 1e-2
BATCH = 32
STEPS_PER_EPOCH = -(-N_TRAIN // BATCH)
CURVES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")


def batch_weights(n: int) -> Tensor:
    """Weights, shape (n,), that turn figures of examples into the mean over their mini-batches.

    The paper averages over mini-batches, and the last one of an epoch is smaller.

    >>> [round(w, 4) for w in batch_weights(40)[[0, 31, 32]].tolist()]
    [0.0156, 0.0156, 0.0625]
    """
    sizes = [min(BATCH, n - start) for start in range(0, n, BATCH)]
    weights = [1 / size / len(sizes) for size in sizes]
    return torch.tensor(weights).repeat_interleave(torch.tensor(sizes))


class Nets:
    """Two-layer networks of one size, one per leading index, and their gradient.

    Args:
        n_bits: inputs.
        seeds: of the initial weights, one per network.
        width: hidden units.

    >>> nets = Nets(5, seeds=(0, 1), width=8)
    >>> nets.forward(nets.with_bias(torch.zeros(2, 7, 5))).shape
    torch.Size([2, 7, 2])
    """

    def __init__(self, n_bits: int, seeds: Sequence[int], width: int = WIDTH) -> None:
        inner, outer = [], []
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)

            def uniform(*shape: int, bound: float, source: torch.Generator = generator) -> Tensor:
                return (2 * torch.rand(*shape, generator=source) - 1) * bound

            weight = uniform(n_bits, width, bound=(6 / (n_bits + width)) ** 0.5)  # Xavier
            bias = uniform(1, width, bound=n_bits**-0.5)  # what torch.nn.Linear begins with
            inner.append(torch.cat([weight, bias]))
            outer.append(uniform(2, width, bound=(6 / (width + 2)) ** 0.5))
        self.inner, self.outer = torch.stack(inner), torch.stack(outer)

    @staticmethod
    def with_bias(x: Tensor) -> Tensor:
        """Bits of shape (runs, n, n_bits) with a column of ones."""
        return torch.cat([x, torch.ones_like(x[..., :1])], -1)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, shape (runs, n, 2), of bits with a column of ones."""
        return torch.bmm(torch.bmm(x, self.inner).clamp_(min=0), self.outer.mT)

    def step(self, x: Tensor, targets: Tensor) -> Tensor:
        """One step of SGD on the cross-entropy; the logits before it.

        Args:
            x: bits with a column of ones, shape (runs, n, n_bits + 1).
            targets: one-hot, shape (runs, n, 2).
        """
        hidden = torch.bmm(x, self.inner).clamp_(min=0)
        logits = torch.bmm(hidden, self.outer.mT)
        error = (logits.softmax(-1) - targets) / x.shape[1]
        d_hidden = torch.bmm(error, self.outer).mul_(hidden.sign())  # sign: 0 or 1, and no cast
        keep = 1 - RATE * DECAY
        self.outer.baddbmm_(error.mT, hidden, beta=keep, alpha=-RATE)
        self.inner.baddbmm_(x.mT, d_hidden, beta=keep, alpha=-RATE)
        return logits


def _scores(logits: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and accuracy, each of shape (runs,)."""
    losses = -(logits.log_softmax(-1) * targets).sum(-1)
    right = (logits.argmax(-1) == targets.argmax(-1)).float()
    # The sum of the weights is 1 but for rounding.
    return losses @ weights, (right @ weights).clamp_(max=1)


def train(
    n_bits: int, seeds: Sequence[int], epochs: int, advance: Callable[[], object] = lambda: None
) -> dict[str, np.ndarray]:
    """Train one network per seed, each on its own data; the curves, shape (runs, epochs).

    Training figures are those of the mini-batches as they are met, validation figures those at
    the end of the epoch, as in the paper's code.

    >>> curves = train(5, seeds=(0,), epochs=2)
    >>> {name: curve.shape for name, curve in curves.items()}["val_accuracy"]
    (1, 2)
    """
    data = [concealed_parity(N_EXAMPLES, HIDDEN_BITS, n_bits, seed) for seed in seeds]
    parts = [split(N_EXAMPLES, N_TRAIN / N_EXAMPLES, seed) for seed in seeds]

    def gathered(which: int) -> tuple[Tensor, Tensor]:
        bits = np.stack([x[part[which]] for (x, _), part in zip(data, parts, strict=True)])
        labels = np.stack([y[part[which]] for (_, y), part in zip(data, parts, strict=True)])
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), 2).float()
        return Nets.with_bias(torch.from_numpy(bits).float()), one_hot

    (x, y), (x_val, y_val) = gathered(0), gathered(1)
    weights, val_weights = batch_weights(N_TRAIN), batch_weights(x_val.shape[1])
    nets, shuffles = Nets(n_bits, seeds), [np.random.default_rng((seed, 1)) for seed in seeds]
    runs = torch.arange(len(seeds))[:, None]
    curves = torch.empty(len(CURVES), len(seeds), epochs)
    logits = torch.empty_like(y)
    for epoch in range(epochs):
        order = torch.from_numpy(np.stack([rng.permutation(N_TRAIN) for rng in shuffles]))
        x_now, y_now = x[runs, order], y[runs, order]
        for start in range(0, N_TRAIN, BATCH):
            batch = slice(start, start + BATCH)
            logits[:, batch] = nets.step(x_now[:, batch], y_now[:, batch])
        curves[0, :, epoch], curves[1, :, epoch] = _scores(logits, y_now, weights)
        curves[2, :, epoch], curves[3, :, epoch] = _scores(nets.forward(x_val), y_val, val_weights)
        advance()
    return dict(zip(CURVES, curves.numpy(), strict=True))


def train_or_load(
    path: Path, n_bits: int, seeds: Sequence[int], epochs: int, advance: Callable[[], object]
) -> dict[str, np.ndarray]:
    """The curves from ``path`` if they are there, else trained and written there."""
    try:
        with path.open("rb") as file, np.load(file) as saved:
            kept = {name: saved[name] for name in CURVES}
            same = saved["seeds"].tolist() == list(seeds) and saved["n_bits"] == n_bits
        if same and all(curve.shape == (len(seeds), epochs) for curve in kept.values()):
            for _ in range(epochs):
                advance()
            return kept
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        pass  # nothing there, or a file cut off: train
    curves = train(n_bits, seeds, epochs, advance)
    np.savez_compressed(path, seeds=np.array(seeds), n_bits=np.array(n_bits), **curves)
    return curves
