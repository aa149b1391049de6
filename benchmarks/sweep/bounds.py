"""How much a sweep could save at best, if the threshold were chosen afterwards.

    python -m benchmarks.sweep.bounds [--sweeps grid times] [--trees 200]

For each recorded sweep: what would be saved by stopping each trial as soon as a score has been low
in two verdicts in a row, with the one threshold for all trials and steps that saves most at no
kill, 2 and 5 %. The scores are what the shipped forecast says, and what a forest of extra trees
says that was fitted to *the sweep itself*: to nine tenths of its trials, with features, reach,
learning rate, decay and train fraction, and asked about the last tenth. No forecast that has seen
thirty trials, and no threshold set beforehand, can be expected to do better than the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.sweep.recorded import SWEEPS, Recorded, recorded_sweep
from benchmarks.sweep.simulate import Prepared, prepare
from grokwatch.forecast.learned import worth_it
from grokwatch.forecast.prior import hyper_parameters

Floats = npt.NDArray[np.float64]
RATES = (0.0, 0.02, 0.05)
WANTED = 0.9
FOLDS = 10
_MISSING = -9.0  # below every feature


class Hindsight:
    """What each threshold on a score would have saved and killed."""

    def __init__(
        self, trials: Sequence[Recorded], scores: Sequence[Floats], reach: Sequence[Floats]
    ) -> None:
        self.falling: list[tuple[Floats, Floats, float]] = []  # of trials that never generalise
        worst = []
        for trial, score, u in zip(trials, scores, reach, strict=True):
            usable = np.where(worth_it(u), score, np.inf) if len(score) else score
            twice = np.maximum(usable[1:], usable[:-1])
            steps = trial.own.steps[1:].astype(np.float64)
            if trial.t4 is not None:
                worst.append(float(twice[steps < trial.t4].min(initial=np.inf)))
            elif trial.never:
                self.falling.append((np.minimum.accumulate(twice), steps, trial.own.budget))
        self.worst = np.sort(worst)

    def saved(self, threshold: float) -> float:
        """Mean share of the budget saved on trials that never generalise."""
        saved = []
        for low, steps, budget in self.falling:
            hit = np.flatnonzero(low < threshold)
            saved.append(1.0 - steps[hit[0]] / budget if hit.size else 0.0)
        return float(np.mean(saved))

    def best(self, rate: float) -> float:
        """Most that is saved with at most this share of the trials that generalise killed."""
        return self.saved(float(self.worst[int(rate * len(self.worst))]))

    def price(self, saved: float) -> float:
        """Least share of the trials that generalise that must be killed to save so much."""
        for killed, threshold in enumerate(self.worst.tolist()):
            if self.saved(threshold) >= saved:
                return killed / len(self.worst)
        return 1.0


def fitted_to_itself(prepared: Prepared, trees: int) -> list[Floats]:
    """Log-odds of a forest that has seen nine tenths of the sweep, for the other tenth."""
    from sklearn.ensemble import ExtraTreesClassifier

    trials = prepared.trials
    rows, sizes = [], [len(trial.own.steps) for trial in trials]
    for trial, u, odds in zip(trials, prepared.reach, prepared.log_odds, strict=True):
        told = np.tile(hyper_parameters(trial.own.settings), (len(u), 1))
        rows.append(np.column_stack([trial.own.x, u, odds, told]))
    x = np.nan_to_num(np.concatenate(rows), nan=_MISSING)
    of = np.repeat(np.arange(len(trials)), sizes)
    late = np.array([trial.t4 is not None for trial in trials])[of]
    weight = 1.0 / np.maximum(sizes, 1)[of]
    fold = (np.random.default_rng(0).permutation(len(trials)) % FOLDS)[of]
    p = np.zeros(len(of))
    for k in range(FOLDS):
        forest = ExtraTreesClassifier(trees, min_samples_leaf=3, max_features=0.4, random_state=0)
        seen = fold != k
        forest.fit(x[seen], late[seen], sample_weight=weight[seen])
        p[~seen] = forest.predict_proba(x[~seen])[:, 1]
    odds = np.log(p + 1e-3) - np.log(1.0 - p + 1e-3)
    return [odds[of == k] for k in range(len(trials))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sweeps", nargs="*", default=list(SWEEPS), choices=list(SWEEPS))
    parser.add_argument("--trees", type=int, default=200)
    args = parser.parse_args()
    print("saved at most, by rate of kills:" + "".join(f"{rate:8.0%}" for rate in RATES)
          + f"   kills for {WANTED:.0%} saved")  # fmt: skip
    for name in args.sweeps:
        prepared = prepare(recorded_sweep(name))
        own = fitted_to_itself(prepared, args.trees)
        both = [a + b for a, b in zip(own, prepared.log_odds, strict=True)]
        for label, scores in (
            ("shipped", prepared.log_odds),
            ("fitted to itself", own),
            ("sum of both", both),
        ):
            found = Hindsight(prepared.trials, scores, prepared.reach)
            line = "".join(f"{found.best(rate):8.1%}" for rate in RATES)
            print(f"  {name:14s} {label:16s}{line} {found.price(WANTED):10.1%}", flush=True)


if __name__ == "__main__":
    main()
