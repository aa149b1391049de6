"""The tables and sentences of a page about one run."""

from __future__ import annotations

from typing import Any

from grokwatch._summary import describe_run
from grokwatch.replay import Replay
from grokwatch.report._facts import Stop, budget_of, milestones, spikes, stops
from grokwatch.report._meanings import FITS, MILESTONES, meaning
from grokwatch.verdict import Verdict

Rows = list[list[str]]

_MOST_CHANGES = 200
_MOST_SPIKES = 20


def facts(replayed: Replay) -> list[tuple[str, str]]:
    """What one wants to know first."""
    final, budget = replayed.final, replayed.run.settings.get("budget")
    return [
        ("phase", final.phase),
        ("P(generalises within budget)", _probability(final) or "insufficient evidence"),
        (
            "expected step (80 % interval)" if final.phase != "generalised" else "generalised at",
            _eta(final) or "none",
        ),
        ("judged at step", f"{final.step:,}"),
        ("last step recorded", f"{replayed.run.last_step:,}"),
        ("budget", f"{budget:,}" if budget is not None else "none told; its last step taken"),
    ]


def milestone_rows(replayed: Replay) -> Rows:
    """t1..t4, where reached."""
    budget = budget_of(replayed)
    return [
        [name, f"{step:,}", f"{100 * step / budget:.2g} %", MILESTONES[name]]
        for name, step in milestones(replayed).items()
    ]


def spike_sentence(replayed: Replay) -> str:
    """Where the slingshots were; "" = there were none.

    >>> from grokwatch.records import Run
    >>> seen = {"spikes": 1.0, "spike_step": 900.0, "spike_amplitude": 2.04}
    >>> spike_sentence(Replay(Run({}), [Verdict(950, "memorisation", None, None, "", "", seen)]))
    '1 slingshot of the training loss: at step 900 (2.0 decades).'
    """
    found = spikes(replayed)
    if not found:
        return ""
    told = [
        f"{spike.step:,}" + ("" if spike.decades is None else f" ({spike.decades:.1f} decades)")
        for spike in found[:_MOST_SPIKES]
    ]
    more = f" and {len(found) - _MOST_SPIKES} more" if len(found) > _MOST_SPIKES else ""
    s = "s" if len(found) > 1 else ""
    return f"{len(found)} slingshot{s} of the training loss: at step{s} {', '.join(told)}{more}."


def saved(replayed: Replay) -> list[str]:
    """What to stop as soon as it was recommended would have come to, in sentences."""
    found = stops(replayed)
    if found:
        return [_saved(stop, replayed) for stop in found]
    return [
        f"To stop was never recommended. The record ends at step {replayed.run.last_step:,} of a "
        f"budget of {budget_of(replayed):,}."
    ]


def _saved(stop: Stop, replayed: Replay) -> str:
    at, last = stop.verdict.step, replayed.run.last_step
    if stop.recorded:
        share = stop.recorded / last
        saves = f"{stop.recorded:,} of the {last:,} steps recorded ({share:.0%})"
        saves += f", {stop.budget:,} of the budget of {budget_of(replayed):,}"
    else:
        saves = f"{stop.budget:,} steps of the budget; the record ends there"
    words = f"{stop.verdict.recommendation} first came at step {at:,}: to stop there saves {saves}."
    if stop.regretted is not None:
        words += (
            f" It would have been a mistake: the run generalised at step {stop.regretted:,} "
            f"all the same."
        )
    elif stop.withdrawn is not None:
        words += f" At step {stop.withdrawn:,} it was taken back."
    return words


def why_no_forecast(replayed: Replay) -> str:
    """Said in place of figures of a forecast that was never made."""
    if any(verdict.probability is not None for verdict in replayed.verdicts):
        return ""
    return (
        "There is no figure of the forecast: there never was enough evidence for one. A forecast "
        "needs validation measurements after the training set is learnt."
    )


def fit_rows(replayed: Replay) -> Rows:
    """The erf fits and what follows from them."""
    signals = replayed.final.signals
    rows = []
    for name, (symbol, what) in FITS.items():
        if name in signals:
            value = signals[name]
            rows.append([symbol, f"{value:,.1f}" if "time" in name else f"{value:.4g}", what])
    return rows


def how_it_was_read(replayed: Replay) -> str:
    """One sentence on format and settings."""
    about = describe_run(replayed.run)
    read = f"Read as {about['format']}" if about["format"] else "Taken from memory"
    settings = ", ".join(f"{name} {_short(value)}" for name, value in about["settings"].items())
    return f"{read}; judged with {settings or 'no settings'}."


def column_rows(replayed: Replay) -> dict[str, Any]:
    """The measurements there were, and what the file calls them where it has other names."""
    about = describe_run(replayed.run)
    names = about["names"]
    heads = ["measurement", "called in the file", "#points", "#first step", "#last step", "#every"]
    rows = [
        [
            name,
            names.get(name, ""),
            f"{column['points']:,}",
            f"{column['first']:,}",
            f"{column['last']:,}",
            "" if column["points"] == 1 else f"~{column['every']:,}",
        ]
        for name, column in about["columns"].items()
    ]
    if not names:
        rows, heads = [[row[0], *row[2:]] for row in rows], [heads[0], *heads[2:]]
    return {"columns": rows, "column_heads": heads}


def change_rows(replayed: Replay) -> dict[str, Any]:
    """The verdict's changes, the first ones if there are very many."""
    changes = replayed.changes()
    rows = [
        [
            f"{verdict.step:,}",
            verdict.phase,
            _probability(verdict),
            "" if verdict.eta is None else f"{verdict.eta[1]:,.0f}",
            verdict.recommendation,
            verdict.reason,
        ]
        for verdict in changes[:_MOST_CHANGES]
    ]
    more = len(changes) - len(rows)
    return {"changes": rows, "more_changes": f"{more:,} later ones are left out" if more else ""}


def signal_rows(replayed: Replay) -> Rows:
    """Every signal of the last verdict."""
    return [[name, _short(value), meaning(name)] for name, value in replayed.final.signals.items()]


def _probability(verdict: Verdict) -> str:
    """Probability, with as many digits as it takes to tell it from 0 and 1."""
    if verdict.probability is None:
        return ""
    return f"{verdict.probability:.2f}" if verdict.probability >= 0.095 else (
        f"{verdict.probability:.2g}"
    )  # fmt: skip


def _eta(verdict: Verdict) -> str:
    if verdict.eta is None:
        return ""
    low, median, high = verdict.eta
    return f"{median:,.0f}" if low == high else f"{median:,.0f} ({low:,.0f} to {high:,.0f})"


def _short(value: object) -> str:
    """A number to four digits, whole ones whole.

    >>> _short(20000), _short(5606.0), _short(0.0434782), _short(1.5e-17), _short(True)
    ('20,000', '5,606', '0.04348', '1.5e-17', 'True')
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.1f}"
