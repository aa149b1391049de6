"""Grokking on small algorithmic data sets (Power et al. 2022), and how it comes about (Arn 2023).

    python examples/power_arn.py
    python examples/power_arn.py --operator s5 --fractions .4 .5 .6
    python examples/power_arn.py --cayley table.csv --fractions .5
    python examples/power_arn.py --preset paper --out power

The network and the optimiser of arXiv:2201.02177 on sweeps over the share of the table that is
trained on, with a weight decay that makes it grok soon, and with that of Arn's thesis (.01). The
slingshots in the figure are those that grokwatch found. Finished runs are kept in the folder and
not trained again, so an interrupted experiment goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from _experiment import Experiment, in_words, plain
from power_claims import ARN_DECAY, all_claims, summary
from power_figures import draw_accuracies, draw_losses
from power_tasks import NAMES, Task, task
from power_train import Setting, train


class Sweep(NamedTuple):
    """Runs that differ in the training fraction only."""

    operator: str
    fractions: tuple[float, ...]
    decay: float
    rate: float
    budget: int


class Preset(NamedTuple):
    """What the two sizes of experiment differ in."""

    p: int
    layers: int
    width: int
    every: int
    beyond: float
    scale: float
    sweeps: tuple[Sweep, ...]


PRESETS = {
    "small": Preset(
        p=31,
        layers=1,
        width=64,
        every=20,
        beyond=1.5,
        scale=0.1,
        sweeps=(
            Sweep("/", (0.8, 0.7, 0.6), 1.0, 2e-3, 5_000),
            Sweep("+", (0.6, 0.5, 0.4), 1.0, 2e-3, 3_000),
            Sweep("/", (0.9, 0.85), ARN_DECAY, 5e-3, 9_000),
        ),
    ),
    "paper": Preset(
        p=97,
        layers=2,
        width=128,
        every=50,
        beyond=1.5,
        scale=1.0,
        sweeps=(
            Sweep("/", (0.8, 0.65, 0.5), 1.0, 1e-3, 6_000),
            Sweep("+", (0.5, 0.4, 0.3), 1.0, 1e-3, 6_000),
            Sweep("/", (0.7,), ARN_DECAY, 1e-3, 6_000),
        ),
    ),
}


def options() -> argparse.ArgumentParser:
    """What this script understands beyond the arguments of every experiment."""
    parser = argparse.ArgumentParser(add_help=False, prog="further options")
    parser.add_argument("--operator", choices=NAMES, metavar="NAME")  # not the preset's sweeps
    parser.add_argument("--cayley", type=Path, metavar="CSV")  # the table of any operation
    parser.add_argument("--fractions", type=float, nargs="+", metavar="R")  # of it to train on
    parser.add_argument("--decays", type=float, nargs="+", metavar="DECAY")
    parser.add_argument("--budget", type=int, metavar="STEPS")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def chosen(preset: Preset, args: argparse.Namespace) -> Preset:
    """The preset with what the options change.

    >>> args = options().parse_args(["--operator", "s5", "--budget", "10", "--decays", "1", "0"])
    >>> for sweep in chosen(PRESETS["small"], args).sweeps:
    ...     print(sweep.operator, sweep.decay, sweep.budget)
    s5 1.0 10
    s5 0.0 10
    """
    sweeps = preset.sweeps
    if args.operator or args.cayley:
        decays = args.decays or [sweeps[0].decay]
        name = args.operator if args.cayley is None else args.cayley.stem
        sweeps = tuple(sweeps[0]._replace(operator=name, decay=decay) for decay in decays)
    elif args.decays:
        sweeps = tuple(one._replace(decay=decay) for decay in args.decays for one in sweeps)
    if args.fractions:
        sweeps = tuple(one._replace(fractions=tuple(args.fractions)) for one in sweeps)
    if args.budget:
        sweeps = tuple(one._replace(budget=args.budget) for one in sweeps)
    return preset._replace(sweeps=sweeps)


def one_run(
    run: Experiment, sweep: Sweep, fraction: float, what: Task, device: str
) -> dict[str, Any]:
    """Train, or read what was trained before with the same settings."""
    preset = run.preset
    setting = Setting(
        fraction,
        preset.layers,
        preset.width,
        sweep.rate,
        sweep.decay,
        sweep.budget,
        preset.every,
        preset.beyond,
        run.seed,
        preset.scale,
    )
    task_of = {"operator": sweep.operator, "p": preset.p, "answers": _checksum(what)}
    about = plain(task_of | setting._asdict())
    name = f"{sweep.operator}, {fraction:.0%}, decay {sweep.decay:g}"
    sign = sweep.operator.replace("/", "over").replace("*", "times")
    path = run.out / f"{sign}-{fraction:g}-decay{sweep.decay:g}.json"
    saved: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if saved.get("about") != about:
        with run.progress(name, sweep.budget) as advance:
            saved = plain({"about": about} | train(what, setting, advance, device))
        part = path.with_suffix(".part")
        part.write_text(json.dumps(saved) + "\n")
        part.replace(path)  # at once, so that an interruption leaves no half of a file
    print(in_words(name, saved["grokwatch"]), flush=True)
    return saved


def _checksum(what: Task) -> int:
    """Of the answers, so that a run on another table of the same name is another run."""
    return zlib.crc32(what.equations.answers.numpy().tobytes())


def main(argv: list[str] | None = None) -> int:
    """Train the sweeps, draw, say what became of the claims."""
    torch.set_num_threads(1)
    own = options()
    args, rest = own.parse_known_args(argv)
    usage = " ".join(own.format_usage().split()[1:])
    about = f"Late generalisation on algorithmic data; {usage}; NAME is one of {' '.join(NAMES)}"
    run = Experiment("power_arn", about, PRESETS, rest)
    run.preset = chosen(run.preset, args)
    run.results["settings"] |= run.preset._asdict()
    found: dict[str, list[dict[str, Any]]] = {}
    summaries: dict[str, list[dict[str, Any]]] = {}
    for sweep in run.preset.sweeps:
        try:
            what = task(sweep.operator, run.preset.p, args.cayley)
        except (OSError, ValueError) as error:
            own.error(str(error))
        name = f"{sweep.operator}, decay {sweep.decay:g}"
        for fraction in sweep.fractions:
            one = one_run(run, sweep, fraction, what, args.device)
            found.setdefault(name, []).append(one)
            summaries.setdefault(name, []).append(summary(one, what, one["about"]))
    claims = all_claims(summaries)
    run.results |= {"runs": summaries, "claims": claims}
    for claim in claims:
        print(f"{claim['paper']}: {claim['claim']}: {claim['verdict']} ({claim['here']})")
    run.save(draw_losses(found), "power_losses")
    run.save(draw_accuracies(found), "power_accuracies")
    return run.finish()


if __name__ == "__main__":
    raise SystemExit(main())
