"""Phase diagram over learning rate and weight decay, and what the first 400 losses foretell.

    python examples/phase_diagram.py
    python examples/phase_diagram.py --preset paper --out diagram

Figs 2 and 6 of Notsawo et al. 2023 (arXiv:2306.13253): validation accuracy at the end beside the
spectral energy of the first 400 training losses, whose likeness is the paper's claim. Here for
one-layer transformers on a + b mod 31, trained many at once; the AUC of that energy stands beside
those of −(lr·wd) and of the trend of the validation loss. A run ends at its budget, or well past
its generalisation (1.3 t4 and t4 + 1000). The paper's own network (p = 97) is trained for the
first 400 steps of one row (--preset paper). Also: t4 over the data, and gradient clipping.

What is finished is on disk: the same command goes on where it was ended. `grokwatch replay` reads
every record under `records/`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import phase_plots
import torch
from _experiment import Experiment, in_words
from phase_row import PAPER, STEPS, row
from phase_run import Cell, Task, Trainee, sidecars
from phase_scores import STRATA, grokking_law, opinions, table
from phase_sweep import train

from grokwatch.records import Run


class Preset(NamedTuple):
    """What the two sizes of run differ in."""

    p: int
    width: int
    budget: int
    together: int  # runs in the batch
    fraction: float  # share of the data in the diagram
    rates: tuple[float, ...]
    decays: tuple[float, ...]
    seeds: int
    good: tuple[float, float]  # learning rate and weight decay for the laws
    fractions: tuple[float, ...]  # further shares of the data
    clips: tuple[float, ...]  # largest norms of the gradient
    row: tuple[float, ...]  # weight decays of the paper's own network
    control: float  # share of the runs that --watch never stops


PRESETS = {
    "small": Preset(
        31, 48, 3_000, 8, 0.8, (2e-3, 5e-3), (0.0, 0.4, 0.9, 1.3, 3.0, 4.5), 1,
        (5e-3, 0.9), (0.6, 0.7, 0.9), (0.1,), (0.9,), 0.25,
    ),
    "paper": Preset(
        31, 48, 5_000, 8, 0.8,
        (1e-3, 2e-3, 3e-3, 4e-3, 5e-3), (0.0, 0.2, 0.4, 0.9, 1.3, 2.0, 3.0, 4.5), 3,
        (5e-3, 0.9), (0.5, 0.6, 0.7, 0.9), (0.1, 0.01), tuple(PAPER), 0.1,
    ),
}  # fmt: skip


def cells(preset: Preset, seed: int) -> tuple[list[Cell], list[Cell]]:
    """The runs of the diagram in random order, and those of the laws.

    >>> diagram, laws = cells(PRESETS["paper"], 0)
    >>> len(diagram), len({(cell.rate, cell.decay) for cell in diagram}), len(laws)
    (120, 40, 18)
    """
    seeds = range(seed * preset.seeds, (seed + 1) * preset.seeds)
    diagram = [
        Cell(rate, decay, preset.fraction, s)
        for rate in preset.rates
        for decay in preset.decays
        for s in seeds
    ]
    order = np.random.default_rng(seed).permutation(len(diagram))
    laws = [Cell(*preset.good, r, s) for r in preset.fractions for s in seeds]
    laws += [Cell(*preset.good, preset.fraction, s, c) for c in preset.clips for s in seeds]
    return [diagram[i] for i in order], laws


def groups(
    done: dict[str, dict[str, Any]], preset: Preset, laws: Sequence[Cell]
) -> tuple[dict[float, list[int | None]], dict[str, dict[str, Any]]]:
    """t4 by share of the data; t4 and spikes by clip."""
    seeds = sorted({cell.seed for cell in laws})
    plain = [Cell(*preset.good, preset.fraction, s) for s in seeds]
    by_fraction: dict[float, list[int | None]] = {}
    clipped: dict[str, dict[str, Any]] = {}
    for cell in [*plain, *laws]:
        run = done[cell.name]
        if math.isinf(cell.clip):
            by_fraction.setdefault(cell.fraction, []).append(run["t4"])
        if cell.fraction == preset.fraction:
            name = "none" if math.isinf(cell.clip) else f"{cell.clip:g}"
            one = clipped.setdefault(name, {"t4": [], "spikes": []})
            one["t4"].append(run["t4"])
            one["spikes"].append(run["grokwatch"]["spikes"])
    return dict(sorted(by_fraction.items())), clipped


def tell(scores: dict[str, dict[str, Any]]) -> None:
    """The AUCs, one line a score."""
    print(f"AUC for generalising, at step 400{'':4}" + "".join(f"{kind:>22}" for kind in STRATA))
    for name, by_stratum in scores.items():
        texts = (
            "-" if one is None else f"{one[0]:.2f} ({one[1]:.2f}..{one[2]:.2f})"
            for one in by_stratum.values()
        )
        print(f"  {name:<35}" + "".join(f"{text:>22}" for text in texts))


def main(argv: list[str] | None = None) -> int:
    """Train what is not on disk yet, draw, compare."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--engine", choices=("local", "ray", "optuna"), default="local")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    options, others = parser.parse_known_args(argv)
    about = (
        "Phase diagram and early energy. --engine local|ray|optuna and --watch (grokwatch may stop "
        "runs) train the diagram alone; --workers N processes for ray and optuna."
    )
    run = Experiment("phase_diagram", about, PRESETS, others)
    preset: Preset = run.preset
    task = Task(preset.p, preset.width, preset.budget)
    folder = run.out / "records"
    diagram, laws = cells(preset, run.seed)
    if options.watch or options.engine != "local":
        from phase_engines import run_sweep
        from phase_watch import Watching

        run.out /= options.engine + "-watch" * options.watch
        run.out.mkdir(exist_ok=True)
        watch = Watching(run.seed, preset.control) if options.watch else None
        run_sweep(run, diagram, task, folder, options.engine, watch, options.workers)
        return run.finish()

    def finished(one: Trainee, record: Run) -> None:
        print(in_words(one.cell.name, record.notes["grokwatch"]), flush=True)
        advance()

    with run.progress("training", len(diagram) + len(laws)) as advance:
        advance(sum(cell.name in sidecars(folder) for cell in [*diagram, *laws]))
        train([*diagram, *laws], task, folder, preset.together, finished)
    with run.progress("p = 97", len(preset.row) * STEPS) as advance:
        beside = row(preset.row, run.seed, run.out / "row", advance)

    done = sidecars(folder)
    runs = [done[cell.name] for cell in diagram]
    scores = table(runs)
    by_fraction, clipped = groups(done, preset, laws)
    law = grokking_law(by_fraction)
    said = opinions(runs)
    fell = sum(one["t4"] is not None and one["last_val_accuracy"] < 0.5 for one in runs)
    tell(scores)
    print(f"{said['generalised']} of {len(runs)} generalised; {fell} fell below .5 again")
    fitted = law["here"] if law["determined"] else "not determined"
    print(f"t4 by share of the data: {law['median t4']}; here {fitted}, paper {law['paper']}")
    for name, one in clipped.items():
        print(f"gradient clipped to {name}: t4 {one['t4']}, spikes {one['spikes']}")
    for decay, one in beside.items():
        print(f"p = 97, wd {decay}: activity {one['here']:.2f}, paper {one['paper']:.2f}")
    print("grokwatch: " + ", ".join(f"{name} {value}" for name, value in said.items()))
    run.results |= {
        "runs": {
            cell.name: {
                key: value
                for key, value in done[cell.name].items()
                if key in ("t2", "t4", "steps", "diverged", "last_val_accuracy", "grokwatch")
                or key.startswith("early_")
            }
            for cell in [*diagram, *laws]
        },
        "fell below .5 after t4": fell,
        "AUC": scores,
        "t4 over the data": law,
        "clipping": clipped,
        "row": beside,
        "grokwatch": said,
    }
    run.save(phase_plots.diagram(runs, preset.seeds), "phase_diagram")
    run.save(phase_plots.scatter(runs, scores), "phase_scores")
    run.save(phase_plots.laws(beside, law, clipped), "phase_laws")
    return run.finish()


if __name__ == "__main__":
    raise SystemExit(main())
