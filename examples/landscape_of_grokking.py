"""The geometry of one run that groks: the figures of Notsawo et al. 2023, and their claims checked.

    python examples/landscape_of_grokking.py                       # minutes; see --out for results
    python examples/landscape_of_grokking.py --seed 3 --out geometry-3
    python examples/landscape_of_grokking.py --preset paper        # many hours on a CPU

Trains a decoder on modular arithmetic, full batch, watched by grokwatch; keeps checkpoints, and
around the first slingshots the weights of every third step; then measures on them curvature,
gradient norm, angles, PCA of the path, landscape slices and intrinsic dimension. Writes one folder
of PNGs, results.json, and claims.md: what the paper (arXiv:2306.13253) says, what came out here.

The operator is a - b rather than the paper's a + b, which a network may take for symmetric: it
then knows the mirror image of every training example early, and the phases blur.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import torch
from landscape_claims import claims
from landscape_measure import Measured, Problem, measure
from landscape_plots import draw_all
from landscape_rules import as_table
from landscape_train import Run, train
from models import Transformer
from tasks import equations, split


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    p: int
    fraction: float  # of the table, to train on
    layers: int
    width: int
    lr: float
    weight_decay: float
    budget: int
    checkpoints: int  # evenly spaced
    n_hvp: int


PRESETS = {
    "small": Preset(23, 0.7, 1, 48, 3e-3, 1.0, 6_000, 120, 32),
    "paper": Preset(97, 0.3, 2, 128, 1e-3, 1.0, 20_000, 200, 32),
}


def main() -> int:
    """Train, measure, draw; the exit status is 0 if the network generalised."""
    parser = argparse.ArgumentParser(description="The geometry of one run that groks.")
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--operator", default="-", help="a key of examples/tasks.py (default: -)")
    parser.add_argument("--seed", type=int, default=0, help="of the split and of the weights")
    parser.add_argument("--out", type=Path, help="folder (default: under runs/)")
    parser.add_argument("--budget", type=int, help="optimiser steps (default: the preset's)")
    args = parser.parse_args()
    preset = PRESETS[args.preset]
    preset = preset._replace(budget=args.budget or preset.budget)
    out = args.out or Path("runs") / f"landscape-{args.preset}-seed{args.seed}"
    out.mkdir(parents=True, exist_ok=True)

    if args.preset == "small":
        torch.set_num_threads(1)  # the network is too small to share
    began = clock()
    problem = make_problem(preset, args.operator, args.seed)
    run = train(
        problem,
        budget=preset.budget,
        lr=preset.lr,
        weight_decay=preset.weight_decay,
        checkpoints=preset.checkpoints,
        notes={"task": f"{args.operator} mod {preset.p}", "seed": args.seed},
    )
    trained = clock()
    measured = measure(problem, run, preset.n_hvp, progress=True)
    found = claims(run, measured)
    draw_all(run, measured, out)
    ended = clock()
    seconds = {
        "training": trained[0] - began[0],
        "all": ended[0] - began[0],
        "all, processor": ended[1] - began[1],
        "load average": os.getloadavg()[1] if hasattr(os, "getloadavg") else -1.0,
    }
    settings = {"operator": args.operator, "seed": args.seed, **preset._asdict()}
    write(out / "results.json", settings, run, measured, found, seconds)
    (out / "claims.md").write_text(as_table(found) + "\n")
    for one in found:
        verdict = {True: "agrees", False: "DOES NOT AGREE", None: "not tested"}[one["agrees"]]
        print(f"{verdict:>15}  {one['claim']}\n{'':17}{one['measured']}")
    print(f"{seconds['all']:.0f} s; see {out}")
    return 0 if run.milestones.get("t4") else 1


def clock() -> tuple[float, float]:
    """Seconds on the wall, and of processor time: on a busy machine only the latter says much."""
    return time.perf_counter(), time.process_time()


def make_problem(preset: Preset, operator: str, seed: int) -> Problem:
    """Data and network of a preset."""
    torch.manual_seed(seed)
    pairs, answers, n_classes = equations(operator, preset.p)
    x, y = torch.from_numpy(pairs), torch.from_numpy(answers)
    chosen, rest = (torch.from_numpy(part) for part in split(len(x), preset.fraction, seed))
    model = Transformer(
        n_classes, n_classes, n_layers=preset.layers, width=preset.width, norm="pre"
    )
    return Problem(model, x[chosen], y[chosen], x[rest], y[rest], n_classes, preset.fraction)


def write(
    path: Path,
    settings: dict[str, object],
    run: Run,
    measured: Measured,
    found: list[dict[str, object]],
    seconds: dict[str, float],
) -> None:
    """Write all that the figures show, except for the slices."""
    path.write_text(
        json.dumps(
            {
                "settings": settings,
                "seconds": {name: round(value, 1) for name, value in seconds.items()},
                "torch": torch.__version__,
                "milestones": run.milestones,
                "slingshots": run.spikes,
                "claims": found,
                "measured": measured.as_dict(),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
