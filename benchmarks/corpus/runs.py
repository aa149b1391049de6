"""One training run from its configuration: data, training in compiled code, labels, rows."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.corpus import loop
from benchmarks.corpus.embedding import embedding_init, embedding_work
from benchmarks.corpus.heads import CROSS_ENTROPY, GELU, MSE, QUADRATIC, RELU
from benchmarks.corpus.kernels import EMBEDDING, MLP, TRANSFORMER, mlp_init, mlp_work
from benchmarks.corpus.labels import outcome
from benchmarks.corpus.transformer_layout import (
    transformer_init,
    transformer_work,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
from tasks import concealed_parity, equations, split

PARITY = "parity"
EARLY_STEPS = 400
ROWS_PER_DECADE = 82
_CHUNK = 500
_PARITY_VALIDATION = 400
_MODELS = {"mlp": MLP, "transformer": TRANSFORMER, "embedding_mlp": EMBEDDING}
_ACTIVATIONS = {"relu": RELU, "quadratic": QUADRATIC, "gelu": GELU}
_LOSSES = {"cross_entropy": CROSS_ENTROPY, "mse": MSE}
_OPTIMISERS = {"adamw": loop.ADAMW, "adam": loop.ADAM, "sgd": loop.SGD}

Config = dict[str, Any]
Data = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


@lru_cache(maxsize=64)
def _equations(operator: str, p: int) -> tuple[NDArray[Any], NDArray[Any], int]:
    return equations(operator, p)


def problem(config: Config) -> tuple[Data, Data, int, int]:
    """Training data, validation data, number of input rows, number of classes.

    For `parity`, p is the number of bits, and r the training examples as a share of 1000.
    """
    kind = np.dtype(config["dtype"])
    seed = int(config["seed"])
    if config["operator"] == PARITY:
        n_train = round(1000 * config["r"])
        x, y = concealed_parity(
            n_train + _PARITY_VALIDATION, k=config["k"], n_bits=config["p"], seed=seed
        )
        inputs = np.ascontiguousarray(2 * x - 1, dtype=kind)
        parts = slice(0, n_train), slice(n_train, None)
        data = [
            (np.zeros(len(y[s]), np.int64), np.zeros(len(y[s]), np.int64), inputs[s], y[s])
            for s in parts
        ]
        return data[0], data[1], int(config["p"]), 2
    pairs, answers, classes = _equations(config["operator"], config["p"])
    vocabulary = int(pairs.max()) + 1
    none = np.zeros((0, 0), kind)
    sets = [
        (
            np.ascontiguousarray(pairs[s, 0]),
            np.ascontiguousarray(pairs[s, 1]) + vocabulary,
            none,
            np.ascontiguousarray(answers[s]),
        )
        for s in split(len(answers), config["r"], seed)
    ]
    return sets[0], sets[1], 2 * vocabulary, int(classes)


def describe(config: Config, rows: int, classes: int) -> NDArray[np.int64]:
    """The integer vector by which compiled code knows a net."""
    transformer = config["architecture"] == "transformer"
    return np.array(
        [
            _MODELS[config["architecture"]],
            rows,
            config["width"],
            classes,
            _ACTIVATIONS[config["activation"]],
            _LOSSES[config["loss"]],
            config["operator"] == PARITY,
            0 if config["architecture"] == "mlp" else config["d_model"],
            config["heads"] if transformer else 0,
            config["layer_norm"] if transformer else 0,
        ],
        dtype=np.int64,
    )


def row_grid(horizon: int) -> NDArray[np.int64]:
    """Log-spaced steps below the horizon at which a row is kept; the last step is one of them."""
    decades = np.log10(max(horizon, 10))
    grid = 10 ** (np.arange(int(decades * ROWS_PER_DECADE) + 1) / ROWS_PER_DECADE)
    grid = np.where(grid > loop.EVERY_STEP_UNTIL, np.round(grid / loop.STRIDE) * loop.STRIDE, grid)
    last = horizon - 1 if horizon <= loop.EVERY_STEP_UNTIL else (horizon - 1) // 10 * 10
    steps = np.unique(np.concatenate([[0, 1, last], np.round(grid)])).astype(np.int64)
    return steps[steps < horizon]


class Trainer:
    """A run in progress: `advance` in chunks, then `record`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        kind = np.dtype(config["dtype"])
        self.train, self.val, rows, self.classes = problem(config)
        self.shape = describe(config, rows, self.classes)
        self.rng = np.random.default_rng([int(config["seed"]), 20])
        scale = float(config["init_scale"])
        if config["architecture"] == "transformer":
            theta, size = transformer_init(self.shape, scale, self.rng), transformer_work
        elif config["architecture"] == "embedding_mlp":
            deviation = float(config["embedding_std"])
            theta = embedding_init(self.shape, scale, deviation, self.rng)
            size = embedding_work
        else:
            theta, size = mlp_init(self.shape, scale, self.rng), mlp_work
        self.state = np.zeros((4, theta.size), kind)
        self.state[0] = theta
        self.tuning = np.array(
            [config[k] for k in ("lr", "weight_decay", "beta1", "beta2", "eps", "warmup")],
            dtype=np.float64,
        )
        n, n_val = len(self.train[3]), len(self.val[3])
        self.work = np.zeros(size(self.shape, n), kind)
        self.val_work = np.zeros(size(self.shape, n_val), kind)
        self.bits = np.zeros(max(n, n_val) * max(self.classes, config["width"]), np.int32)
        self.step = 0
        self.stopped = False
        self.dense: list[NDArray[np.float64]] = []
        self.early = np.full(EARLY_STEPS, np.nan, np.float32)
        self.order = np.zeros(0, np.int64)

    def _batches(self, count: int) -> NDArray[np.int64]:
        size = min(int(self.config["batch_size"]), len(self.train[3]))
        if size == 0:
            return np.zeros((0, 0), np.int64)
        while len(self.order) < count * size:
            shuffled = self.rng.permutation(len(self.train[3]))
            whole = len(shuffled) // size * size
            self.order = np.concatenate([self.order, shuffled[:whole]])
        used, self.order = self.order[: count * size], self.order[count * size :]
        return used.reshape(count, size)

    def advance(self, steps: int) -> None:
        """Train for some steps more, or until the loss is not finite."""
        stop = self.step + steps
        losses = np.full(steps, np.nan)
        dense = np.zeros((steps + 1, 10))
        written, reached = loop.advance(
            self.shape, _OPTIMISERS[self.config["optimiser"]], self.tuning, self.state, self.step,
            stop, self._batches(steps), self.train, self.val, self.work, self.val_work, self.bits,
            losses, dense,
        )  # fmt: skip
        if self.step < EARLY_STEPS:
            kept = losses[: EARLY_STEPS - self.step]
            with np.errstate(over="ignore"):
                self.early[self.step : self.step + len(kept)] = kept
        self.dense.append(dense[:written])
        self.stopped = reached < stop or not np.isfinite(losses[-1])
        self.step = reached

    def labels(self) -> dict[str, Any]:
        """Labels of the run so far."""
        d = np.concatenate(self.dense)
        return outcome(
            d[:, loop.STEP],
            d[:, loop.ALL_CORRECT] / len(self.train[3]),
            d[:, loop.VAL_CORRECT] / len(self.val[3]),
            d[:, loop.LOSS_COL],
        )


def execute(config: Config) -> dict[str, Any]:
    """Train one configuration and return its record.

    A run ends at its horizon, when its loss is no longer finite, or, unless `to_horizon`, once it
    is past both 1.3·t4 and t4 + 2000.

    Returns:
        `meta` (configuration, labels, sizes), `early` (400 losses), `steps` and `dense` rows.
    """
    trainer = Trainer(config)
    horizon = int(config["horizon"])
    while trainer.step < horizon and not trainer.stopped:
        trainer.advance(min(_CHUNK, horizon - trainer.step))
        if config["to_horizon"] or np.concatenate(trainer.dense[-1:])[-1, loop.VAL_CORRECT] == 0:
            continue
        t4 = trainer.labels()["t4"]
        if t4 is not None and trainer.step >= max(1.3 * t4, t4 + 2000):
            break
    dense = np.concatenate(trainer.dense)
    wanted = row_grid(trainer.step)
    places = np.unique(np.searchsorted(dense[:, loop.STEP], wanted).clip(0, len(dense) - 1))
    rows = dense[places]
    starts = np.concatenate([[0], places[:-1] + 1])
    rows[:, loop.PEAK] = np.fmax.reduceat(dense[:, loop.PEAK], starts)
    batch = min(int(config["batch_size"]) or len(trainer.train[3]), len(trainer.train[3]))
    sizes = {
        "n_classes": trainer.classes,
        "n_train": len(trainer.train[3]),
        "n_val": len(trainer.val[3]),
        "n_batch": batch,
        "steps_run": trainer.step,
    }
    return {"meta": config | sizes | trainer.labels(), "early": trainer.early, "rows": rows}
