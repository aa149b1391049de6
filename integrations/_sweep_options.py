"""What the trials of a sweep have in common: the monitor's settings, and how the sweep learns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grokwatch._readers.hparams import settings_from
from grokwatch.forecast.learned import Forecast
from grokwatch.monitor import Monitor
from grokwatch.records import SETTINGS
from grokwatch.sweeps import SweepForecast
from grokwatch.verdict import STOPS, Recommendation, check_stop_on

#: Settings of the monitor that a trial's hyper-parameters may tell.
HYPER = ("learning_rate", "weight_decay", "train_fraction")


@dataclass(frozen=True)
class SweepOptions:
    """Made by :func:`options`; plain and JSON-able but for the forecast.

    Attributes:
        settings: of :class:`Monitor`, the same for every trial.
        percent: accuracies arrive as 0..100.
        stop_on: recommendations that end a trial.
        hyper: setting of a trial -> the key its configuration has for it; others are guessed.
        learn: whether the forecast is refitted on the sweep's own ended trials.
        control_fraction: share of trials that are never stopped.
        refit_every: ended trials from one refit to the next.
        seed: of the control arm.
        forecast: what the sweep begins with; None = the one that comes along.
    """

    settings: dict[str, Any]
    percent: bool
    stop_on: tuple[Recommendation, ...]
    hyper: dict[str, str]
    learn: bool
    control_fraction: float
    refit_every: int
    seed: int
    forecast: Forecast | None

    def sweep(self) -> SweepForecast | None:
        """A fresh forecast that learns, or None if it should not."""
        if not self.learn:
            return None
        return SweepForecast(
            self.forecast,
            control_fraction=self.control_fraction,
            refit_every=self.refit_every,
            seed=self.seed,
            **self.settings,
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain, JSON-able form, as :func:`options` takes it."""
        forecast = None if self.forecast is None else dict(self.forecast.parameters)
        unit = {"accuracy_unit": "percent"} if self.percent else {}
        plain = {name: value for name, value in vars(self).items() if name != "percent"}
        plain |= {"settings": {**self.settings, **unit}, "stop_on": list(self.stop_on)}
        return {**plain, "forecast": forecast}


def options(
    settings: Mapping[str, Any],
    *,
    stop_on: Sequence[Recommendation] = STOPS,
    hyper: Mapping[str, str] | None = None,
    learn: bool = True,
    control_fraction: float = 0.1,
    refit_every: int = 10,
    seed: int = 0,
    forecast: Forecast | Mapping[str, Any] | None = None,
) -> SweepOptions:
    """The options, checked.

    Raises:
        TypeError: a setting that cannot be common to all trials and saved with the sweep, or one
            of the wrong type.
        ValueError: a setting outside its range.
    """
    told = {name: value for name, value in settings.items() if value is not None}
    unknown = sorted(told.keys() - {*SETTINGS, "accuracy_unit"})
    if unknown:
        raise TypeError(
            f"a sweep does not take {unknown}; of Monitor's settings it takes "
            f"{[*SETTINGS, 'accuracy_unit']}."
        )
    strange = sorted((hyper or {}).keys() - set(HYPER))
    if strange:
        raise ValueError(f"hyper knows {list(HYPER)}, but got {strange}.")
    if isinstance(forecast, Mapping):
        forecast = Forecast(forecast)
    if forecast is not None and not isinstance(forecast, Forecast):
        raise TypeError(
            f"forecast must be a grokwatch.Forecast, which can be saved with the sweep, but is "
            f"{type(forecast).__name__}."
        )
    Monitor(**told)  # raises for a wrong setting
    percent = told.pop("accuracy_unit", "fraction") == "percent"
    made = SweepOptions(
        settings=json.loads(json.dumps(told)),
        percent=percent,
        stop_on=check_stop_on(stop_on),
        hyper=dict(hyper or {}),
        learn=bool(learn),
        control_fraction=float(control_fraction),
        refit_every=refit_every,
        seed=seed,
        forecast=forecast,
    )
    made.sweep()  # likewise
    return made


def hyper_parameters(
    config: Mapping[str, Any],
    names: Mapping[str, str] | None = None,
    missing: Callable[[str, Sequence[str]], None] | None = None,
) -> dict[str, float]:
    """Learning rate, weight decay and train fraction of a trial, as far as it has them.

    Args:
        config: the trial's configuration; may be nested.
        names: setting -> key (``a/b`` in a nested one); the others are guessed by their last word,
            and left out if two keys that differ could be meant.
        missing: told a key of ``names`` that holds no number, and the keys that do.

    >>> hyper_parameters({"optimizer": {"lr": 0.1, "wd": 1}, "width": 64})
    {'learning_rate': 0.1, 'weight_decay': 1.0}
    >>> hyper_parameters({"head": {"lr": 0.1}, "body": {"lr": 0.2}})
    {}
    >>> hyper_parameters({"head": {"lr": 0.1}, "body": {"lr": 0.2}}, {"learning_rate": "body/lr"})
    {'learning_rate': 0.2}
    """
    numbers = leaves(config)
    by_word: dict[str, set[float]] = {}
    for path, value in numbers.items():
        by_word.setdefault(path.replace(".", "/").rpartition("/")[2].lower(), set()).add(value)
    chosen = {word: min(values) for word, values in by_word.items() if len(values) == 1}
    for setting, key in (names or {}).items():
        if key in numbers:
            chosen[setting] = numbers[key]
        elif missing is not None:
            missing(key, sorted(numbers))
    found = settings_from(chosen)
    return {name: found[name] for name in HYPER if name in found}


def leaves(nested: Mapping[str, Any], above: str = "") -> dict[str, float]:
    """The numbers in nested mappings, by ``a/b`` path.

    >>> leaves({"val": {"loss": 1, "name": "x"}, "done": False})
    {'val/loss': 1.0}
    """
    found: dict[str, float] = {}
    for key, value in nested.items():
        path = f"{above}{key}"
        if isinstance(value, Mapping):
            found |= leaves(value, f"{path}/")
        elif not isinstance(value, (bool, str, bytes)):
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError, RuntimeError):
                continue
            if not math.isnan(number):
                found[path] = number
    return found
