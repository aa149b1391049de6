"""A Ray Tune experiment that may be killed: python -m tests.sweep_ray run|restore FOLDER."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "disabled"  # else a token is written to the home folder
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray import tune

from grokwatch.integrations.raytune import GrokWatchStopper
from tests.sweep_curves import BUDGET, CHANCE, reported

KINDS = ("grokker", "never", "immediate", "slingshot")
NAME = "sweep"
CHECKPOINT = "row"


def train(config: dict[str, Any]) -> None:
    """Report the rows of a recorded run, from a checkpoint on if there is one."""
    start = 0
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as folder:
            start = int(Path(folder, CHECKPOINT).read_text())
    for index, (step, row) in enumerate(reported(config)):
        if index < start:
            continue
        if index == 3 and "fails_once" in config and not Path(config["fails_once"]).exists():
            Path(config["fails_once"]).touch()
            raise RuntimeError("as it was told to")
        if config.get("save_every") and index % config["save_every"] == 0 and index:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, CHECKPOINT).write_text(str(index + 1))
                saved = tune.Checkpoint.from_directory(folder)
                tune.report({"step": step, **row}, checkpoint=saved)
        else:
            tune.report({"step": step, **row})
        time.sleep(config.get("pause", 0.0))


def begin() -> None:
    """Start Ray with two workers on this machine."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


def space(count: int, **config: Any) -> dict[str, Any]:
    """The first so many of the trials: kinds of curves by learning rates."""
    chosen = [{"kind": KINDS[i % 4], "lr": 1e-3 * (1 + i // 4)} for i in range(count)]
    return {"trial": tune.grid_search(chosen), **config}


def trainable(config: dict[str, Any]) -> None:
    train({**config, **config["trial"]})


def tuner(folder: Path, stopper: Any, param_space: dict[str, Any], **changes: Any) -> tune.Tuner:
    run = {"stop": stopper, "storage_path": str(folder), "name": NAME, "verbose": 0}
    settings = {"reuse_actors": True, **changes.pop("tune_config", {})}
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space=param_space,
        tune_config=tune.TuneConfig(**settings),
        run_config=tune.RunConfig(**{**run, **changes}),
    )


def stopper(folder: Path, **changes: Any) -> GrokWatchStopper:
    settings: dict[str, Any] = {"control_fraction": 0.5, "refit_every": 5}
    return GrokWatchStopper(budget=BUDGET, chance=CHANCE, log_dir=folder, **{**settings, **changes})


def main(what: str, folder: Path) -> None:
    begin()
    if what == "run":
        found = tuner(folder, stopper(folder), space(8, every=8, save_every=4, pause=0.1)).fit()
    else:
        path = str(folder / NAME)
        found = tune.Tuner.restore(path, tune.with_resources(trainable, {"cpu": 1})).fit()
    ended = {result.metrics["trial_id"]: result.metrics for result in found}
    plain = json.dumps(ended, default=str)
    (folder / f"{what}.json").write_text(plain, encoding="utf-8")
    ray.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
