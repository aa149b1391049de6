"""What the paper says of intrinsic dimension (appendix H), held against one run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from landscape_rules import Claim, about, make_claim

if TYPE_CHECKING:
    from landscape_measure import Measured
    from landscape_train import Run


def dimension_grows(run: Run, measured: Measured) -> Claim:
    """Appendix H, the beginning."""
    return _dimension_change(
        run,
        measured,
        ("start", "t2"),
        "Intrinsic dimension grows at the very beginning (app. H)",
        1,
    )


def dimension_falls(run: Run, measured: Measured) -> Claim:
    """Appendix H, the rest."""
    return _dimension_change(
        run, measured, ("t2", "end"), "and then falls until it stabilises (app. H)", -1
    )


def estimators_agree(measured: Measured) -> Claim:
    """Appendix H.1."""
    pairs = [
        (a, b)
        for side in (measured.dimensions, measured.val_dimensions)
        for layer in side["mle"]
        for a, b in zip(side["mle"][layer], side["twonn"][layer], strict=True)
        if np.isfinite(a) and np.isfinite(b)
    ]
    r = float(np.corrcoef(np.array(pairs).T)[0, 1])
    return make_claim(
        "MLE (k = 2) and TwoNN correlate to 99.6 % (app. H.1)",
        f"Pearson {100 * r:.1f} % over {len(pairs)} pairs (layers, checkpoints, both sets)",
        r > 0.99,
    )


def _dimension_change(
    run: Run, measured: Measured, between: tuple[str, str], text: str, sign: int
) -> Claim:
    steps = np.array(measured.dimension_steps)
    last = int(steps[-1])
    ends = {"start": 0, "t2": run.milestones.get("t2", last), "end": last}
    said, met = [], []
    for side, found in (("train", measured.dimensions), ("val", measured.val_dimensions)):
        for layer, values in found["mle"].items():
            before, after = (about(steps, np.array(values), ends[name]) for name in between)
            said.append(f"{side} {layer} {before:.1f} -> {after:.1f}")
            met.append(sign * (after - before) > 0)
    return make_claim(
        text,
        f"at {sum(met)} of {len(met)} places; MLE (k = 2), {between[0]} -> {between[1]}: "
        f"{'; '.join(said)}",
        all(met),
    )
