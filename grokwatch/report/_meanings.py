"""What signals and recommendations mean, in words for a page."""

from __future__ import annotations

import re

from grokwatch.signals.trend import TRENDS

SAY = {
    "continue": "Go on",
    "stop_unpromising": "Stop: unlikely to generalise within its budget",
    "stop_generalised": "Stop: it has generalised",
    "stop_diverged": "Stop: it has diverged",
}

MILESTONES = {
    "t1": "training accuracy left chance",
    "t2": "training accuracy reached its goal: learnt by heart",
    "t3": "validation accuracy left chance",
    "t4": "validation accuracy reached its goal for good: generalised",
}

#: Fits shown in a table of their own: signal -> symbol, what it is.
FITS = {
    "transition_time": ("t*", "step of the validation jump"),
    "transition_time_error": ("± t*", "its standard error"),
    "transition_sharpness": ("s", "sharpness of the validation jump, per step"),
    "transition_sharpness_error": ("± s", "its standard error"),
    "transition_r2": ("R²", "share of the variance of validation accuracy that the fit explains"),
    "transition_low": ("low", "accuracy before the jump"),
    "transition_amplitude": ("2a", "rise in accuracy"),
    "transition_jumps": ("jumps", "1, or 2 for a rise in two steps"),
    "transition_first_time": ("t* (first)", "step of the first of two jumps"),
    "transition_second_time": ("t* (second)", "step of the second of two jumps"),
    "train_transition_time": ("t* (training)", "step of the training jump"),
    "train_transition_sharpness": ("s (training)", "its sharpness, per step"),
    "train_transition_r2": ("R² (training)", "share of the variance that its fit explains"),
    "relative_gap": ("m", "relative grokking gap: t* over that of the training jump, less 1"),
    "relative_sharpness": ("R_rel", "sharpness of the validation jump over the training jump's"),
    "absolute_sharpness": ("R_abs", "steepest slope of validation accuracy, per step"),
}

_KNOWN = {
    **MILESTONES,
    **{name: meaning for name, (_, meaning) in FITS.items()},
    "train_loss": "last training loss",
    "train_accuracy": "last training accuracy, 0..1",
    "val_loss": "last validation loss",
    "val_accuracy": "last validation accuracy, 0..1",
    "val_margin": "last margin: logit of the right answer less the best other, on average",
    "grad_norm": "norm of the gradient",
    "weight_norm": "norm of the weights",
    "last_layer_norm": "norm of the last layer",
    "update_cosine_distance": "cosine distance of the weights from one update to the next",
    "learning_rate": "learning rate",
    "chance": "accuracy of guessing",
    "spikes": "slingshots so far",
    "spike_step": "step at which the latest slingshot began",
    "spike_amplitude": "its height above the rolling median, in decades",
    "spike_width": "its width, in steps",
    "spike_period": "median distance of slingshots, in steps",
    "spike_corroborated": "1 = gradient or update rose with it",
    "spectral_early_activity": "variance of the first 400 training losses",
    "diverged_step": "step at which divergence was noticed",
    "ungrokked_step": "step at which generalisation was lost",
}

_SPECTRAL = {
    "energy": "sum of squares",
    "activity": "variance",
    "mobility": "mobility, radians per step",
    "complexity": "complexity, radians per step",
    "hjorth_complexity": "complexity over mobility (Hjorth)",
    "frequency": "strongest frequency, radians per step",
}


def meaning(signal: str) -> str:
    """What a built-in signal is; "" for somebody's own.

    >>> meaning("spectral_log_activity")
    'variance, of the last 400 training losses (log10)'
    >>> meaning("val_loss_slope_4x")
    'change of log val_loss per doubling of the step, since a quarter of it'
    >>> meaning("my_own")
    ''
    """
    if signal in _KNOWN:
        return _KNOWN[signal]
    if found := re.fullmatch(r"spectral_(log_)?(\w+)", signal):
        what = _SPECTRAL.get(found[2])
        log = " (log10)" if found[1] else ""
        return f"{what}, of the last 400 training losses{log}" if what else ""
    if found := re.fullmatch(r"(\w+)_slope_(2|4|16)x", signal):
        log = "log " if TRENDS.get(found[1]) else ""
        since = {"2": "half", "4": "a quarter", "16": "a sixteenth"}[found[2]]
        return f"change of {log}{found[1]} per doubling of the step, since {since} of it"
    return ""
