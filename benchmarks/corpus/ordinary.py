"""Train the ordinary controls with plain torch and record them as the corpus records runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.corpus import loop
from benchmarks.corpus.labels import outcome
from benchmarks.corpus.ordinary_data import Dataset, ordinary_data
from benchmarks.corpus.ordinary_plan import ordinary_configs
from benchmarks.corpus.runs import EARLY_STEPS, row_grid

_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
_PRETRAINING_STEPS = 1500
Tensors = tuple[torch.Tensor, torch.Tensor]


def _build(config: dict[str, Any], inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(config["depth"]):
        layers += [nn.Linear(inputs, config["width"]), _ACTIVATIONS[config["activation"]]()]
        layers += [nn.Dropout(config["dropout"])] if config["dropout"] else []
        inputs = config["width"]
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _loss(output: torch.Tensor, target: torch.Tensor, smoothing: float) -> torch.Tensor:
    if target.dtype == torch.float32:
        return functional.mse_loss(output[:, 0], target)
    return functional.cross_entropy(output, target, label_smoothing=smoothing)


def _stepper(
    config: dict[str, Any], net: nn.Module
) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    extra = {"momentum": 0.9} if config["optimiser"] == "sgd" else {}
    stepper = kinds[config["optimiser"]](
        net.parameters(), lr=config["lr"], weight_decay=config["weight_decay"], **extra
    )
    horizon = config["horizon"]
    schedules: dict[str, Callable[[int], float]] = {
        "constant": lambda step: 1.0,
        "cosine": lambda step: 0.5 * (1 + float(np.cos(np.pi * step / horizon))),
        "steps": lambda step: 0.1 ** (step * 3 // horizon),
    }
    return stepper, schedules[config["schedule"]]


def _correct_and_margin(output: torch.Tensor, target: torch.Tensor) -> tuple[float, float]:
    if target.dtype == torch.float32:
        return np.nan, np.nan
    right = output.gather(1, target[:, None])[:, 0]
    others = output.scatter(1, target[:, None], -torch.inf).amax(1)
    return float((right > others).sum()), float((right - others).mean())


def _tensors(data: Dataset) -> tuple[Tensors, Tensors]:
    train = torch.from_numpy(data.x), torch.from_numpy(data.y)
    return train, (torch.from_numpy(data.val_x), torch.from_numpy(data.val_y))


def _pretrain(net: nn.Module, data: Dataset) -> None:
    (x, y), _ = _tensors(data)
    stepper = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(_PRETRAINING_STEPS):
        stepper.zero_grad()
        functional.cross_entropy(net(x), y).backward()
        stepper.step()


def ordinary_run(config: dict[str, Any]) -> dict[str, Any]:
    """Train one control and return its record, in the form of `runs.execute`."""
    rng = np.random.default_rng(config["seed"])
    torch.manual_seed(config["seed"])
    classes = range(5, 10) if config["pretrained"] else None
    data = ordinary_data(config["dataset"], config["n_train"], config["noise"], classes, rng)
    net = _build(config, data.x.shape[1], data.n_classes or 1)
    if config["pretrained"]:
        _pretrain(net, ordinary_data("digits", 800, 0.0, range(0, 5), rng))
    (x, y), (val_x, val_y) = _tensors(data)
    stepper, schedule = _stepper(config, net)
    n, horizon = len(y), config["horizon"]
    batch = min(config["batch_size"] or n, n)
    losses, dense = np.full(horizon, np.nan), []
    order = torch.arange(n)
    peak = 0.0
    for step in range(horizon):
        place = step % max(n // batch, 1)
        if batch < n and place == 0:
            order = torch.randperm(n)
        chosen = order[place * batch : (place + 1) * batch]
        net.train()
        output = net(x[chosen])
        loss = _loss(output, y[chosen], config["label_smoothing"])
        stepper.zero_grad()
        loss.backward()
        losses[step] = loss.item()
        peak = max(peak, losses[step])
        if step <= loop.EVERY_STEP_UNTIL or step % loop.STRIDE == 0:
            correct, _ = _correct_and_margin(output.detach(), y[chosen])
            measured = _measure(net, x, y, val_x, val_y)
            dense.append([step, losses[step], correct, *measured, peak])
            peak = 0.0
        for group in stepper.param_groups:
            group["lr"] = config["lr"] * schedule(step)
        stepper.step()
    table = np.array(dense)
    return _record(config, data, table, losses, batch)


@torch.no_grad()
def _measure(
    net: nn.Module, x: torch.Tensor, y: torch.Tensor, val_x: torch.Tensor, val_y: torch.Tensor
) -> list[float]:
    grad = float(torch.cat([p.grad.flatten() for p in net.parameters()]).norm())
    weight = float(torch.cat([p.flatten() for p in net.parameters()]).norm())
    net.eval()
    all_correct, _ = _correct_and_margin(net(x), y)
    output = net(val_x)
    val_correct, margin = _correct_and_margin(output, val_y)
    return [all_correct, float(_loss(output, val_y, 0.0)), val_correct, margin, grad, weight]


def _record(
    config: dict[str, Any], data: Dataset, dense: Any, losses: Any, batch: int
) -> dict[str, Any]:
    labels = outcome(
        dense[:, loop.STEP],
        dense[:, loop.ALL_CORRECT] / len(data.y),
        dense[:, loop.VAL_CORRECT] / len(data.val_y),
        dense[:, loop.LOSS_COL],
    )
    steps = dense[:, loop.STEP]
    places = np.unique(np.searchsorted(steps, row_grid(config["horizon"])).clip(0, len(steps) - 1))
    rows = dense[places].copy()
    starts = np.concatenate([[0], places[:-1] + 1])
    rows[:, loop.PEAK] = np.maximum.reduceat(dense[:, loop.PEAK], starts)
    early = np.full(EARLY_STEPS, np.nan, np.float32)
    early[: min(len(losses), EARLY_STEPS)] = losses[:EARLY_STEPS]
    sizes = {
        "n_classes": data.n_classes,
        "n_val": len(data.val_y),
        "n_batch": batch,
        "steps_run": config["horizon"],
    }
    return {"meta": config | sizes | labels, "early": early, "rows": rows}


def ordinary_records(unit: int, tick: Callable[[], None]) -> list[dict[str, Any]]:
    """Run one scenario, single-threaded so that it can be repeated bit for bit."""
    torch.set_num_threads(1)
    records = []
    for config in ordinary_configs(unit):
        records.append(ordinary_run(config))
        tick()
    return records
