"""Two small networks that grok addition mod 31, kept at every fiftieth step, for benchmarks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from models import MLP, Transformer
from tasks import equations, split

from grokwatch.geometry._hvp import HessianProduct, trainable
from grokwatch.geometry._protect import untouched

OUT = Path(__file__).resolve().parent / "out" / "curvature"
P, EVERY, BUDGET = 31, 50, 12_000
NETS: dict[str, tuple[Callable[[], torch.nn.Module], float]] = {
    "mlp": (lambda: MLP(P, 128, P), 3e-3),
    "transformer": (lambda: Transformer(P, P, n_layers=1, width=64), 1e-3),
}
PROBE = {"mlp": 480, "transformer": 128}  # examples, of 480 that are trained on
PHASES = ("init", "memorised", "plateau", "generalised")
WINDOW = 5  # snapshots of a phase


@dataclass
class Run:
    """A recorded training: snapshots of all weights, t2 and t4, and its task."""

    name: str
    snapshots: dict[int, torch.Tensor]
    t2: int
    t4: int
    x: torch.Tensor
    y: torch.Tensor

    def windows(self) -> dict[str, list[int]]:
        """Five neighbouring snapshots per phase; the plateau is half-way in log time."""
        middle = (self.t2 * self.t4) ** 0.5
        starts = [0, self.t2, round(middle / EVERY) * EVERY, self.t4]
        steps = [[s + EVERY * k for k in range(WINDOW)] for s in starts]
        return dict(zip(PHASES, steps, strict=True))

    def model(self, step: int, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
        """The network as it was."""
        net = NETS[self.name][0]()
        torch.nn.utils.vector_to_parameters(self.snapshots[step], net.parameters())
        return net.to(dtype)

    def loss_fn(self, model: torch.nn.Module) -> Callable[[], torch.Tensor]:
        """Training loss on the probe batch."""
        n = PROBE[self.name]
        return lambda: torch.nn.functional.cross_entropy(model(self.x[:n]), self.y[:n])


def load(name: str) -> Run:
    """Train a network, or take it from the cache in benchmarks/out."""
    path = OUT / f"{name}.pt"
    if not path.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        torch.save(_train(name), path)
    return Run(**torch.load(path, weights_only=True))


def _train(name: str) -> dict[str, object]:
    torch.manual_seed(0)
    pairs, answers, _ = equations("+", P)
    x, y = torch.from_numpy(pairs), torch.from_numpy(answers)
    train, val = split(len(pairs), 0.5, 0)
    make, lr = NETS[name]
    model, t2, t4, last = make(), None, None, BUDGET
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1.0, betas=(0.9, 0.98))
    snapshots = {}
    for step in range(BUDGET + 1):
        logits = model(x[train])
        loss = torch.nn.functional.cross_entropy(logits, y[train])
        if step % EVERY == 0:
            snapshots[step] = torch.nn.utils.parameters_to_vector(model.parameters()).detach()
            with torch.no_grad():
                known = (model(x[val]).argmax(1) == y[val]).float().mean().item()
            if t2 is None and (logits.argmax(1) == y[train]).float().mean() >= 0.99:
                t2 = step
            if t4 is None and known >= 0.95:
                t4, last = step, step + EVERY * (WINDOW - 1)
        if step == last:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if t2 is None or t4 is None:
        raise RuntimeError(f"{name} did not generalise within {BUDGET} steps.")
    print(f"{name}: trained {step} steps, memorised at {t2}, generalised at {t4}", file=sys.stderr)
    return {"name": name, "snapshots": snapshots, "t2": t2, "t4": t4, "x": x[train], "y": y[train]}


def reference(run: Run, step: int) -> tuple[float, float, float, float]:
    """λ_max and λ_min by scipy's eigsh in float64, with their true residuals; cached."""
    path = OUT / f"{run.name}-{step}.npy"
    if not path.exists():
        model = run.model(step, torch.float64)
        began = time.perf_counter()
        found = []
        with untouched(trainable(model), model, "eval", 0):
            hessian = HessianProduct(run.loss_fn(model), trainable(model))
            scale = 1.0
            for which in ("LA", "SA"):
                # Scaled, as the tolerance of ARPACK turns absolute for small eigenvalues.
                value, vector = eigsh_of(hessian, which, scale, 1e-3)
                if which == "LA":
                    value, vector = eigsh_of(hessian, which, value, 1e-5, vector)
                    scale = value
                found += [value, float(np.linalg.norm(_times(hessian, vector) - value * vector))]
        taken = time.perf_counter() - began
        print(f"{run.name} {step}: {found}, {hessian.count} HVPs, {taken:.0f} s", file=sys.stderr)
        np.save(path, np.array([found[0], found[2], found[1], found[3]]))
    return tuple(float(value) for value in np.load(path))


def _times(hessian: HessianProduct, vector: np.ndarray) -> np.ndarray:
    at = torch.from_numpy(np.ascontiguousarray(vector)).to(hessian.dtype)
    return hessian(at).double().numpy()


def eigsh_of(
    hessian: HessianProduct,
    which: str,
    scale: float,
    tolerance: float,
    start: np.ndarray | None = None,
) -> tuple[float, np.ndarray]:
    """One end of the spectrum by scipy."""
    operator = LinearOperator(
        (hessian.n, hessian.n), matvec=lambda v: _times(hessian, v.ravel()) / scale, dtype=float
    )
    if start is None:
        start = np.random.default_rng(0).normal(size=hessian.n)
    values, vectors = eigsh(
        operator, k=1, which=which, tol=tolerance, ncv=64, v0=start, maxiter=2000
    )
    return float(values[0]) * scale, vectors[:, 0]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in NETS:
        run = load(name)
        for steps in run.windows().values():
            for step in (steps[0], steps[-1]):
                reference(run, step)
