"""Makes the golden runs: real trainings, recorded through ``grokwatch.watch``.

    python tests/golden/record.py            # trains and records again (about two minutes)
    python tests/golden/record.py --expect   # only writes anew what the monitor says of them

``<name>.jsonl`` is the run, ``<name>.expected.json`` every verdict change that a replay must give.
A change of an expected step is a change of behaviour and belongs into the CHANGELOG.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent.parent / "examples")]

from grokwatch.replay import replay  # noqa: E402 - the path above makes this a script

#: name -> modulus, width, share trained on, optimiser, lr, weight decay, steps, depth, activation
RUNS: dict[str, dict[str, Any]] = {
    "grokker": {"p": 23, "fraction": 0.6, "lr": 3e-3, "decay": 1.0, "steps": 6000},
    "never": {"p": 23, "fraction": 0.3, "lr": 3e-3, "decay": 0.1, "steps": 6000},
    "immediate": {"p": 23, "fraction": 0.9, "lr": 3e-3, "decay": 2.0, "steps": 3000},
    "slingshot": {"p": 14, "fraction": 0.7, "lr": 1e-3, "decay": 0.0, "steps": 8000, "depth": 6},
}


def expected(path: Path) -> list[list[Any]]:
    """Every verdict change of a replay: step, phase, recommendation, spikes, forecast or not."""
    return [
        [
            verdict.step,
            verdict.phase,
            verdict.recommendation,
            int(verdict.signals.get("spikes", 0)),
            verdict.probability is not None,
        ]
        for verdict in replay(path).changes()
    ]


def record(name: str) -> None:
    """Train one run and keep its record."""
    import torch
    from models import MLP
    from tasks import equations, split

    import grokwatch

    run = RUNS[name]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    pairs, answers, n_classes = equations("+", run["p"])
    train, val = split(len(pairs), run["fraction"], seed=0)
    x, y = torch.tensor(pairs), torch.tensor(answers)
    if run.get("depth"):
        one_hot = torch.nn.functional.one_hot(x, run["p"]).flatten(1).float()
        x = one_hot
        sizes = [2 * run["p"], *[200] * (run["depth"] - 1), n_classes]
        layers: list[torch.nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [torch.nn.Linear(a, b), torch.nn.ReLU()]
        model: torch.nn.Module = torch.nn.Sequential(*layers[:-1])
    else:
        model = MLP(n_tokens=run["p"], width=64, n_classes=n_classes, activation="quadratic")
    betas = (0.9, 0.95) if run.get("depth") else (0.9, 0.98)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=run["lr"], weight_decay=run["decay"], betas=betas
    )
    folder = HERE / "out" / name
    with grokwatch.watch(
        model,
        optimizer,
        budget=20_000,
        log_dir=folder,
        chance=1 / n_classes,
        train_fraction=run["fraction"],
        tensorboard=False,
        notes={"seed": 0, **run},
    ) as watch:
        for step in range(run["steps"]):
            logits = model(x[train])
            loss = torch.nn.functional.cross_entropy(logits, y[train])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.train(loss=loss, logits=logits, targets=y[train])
            if step % 20 == 0:
                with torch.no_grad():
                    watch.validate(logits=model(x[val]), targets=y[val])
    assert watch.log_dir is not None
    lines = (watch.log_dir / "grokwatch.jsonl").read_text().splitlines()
    kept = [line for line in lines if '"type":"verdict"' not in line]
    (HERE / f"{name}.jsonl").write_text("\n".join(kept) + "\n")
    print(name, watch.verdict.phase, watch.verdict.signals.get("t2"), watch.verdict.reason)


def main() -> None:
    """Record what is asked for and write down what a replay says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=list(RUNS))
    parser.add_argument("--expect", action="store_true")
    options = parser.parse_args()
    for name in options.names:
        if not options.expect:
            record(name)
        said = json.dumps(expected(HERE / f"{name}.jsonl")).replace("], [", "],\n [")
        (HERE / f"{name}.expected.json").write_text(said + "\n")
        print(said)


if __name__ == "__main__":
    main()
