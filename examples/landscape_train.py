"""Train a network with checkpoints, and a flight recorder that keeps the weights at slingshots."""

from __future__ import annotations

import copy
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch
from landscape_measure import Problem
from torch import Tensor
from torch.nn.functional import cross_entropy

import grokwatch
from grokwatch.geometry.trajectory import Trajectory

WARM_UP = 10  # steps
BETAS = (0.9, 0.98)
VALIDATE_EVERY = 10  # steps
AROUND = 18  # steps kept before and after the one at which a slingshot is noticed
STRIDE = 3  # steps from one of them to the next
MOST_SLINGSHOTS = 5
GO_ON = 1.3  # times t4: how long training goes on once the network has generalised

GENERALISED = 0.95  # validation accuracy

State = dict[str, Tensor]


@dataclass
class Run:
    """All that training leaves behind.

    Attributes:
        checkpoints: weights by step, dense at the start and evenly spaced.
        even: steps of the evenly spaced ones.
        windows: for each slingshot, the weights of steps around it.
        curves: one value for each step from 0 on.
        validation: (steps, accuracies, losses).
        milestones: t1 to t4, as far as they came.
        spikes: steps of all slingshots.
    """

    checkpoints: dict[int, State] = field(default_factory=dict)
    even: list[int] = field(default_factory=list)
    windows: list[dict[int, State]] = field(default_factory=list)
    curves: dict[str, list[float]] = field(default_factory=dict)
    validation: tuple[list[int], list[float], list[float]] = field(
        default_factory=lambda: ([], [], [])
    )
    milestones: dict[str, int] = field(default_factory=dict)
    spikes: list[int] = field(default_factory=list)

    def curve(self, name: str) -> np.ndarray:
        """One of the curves as an array."""
        return np.array(self.curves[name])


def train(
    problem: Problem,
    *,
    budget: int,
    lr: float,
    weight_decay: float,
    checkpoints: int,
    notes: dict[str, object],
) -> Run:
    """Train full batch until some time after the network has generalised, or the budget is spent.

    Args:
        problem: network and data.
        budget: optimiser steps.
        lr: learning rate of AdamW, after a linear warm-up.
        weight_decay: of AdamW.
        checkpoints: number of evenly spaced ones over the budget.
        notes: kept with the record.
    """
    model, run = problem.model, Run()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=BETAS, weight_decay=weight_decay)
    warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARM_UP, total_iters=WARM_UP - 1)
    trajectory = Trajectory(model.parameters(), updates=True)
    dense = set(np.unique(np.geomspace(1, budget, 80).astype(int)).tolist())
    every = max(1, budget // checkpoints)
    recent: deque[tuple[int, State]] = deque(maxlen=2 * AROUND // STRIDE + 1)
    due: list[int] = []  # steps at which a slingshot's window is complete
    with grokwatch.watch(
        model,
        optimizer,
        budget=budget,
        chance=1 / problem.n_classes,
        learning_rate=lr,
        train_fraction=problem.fraction,
        console=True,
        notes=notes,
    ) as watch:
        for step in range(budget):
            if step % every == 0:
                run.even.append(step)
            if step % every == 0 or step in dense:
                run.checkpoints[step] = _copy(model)
            if step % STRIDE == 0:
                recent.append((step, _copy(model)))
            logits = model(problem.x_train)
            loss = cross_entropy(logits, problem.y_train)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            warm_up.step()
            _note(run, loss, model, trajectory)
            watch.train(loss=loss, logits=logits, targets=problem.y_train)
            if step % VALIDATE_EVERY == 0:
                with torch.no_grad():
                    answer = model(problem.x_val)
                watch.validate(logits=answer, targets=problem.y_val)
                run.validation[0].append(step)
                run.validation[1].append(float((answer.argmax(1) == problem.y_val).float().mean()))
                run.validation[2].append(float(cross_entropy(answer, problem.y_val)))
            signals = watch.flush().signals  # at once, so that no window comes late
            if signals.get("spikes", 0) > len(run.spikes):
                run.spikes.append(int(signals["spike_step"]) - 1)  # grokwatch counts steps taken
                due.append(step + AROUND)
            if due and step >= due[0]:
                due.pop(0)
                if len(run.windows) < MOST_SLINGSHOTS:
                    run.windows.append(dict(recent))
            if "t4" in signals and step > GO_ON * signals["t4"]:
                break
        signals = watch.flush().signals
    last = step + 1
    run.checkpoints[last] = _copy(model)
    run.even.append(last)
    run.milestones = {t: int(signals[t]) for t in ("t1", "t2", "t3", "t4") if t in signals}
    if "t4" in run.milestones:
        end_generalised(run, problem)
    return run


def end_generalised(run: Run, problem: Problem) -> None:
    """Drop the last checkpoints as far as a slingshot has just thrown them out again.

    What the paper calls θ* is a network that generalises.
    """
    twin = copy.deepcopy(problem.model)
    while len(run.checkpoints) > 2:
        last = max(run.checkpoints)
        twin.load_state_dict(run.checkpoints[last])
        with torch.no_grad():
            right = twin(problem.x_val).argmax(1) == problem.y_val
        if float(right.float().mean()) >= GENERALISED:
            return
        del run.checkpoints[last]
        run.even = [step for step in run.even if step != last]


def _note(run: Run, loss: Tensor, model: torch.nn.Module, trajectory: Trajectory) -> None:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    angles = trajectory.update()
    values = {
        "train_loss": float(loss.detach()),
        "grad_norm": float(torch.nn.utils.get_total_norm(gradients)),
        "step_cosine_distance": angles.step_cosine_distance,
        "initial_cosine_distance": angles.initial_cosine_distance,
        "initial_distance": angles.initial_distance,
        "update_cosine": angles.update_cosine,
        "weight_norm": angles.weight_norm,
    }
    for name, value in values.items():
        run.curves.setdefault(name, []).append(value)


def _copy(model: torch.nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
