"""Arbitrary measurements through monitor and watch: nothing but documented errors, sane verdicts.

    python benchmarks/fuzz.py [--examples 1000000] [--seed 0] [--progress FILE]

An example is one run: settings, steps and values drawn at random, among them what no number is.
Every eighth goes through a watch, which may not raise at all. Example n of a seed is always the
same, so that a progress file says everything: the run goes on where it was, and a failure is
repeated with ``--only N``. Warnings are errors here, but those by which a watch tells of a fault.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import grokwatch
from benchmarks.fuzz_values import MOODS, anything, bad_number, number, settings, step_after
from grokwatch import Monitor, Verdict
from grokwatch.ingest import MEASUREMENTS
from grokwatch.integrations.pytorch import Watch
from grokwatch.verdict import PHASES, STOPS

_NAMES = sorted(MEASUREMENTS)
_MAIN = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
_SAVE_EVERY = 500  # examples
_KEPT = 50  # failures that are kept in full


def check_verdict(verdict: Verdict, last: int | None) -> None:
    """Raise an AssertionError for a verdict that cannot be."""
    assert verdict.phase in PHASES, verdict.phase
    assert verdict.recommendation in ("continue", *STOPS), verdict.recommendation
    assert type(verdict.step) is int and 0 <= verdict.step <= (last or 0), (verdict.step, last)
    if verdict.probability is not None:
        assert type(verdict.probability) is float and 0.0 <= verdict.probability <= 1.0, verdict
    if verdict.eta is not None:
        low, median, high = verdict.eta
        assert 0.0 <= low <= median <= high < math.inf, verdict.eta
    assert isinstance(verdict.reason, str) and 0 < len(verdict.reason) < 400, verdict.reason
    for name, value in verdict.signals.items():
        assert isinstance(name, str) and type(value) is float and math.isfinite(value), name
    json.dumps(verdict.as_dict(), allow_nan=False)


def row(r: random.Random, mood: str) -> dict[str, Any]:
    """Some measurements: mostly numbers that make sense, some of any kind."""
    few = r.random() < 0.8
    chosen = r.sample(_NAMES[:12], r.randrange(1, 4)) if few else r.sample(_NAMES, 6)
    if mood != "any":  # phases come of these
        chosen += [n for n in _MAIN if r.random() < 0.6]
    odd = 0.3 if mood == "any" and r.random() < 0.3 else 0.003
    found = {name: anything(r) if r.random() < odd else number(r, name, mood) for name in chosen}
    if r.random() < 0.01:
        found[r.choice(["nonsense", "", "step ", "val-loss", "Train_Loss"])] = 1.0
    return found


def moods(r: random.Random) -> Iterator[str]:
    """Where the run stands, call by call; its length is random."""
    wild = r.random() < 0.5
    how = r.random()
    length = r.randrange(1, 7) if how < 0.8 else r.randrange(7, 120 if how < 0.995 else 900)
    at = 0
    for _ in range(length):
        yield "any" if wild else MOODS[at]
        if r.random() < 0.06:
            at = r.choice([at + 1, at + 1, r.randrange(len(MOODS))]) % len(MOODS)


def monitored(r: random.Random) -> Verdict:
    """One run through :class:`grokwatch.Monitor`."""
    given = settings(r)
    monitor = Monitor(**given)
    twin: Monitor | None = None
    step, checked = -1, monitor.verdict
    for mood in moods(r):
        step = step_after(r, step)
        at: Any = step if r.random() < 0.97 else anything(r)
        measured = row(r, mood)
        if r.random() < 0.05:  # whatever is wrong, one error, and nothing is changed
            measured[r.choice(_NAMES)] = bad_number(r)
            before = json.dumps(monitor.state_dict())
            try:
                monitor.update(at, **measured)
            except (TypeError, ValueError):
                assert json.dumps(monitor.state_dict()) == before, "an error changed the state"
                continue
            raise AssertionError(f"accepted {measured}")
        outcome = _update(monitor, at, measured)
        if twin is not None:
            assert _update(twin, at, measured) == outcome, "a resumed monitor says otherwise"
        if monitor.verdict is not checked:
            checked = monitor.verdict
            check_verdict(checked, monitor.last_step)
        step = monitor.last_step if monitor.last_step is not None else step
        if r.random() < 0.05:
            text = json.dumps(monitor.state_dict(), allow_nan=False)
            assert len(text) <= 64_000, len(text)
            twin = Monitor(**given)
            twin.load_state_dict(json.loads(text))
            assert json.dumps(twin.state_dict()) == text, "a state changed on its way"
            twin.update(step if step >= 0 else 0)  # else its next step may go back, as documented
    return monitor.verdict


def _update(monitor: Monitor, step: Any, measured: dict[str, Any]) -> Any:
    try:
        return monitor.update(step, **measured)
    except (TypeError, ValueError) as error:
        return type(error).__name__


def watched(r: random.Random) -> Verdict:
    """One run through :func:`grokwatch.watch`, now and then to disk and back."""
    given = settings(r)
    folder = tempfile.TemporaryDirectory() if r.random() < 0.25 else None
    record = None if folder is None else Path(folder.name) / "run"
    model = torch.nn.Linear(1, 1)
    with grokwatch.watch(model, log_dir=record, tensorboard=False, **given) as watch:
        step = 0
        for mood in moods(r):
            step = step_after(r, step) if r.random() < 0.9 else step
            at = None if r.random() < 0.5 else step if r.random() < 0.95 else anything(r)
            _call(watch, r, at, mood)
        watch.flush()
        outlet = watch._outlet
        check_verdict(watch.verdict, outlet.monitor.last_step)
        for part in ("monitor", "judging", "saving the monitor", "log_dir", "record"):
            assert outlet.works(part), f"{part} was switched off"
    if folder is not None and record is not None:
        if outlet.monitor.last_step is not None:
            kept = {k: v for k, v in given.items() if k != "accuracy_unit"}
            assert grokwatch.replay(record, **kept).final == watch.verdict, "replayed otherwise"
        folder.cleanup()
    return watch.verdict


def _call(watch: Watch, r: random.Random, at: Any, mood: str) -> None:
    """Something that a training loop may call."""
    calls: list[Callable[[], object]] = [
        lambda: watch.train(*_pair(r, "train", mood), step=at),
        lambda: watch.validate(*_pair(r, "val", mood), step=at),
        lambda: watch.observe(step=at, **row(r, mood)),
        lambda: watch.validate(logits=anything(r), targets=anything(r)),
        lambda: watch.should_stop,
        lambda: json.dumps(watch.state_dict(), allow_nan=False),
    ]
    r.choices(calls, [60, 20, 10, 3, 4, 3])[0]()


def _pair(r: random.Random, side: str, mood: str) -> list[Any]:
    """A loss and an accuracy, or what is handed over as such."""
    odd = 0.1 if mood == "any" else 0.003
    return [
        None if r.random() < 0.2 else anything(r) if r.random() < odd else number(r, name, mood)
        for name in (f"{side}_loss", f"{side}_accuracy")
    ]


def example(seed: int, index: int) -> Verdict:
    """Example ``index`` of a seed: its last verdict; raises if it finds anything."""
    r = random.Random(f"{seed}:{index}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "grokwatch: ")  # a watch tells of what was wrong
        return (watched if index % 8 == 7 else monitored)(r)


def run(seed: int, examples: int, progress: Path | None) -> dict[str, Any]:
    """All examples that are still to be done; what has been found."""
    done: dict[str, Any] = {"seed": seed, "done": 0, "seconds": 0.0, "failed": 0, "failures": []}
    done["phases"] = {}
    if progress is not None and progress.exists():
        done = json.loads(progress.read_text(encoding="utf-8"))
        if done["seed"] != seed:
            raise SystemExit(f"{progress} is of seed {done['seed']}, not {seed}.")
    phases = Counter(done["phases"])
    began = time.process_time()
    for index in range(done["done"], examples):
        try:
            phases[example(seed, index).phase] += 1
        except Exception:
            done["failed"] += 1
            if len(done["failures"]) < _KEPT:
                told = {"example": index, "error": traceback.format_exc()[-1500:]}
                done["failures"].append(told)
        done["done"] = index + 1
        if done["done"] % _SAVE_EVERY == 0 or done["done"] == examples:
            done["seconds"] += time.process_time() - began
            began = time.process_time()
            done["phases"] = dict(phases)
            if progress is not None:
                unfinished = progress.with_suffix(".tmp")
                unfinished.write_text(json.dumps(done, indent=1), encoding="utf-8")
                os.replace(unfinished, progress)
    return done


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", type=Path)
    parser.add_argument("--only", type=int, help="repeat one example")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only is not None:
        example(options.seed, options.only)
        print("nothing found")
        return
    done = run(options.seed, options.examples, options.progress)
    print(f"{done['done']:,} examples, seed {done['seed']}, {done['seconds']:,.0f} s of processor")
    print(f"{done['failed']} failed; last phases {done['phases']}")
    for failure in done["failures"]:
        print(f"\n--only {failure['example']}\n{failure['error']}")


if __name__ == "__main__":
    main()
